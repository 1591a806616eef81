import { FormatError } from "../errors.ts";
import type { Hasher } from "../io/hash.ts";
import { isJsonObject, type JsonObject } from "../layout/json-value.ts";
import { formatJson, parseJson } from "../layout/json.ts";

/**
 * One of our own objects that proves itself: a line of JSON, and a line with the XXH64 of the bytes
 * of the first, its line end not counted.
 */
export function formatChecked(value: JsonObject, hasher: Hasher): Buffer {
  const text = Buffer.from(formatJson(value));
  return Buffer.concat([text, Buffer.from(`\n${hasher.digestOf(text)}\n`)]);
}

/** Throws FormatError, with `what` in it, for a text that is not exactly as it was written. */
export function parseChecked(what: string, bytes: Buffer, hasher: Hasher): JsonObject {
  const end = bytes.indexOf(0x0a);
  const text = bytes.subarray(0, Math.max(0, end));
  const promised = bytes.subarray(end + 1).toString("latin1");
  if (end < 0 || promised !== `${hasher.digestOf(text)}\n`) {
    throw new FormatError(`${what} does not have the checksum that it says`);
  }
  const value = parseJson(text.toString("utf8"));
  if (!isJsonObject(value)) throw new FormatError(`${what} is not a JSON object`);
  return value;
}
