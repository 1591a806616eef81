import { FormatError } from "../errors.ts";

const BYTES_PER_UNIT: ReadonlyMap<string, number> = new Map([
  ["B", 1],
  ["kB", 1024],
  ["MB", 1024 ** 2],
  ["GB", 1024 ** 3],
  ["TB", 1024 ** 4],
]);

const MS_PER_UNIT: ReadonlyMap<string, number> = new Map([
  ["us", 0.001],
  ["ms", 1],
  ["s", 1000],
  ["min", 60_000],
  ["h", 3_600_000],
  ["d", 86_400_000],
]);

/** Reads a size as SHOW writes it: "16MB". @source convert_int_from_base_unit, guc.c */
export function parseSizeParameter(text: string): number {
  return parse(text, BYTES_PER_UNIT, "size");
}

/** Reads a time as SHOW writes it, in milliseconds: "1min", and "0" for never. */
export function parseTimeParameter(text: string): number {
  return text === "0" ? 0 : parse(text, MS_PER_UNIT, "time");
}

function parse(text: string, units: ReadonlyMap<string, number>, what: string): number {
  const [, count, unit = ""] = /^(\d+) ?([A-Za-z]+)$/.exec(text) ?? [];
  const factor = units.get(unit);
  if (count === undefined || factor === undefined) {
    throw new FormatError(`the server shows no ${what} but ${JSON.stringify(text)}`);
  }
  return Number(count) * factor;
}
