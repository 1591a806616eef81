import { type Document, type Pair, isMap, isScalar, parseDocument } from "yaml";
import { FormatError } from "../errors.ts";
import { nestedText } from "./nested-text.ts";

/**
 * The members of the top map as text, nested ones as JSON; null members are left out. Of equal keys
 * the last one counts. Throws FormatError with the line.
 */
export function parseYamlMap(source: string): Map<string, string> {
  const document = parseDocument(source, { uniqueKeys: false, intAsBigInt: true });
  const [problem] = document.errors;
  if (problem !== undefined) {
    throw new FormatError(problem.message.split("\n")[0] ?? "", { cause: problem });
  }
  const { contents } = document;
  if (contents === null) return new Map();
  if (!isMap(contents)) throw new FormatError("line 1: expected keys and values");

  const members = new Map<string, string>();
  for (const pair of contents.items) {
    const key = String(isScalar(pair.key) ? pair.key.value : pair.key);
    const value = memberText(pair, document);
    if (value === undefined) members.delete(key);
    else members.set(key, value);
  }
  return members;
}

function memberText({ value }: Pair, document: Document): string | undefined {
  if (!isScalar(value)) return nestedText(toPlain(value, document));
  if (value.value === null) return undefined;
  if (typeof value.value === "string") return value.value;
  // As it was written: 1e3 and 007 would come out as other texts.
  return value.source ?? nestedText(value.value);
}

function toPlain(value: unknown, document: Document): unknown {
  if (typeof value !== "object" || value === null || !("toJS" in value)) return value;
  return typeof value.toJS === "function" ? value.toJS(document) : value;
}
