/**
 * The text of a value from a parsed file: of an object or a list its JSON, of nothing undefined.
 * Whole numbers beyond 2^53 inside of objects become strings rather than other numbers.
 */
export function nestedText(value: unknown): string | undefined {
  if (value === null || value === undefined) return undefined;
  if (typeof value === "string") return value;
  return typeof value === "bigint" ? value.toString() : JSON.stringify(value, withoutBigints);
}

function withoutBigints(_key: string, value: unknown): unknown {
  if (typeof value !== "bigint") return value;
  return Number.isSafeInteger(Number(value)) ? Number(value) : value.toString();
}
