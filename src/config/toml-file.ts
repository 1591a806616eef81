import { TomlError, parse } from "smol-toml";
import { FormatError } from "../errors.ts";
import { nestedText } from "./nested-text.ts";

/** The members of the top table as text, nested ones as JSON. Throws FormatError with the line. */
export function parseTomlTable(source: string): Map<string, string> {
  const members = new Map<string, string>();
  for (const [key, value] of Object.entries(parseToml(source))) {
    const text = memberText(value);
    if (text !== undefined) members.set(key, text);
  }
  return members;
}

function parseToml(source: string) {
  try {
    return parse(source, { integersAsBigInt: true });
  } catch (error) {
    if (!(error instanceof TomlError)) throw error;
    const reason = error.message.split("\n")[0] ?? "";
    throw new FormatError(`line ${error.line}, column ${error.column}: ${reason}`, {
      cause: error,
    });
  }
}

function memberText(value: unknown): string | undefined {
  return value instanceof Date ? value.toISOString() : nestedText(value);
}
