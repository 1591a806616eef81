import { FormatError } from "../errors.ts";

const NUMBER = /-?(0|[1-9]\d*)(\.\d+)?([eE][+-]?\d+)?/y;
const SPACE = /[ \t\r\n]*/y;
const DEEPEST_NESTING = 100;

/**
 * The members of a JSON object as text: strings as they are, numbers and nested values exactly as
 * they were written, true and false as words; null members are left out. Of equal keys the last one
 * counts, because people glue files together.
 *
 * Throws FormatError with line and column. The runtime's own parser tells neither, and rounds
 * numbers.
 */
export function parseJsonObject(source: string): Map<string, string> {
  const reader = new JsonReader(source.replace(/^\uFEFF/, ""));
  const members = new Map<string, string>();
  reader.readDocument((key, { kind, text }) => {
    if (kind === "null") members.delete(key);
    else members.set(key, text);
  });
  return members;
}

interface JsonValue {
  readonly kind: "string" | "number" | "boolean" | "null" | "nested";
  readonly text: string;
}

type OnMember = (key: string, value: JsonValue) => void;

class JsonReader {
  readonly #source: string;
  #position = 0;

  constructor(source: string) {
    this.#source = source;
  }

  readDocument(onMember: OnMember): void {
    this.#skipSpace();
    if (this.#source[this.#position] !== "{") throw this.#failure("expected {");
    this.#readObject(onMember, 1);
    this.#skipSpace();
    if (this.#position < this.#source.length) throw this.#failure("expected the end of the file");
  }

  #readObject(onMember: OnMember, depth: number): void {
    this.#readList("}", () => {
      if (this.#source[this.#position] !== '"')
        throw this.#failure("expected a key in double quotes");
      const key = this.#readString();
      this.#skipSpace();
      if (this.#source[this.#position] !== ":") throw this.#failure("expected :");
      this.#position += 1;
      this.#skipSpace();
      onMember(key, this.#readValue(depth));
    });
  }

  /** From the opening bracket to after the closing one. */
  #readList(close: "}" | "]", readItem: () => void): void {
    this.#position += 1;
    this.#skipSpace();
    if (this.#source[this.#position] === close) {
      this.#position += 1;
      return;
    }
    for (;;) {
      readItem();
      this.#skipSpace();
      const next = this.#source[this.#position];
      if (next !== "," && next !== close) throw this.#failure(`expected , or ${close}`);
      this.#position += 1;
      if (next === close) return;
      this.#skipSpace();
    }
  }

  #readValue(depth: number): JsonValue {
    const start = this.#position;
    const first = this.#source[start];
    if (first === '"') return { kind: "string", text: this.#readString() };
    if (first === "{" || first === "[") {
      if (depth === DEEPEST_NESTING) throw this.#failure("nested too deeply");
      if (first === "{") this.#readObject(() => {}, depth + 1);
      else this.#readList("]", () => void this.#readValue(depth + 1));
      return { kind: "nested", text: this.#source.slice(start, this.#position) };
    }
    for (const word of ["true", "false", "null"]) {
      if (this.#source.startsWith(word, start)) {
        this.#position += word.length;
        return { kind: word === "null" ? "null" : "boolean", text: word };
      }
    }
    NUMBER.lastIndex = start;
    const [number] = NUMBER.exec(this.#source) ?? [];
    if (number === undefined) throw this.#failure("expected a value");
    this.#position += number.length;
    return { kind: "number", text: number };
  }

  #readString(): string {
    const start = this.#position;
    for (let end = start + 1; end < this.#source.length; end += 1) {
      const character = this.#source[end];
      if (character === "\\") end += 1;
      else if (character === "\n") break;
      else if (character === '"') {
        this.#position = end + 1;
        return this.#decodeString(start);
      }
    }
    throw this.#failure("string has no closing quote on its line");
  }

  #decodeString(start: number): string {
    try {
      const text: unknown = JSON.parse(this.#source.slice(start, this.#position));
      if (typeof text === "string") return text;
    } catch {
      // The reason would not say where.
    }
    this.#position = start;
    throw this.#failure("string has a wrong escape or a control character");
  }

  #skipSpace(): void {
    SPACE.lastIndex = this.#position;
    this.#position += SPACE.exec(this.#source)?.[0].length ?? 0;
  }

  #failure(reason: string): FormatError {
    const before = this.#source.slice(0, this.#position).split("\n");
    const column = (before.at(-1)?.length ?? 0) + 1;
    return new FormatError(`line ${before.length}, column ${column}: ${reason}`);
  }
}
