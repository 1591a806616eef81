import { FormatError } from "../errors.ts";
import { JsonReader } from "./json-reader.ts";
import { isJsonArray, JsonDecimal, type JsonObject, type JsonValue } from "./json-value.ts";

/** Reads one JSON text (RFC 8259). Throws FormatError, or TruncatedError, with the position. */
export function parseJson(text: string): JsonValue {
  let root: JsonValue | undefined;
  const reader = new JsonReader({
    isEntered: () => false,
    onValue: (_path, value) => {
      root = value;
    },
  });
  reader.write(text);
  reader.end();
  if (root === undefined) throw new FormatError("JSON text holds no value");
  return root;
}

export interface FormatJsonOptions {
  /** "go": `<`, `>` and `&` are escaped too, as Go's first JSON package does. */
  readonly escape?: "go" | "plain";
}

/** Compact JSON text without line end. */
export function formatJson(value: JsonValue, options: FormatJsonOptions = {}): string {
  const pieces: string[] = [];
  appendJson(pieces, value, options.escape === "go");
  return pieces.join("");
}

function appendJson(pieces: string[], value: JsonValue, isGo: boolean): void {
  if (value === null || typeof value === "boolean" || typeof value === "bigint") {
    pieces.push(String(value));
  } else if (typeof value === "string") {
    pieces.push(isGo ? formatGoString(value) : JSON.stringify(value));
  } else if (value instanceof JsonDecimal) {
    pieces.push(value.text);
  } else if (isJsonArray(value)) {
    pieces.push("[");
    for (const [index, item] of value.entries()) {
      if (index > 0) pieces.push(",");
      appendJson(pieces, item, isGo);
    }
    pieces.push("]");
  } else {
    appendObject(pieces, value, isGo);
  }
}

function appendObject(pieces: string[], object: JsonObject, isGo: boolean): void {
  pieces.push("{");
  let isFirst = true;
  for (const [name, member] of object) {
    if (!isFirst) pieces.push(",");
    isFirst = false;
    pieces.push(isGo ? formatGoString(name) : JSON.stringify(name), ":");
    appendJson(pieces, member, isGo);
  }
  pieces.push("}");
}

/** @source encodeState.string with escapeHTML, Go's encoding/json */
function formatGoString(text: string): string {
  return JSON.stringify(text).replace(
    /[<>&\u2028\u2029]/g,
    (character) => `\\u${character.charCodeAt(0).toString(16).padStart(4, "0")}`,
  );
}
