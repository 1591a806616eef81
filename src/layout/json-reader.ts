import { FormatError, TruncatedError } from "../errors.ts";
import { JsonDecimal, type JsonValue } from "./json-value.ts";

/** Names of the members that lead to a value; "" for the items of an array. */
export type JsonPath = readonly string[];

export interface JsonReaderOptions {
  /**
   * Whether the members of the object or array at this path are reported one by one, so that it is
   * never held as a whole. What is not entered is reported as one value. The path is ours: read
   * only during the call.
   */
  isEntered(path: JsonPath): boolean;
  onValue(path: JsonPath, value: JsonValue): void;
}

/** Deeper texts than this are refused: nobody writes them, and they would exhaust the stack. */
const MAX_DEPTH = 200;

/** One string or number may be this long, so that an endless one can't fill the memory. */
const MAX_TOKEN_LENGTH = 64 * 1024 * 1024;

/** Of text that is read before its values are given away. */
const PIECE_BYTES = 64 * 1024;

const WHITESPACE = /[ \t\n\r]*/y;
const NUMBER = /-?(?:0|[1-9]\d*)(?:\.\d+)?(?:[eE][+-]?\d+)?/y;
const NUMBER_RUN = /[-+.\deE]+/y;
const LITERALS = new Map<string, null | boolean>([
  ["null", null],
  ["true", true],
  ["false", false],
]);
const LITERAL_RUN = /[a-z]+/y;

type Container =
  | { readonly kind: "object"; readonly members: Map<string, JsonValue> | undefined }
  | { readonly kind: "array"; readonly items: JsonValue[] | undefined };

type Expected =
  | "value"
  | "value or end"
  | "name"
  | "name or end"
  | "colon"
  | "comma or end"
  | "nothing";

/**
 * Reads JSON that arrives in pieces, in memory for one token and the values that are not entered.
 * `write` and `end` throw FormatError or TruncatedError with the position in characters.
 */
export class JsonReader {
  readonly #options: JsonReaderOptions;
  readonly #stack: Container[] = [];
  readonly #path: string[] = [];
  #expected: Expected = "value";
  #text = "";
  #at = 0;
  #dropped = 0;

  constructor(options: JsonReaderOptions) {
    this.#options = options;
  }

  write(text: string): void {
    this.#dropped += this.#at;
    this.#text = this.#text.slice(this.#at) + text;
    this.#at = 0;
    while (this.#readToken(false));
    if (this.#text.length - this.#at > MAX_TOKEN_LENGTH) {
      throw this.#wrong(`a value is longer than ${MAX_TOKEN_LENGTH} characters`);
    }
  }

  /** All text was given: throws unless it was one whole value. */
  end(): void {
    while (this.#readToken(true));
    if (this.#expected !== "nothing" || this.#at < this.#text.length) {
      throw new TruncatedError(`JSON ends too early, after ${this.#dropped + this.#at} characters`);
    }
  }

  /** False when the token at the position is not whole yet. */
  #readToken(isLast: boolean): boolean {
    WHITESPACE.lastIndex = this.#at;
    this.#at += WHITESPACE.exec(this.#text)?.[0].length ?? 0;
    const first = this.#text[this.#at];
    if (first === undefined) return false;
    if (this.#expected === "nothing") throw this.#wrong("text after the end");
    if (first === '"') return this.#readString();
    if (first === "-" || (first >= "0" && first <= "9")) return this.#readNumber(isLast);
    if (first >= "a" && first <= "z") return this.#readLiteral(isLast);
    this.#readPunctuation(first);
    this.#at += 1;
    return true;
  }

  #readString(): boolean {
    const start = this.#at;
    let quote = this.#text.indexOf('"', start + 1);
    while (quote !== -1 && isEscaped(this.#text, quote)) quote = this.#text.indexOf('"', quote + 1);
    if (quote === -1) return false;
    const value = this.#decodeString(this.#text.slice(start, quote + 1));
    if (this.#expected === "name" || this.#expected === "name or end") {
      this.#path.push(value);
      this.#expected = "colon";
    } else {
      this.#scalar(value);
    }
    this.#at = quote + 1;
    return true;
  }

  #decodeString(text: string): string {
    try {
      const value: unknown = JSON.parse(text);
      if (typeof value === "string") return value;
    } catch (error) {
      if (!(error instanceof SyntaxError)) throw error;
    }
    throw this.#wrong("a string with a control character or an unknown escape");
  }

  #readNumber(isLast: boolean): boolean {
    NUMBER_RUN.lastIndex = this.#at;
    const run = NUMBER_RUN.exec(this.#text)?.[0] ?? "";
    if (!isLast && this.#at + run.length === this.#text.length) return false;
    NUMBER.lastIndex = this.#at;
    const text = NUMBER.exec(this.#text)?.[0] ?? "";
    if (text.length !== run.length) throw this.#wrong(`no number: ${run.slice(0, 40)}`);
    const isInteger = !/[.eE]/.test(text) && text !== "-0";
    this.#scalar(isInteger ? BigInt(text) : new JsonDecimal(text));
    this.#at += text.length;
    return true;
  }

  #readLiteral(isLast: boolean): boolean {
    LITERAL_RUN.lastIndex = this.#at;
    const run = LITERAL_RUN.exec(this.#text)?.[0] ?? "";
    if (!isLast && this.#at + run.length === this.#text.length) return false;
    const value = LITERALS.get(run);
    if (value === undefined) throw this.#wrong(`no value: ${run.slice(0, 40)}`);
    this.#scalar(value);
    this.#at += run.length;
    return true;
  }

  #readPunctuation(character: string): void {
    if (character === "{" || character === "[") return this.#open(character === "{");
    if (character === "}" || character === "]") return this.#close(character === "}");
    const top = this.#stack.at(-1);
    if (character === ":" && this.#expected === "colon") {
      this.#expected = "value";
    } else if (character === "," && this.#expected === "comma or end") {
      this.#expected = top?.kind === "object" ? "name" : "value";
    } else {
      throw this.#wrong(`${JSON.stringify(character)} where ${this.#expected} is expected`);
    }
  }

  #open(isObject: boolean): void {
    this.#requireValue();
    if (this.#stack.length >= MAX_DEPTH) throw this.#wrong(`deeper than ${MAX_DEPTH} levels`);
    const top = this.#stack.at(-1);
    const isInEntered = top === undefined || membersOf(top) === undefined;
    if (top?.kind === "array") this.#path.push("");
    const isEntered = isInEntered && this.#options.isEntered(this.#path);
    if (isObject) {
      this.#stack.push({ kind: "object", members: isEntered ? undefined : new Map() });
    } else {
      this.#stack.push({ kind: "array", items: isEntered ? undefined : [] });
    }
    this.#expected = isObject ? "name or end" : "value or end";
  }

  #close(isObject: boolean): void {
    const top = this.#stack.at(-1);
    const isEnd =
      this.#expected === "comma or end" ||
      this.#expected === (isObject ? "name or end" : "value or end");
    if (top === undefined || (top.kind === "object") !== isObject || !isEnd) {
      throw this.#wrong(`${isObject ? "}" : "]"} where ${this.#expected} is expected`);
    }
    this.#stack.pop();
    const parent = this.#stack.at(-1);
    const value = membersOf(top);
    if (value !== undefined) this.#deliver(parent, value);
    this.#leave(parent);
  }

  #scalar(value: JsonValue): void {
    this.#requireValue();
    const parent = this.#stack.at(-1);
    if (parent?.kind === "array") this.#path.push("");
    this.#deliver(parent, value);
    this.#leave(parent);
  }

  #deliver(parent: Container | undefined, value: JsonValue): void {
    if (parent?.kind === "object" && parent.members !== undefined) {
      parent.members.set(this.#path.at(-1) ?? "", value);
    } else if (parent?.kind === "array" && parent.items !== undefined) {
      parent.items.push(value);
    } else {
      this.#options.onValue(this.#path, value);
    }
  }

  #leave(parent: Container | undefined): void {
    if (parent !== undefined) this.#path.pop();
    this.#expected = parent === undefined ? "nothing" : "comma or end";
  }

  #requireValue(): void {
    if (this.#expected !== "value" && this.#expected !== "value or end") {
      throw this.#wrong(`a value where ${this.#expected} is expected`);
    }
  }

  #wrong(what: string): FormatError {
    return new FormatError(`JSON is wrong at character ${this.#dropped + this.#at}: ${what}`);
  }
}

function membersOf(container: Container): Map<string, JsonValue> | JsonValue[] | undefined {
  return container.kind === "object" ? container.members : container.items;
}

function isEscaped(text: string, at: number): boolean {
  let start = at;
  while (text[start - 1] === "\\") start -= 1;
  return (at - start) % 2 === 1;
}

/** Reads JSON from UTF-8 bytes; yields what `isEntered` leaves whole, with a copy of its path. */
export async function* readJsonValues(
  bytes: AsyncIterable<Uint8Array>,
  isEntered: (path: JsonPath) => boolean,
): AsyncGenerator<{ readonly path: JsonPath; readonly value: JsonValue }> {
  const found: { path: JsonPath; value: JsonValue }[] = [];
  const reader = new JsonReader({
    isEntered,
    onValue: (path, value) => found.push({ path: [...path], value }),
  });
  const decoder = new TextDecoder("utf-8", { fatal: true });
  for await (const chunk of bytes) {
    // The values of a whole chunk would be some ten megabytes.
    for (let at = 0; at < chunk.length; at += PIECE_BYTES) {
      reader.write(decodeUtf8(decoder, chunk.subarray(at, at + PIECE_BYTES)));
      yield* found.splice(0);
    }
  }
  reader.write(decodeUtf8(decoder));
  reader.end();
  yield* found;
}

function decodeUtf8(decoder: TextDecoder, chunk?: Uint8Array): string {
  try {
    return chunk === undefined ? decoder.decode() : decoder.decode(chunk, { stream: true });
  } catch (error) {
    throw new FormatError("JSON text is not UTF-8", { cause: error });
  }
}
