import { FormatError } from "../errors.ts";

/** Nanoseconds since 1970 in UTC. A number can't hold them exactly. */
export type TimeNs = bigint;

const NS_PER_US = 1000n;
const NS_PER_MS = 1_000_000n;
const NS_PER_S = 1_000_000_000n;
const RFC_3339 =
  /^(\d{4})-(\d\d)-(\d\d)T(\d\d):(\d\d):(\d\d)(?:\.(\d{1,9}))?(?:Z|([+-])(\d\d):(\d\d))$/;

/** Milliseconds since 1970 as nanoseconds, exact to the microsecond. */
export function timeNsOf(timeMs: number): TimeNs {
  return BigInt(Math.round(timeMs * 1000)) * NS_PER_US;
}

/** Whole milliseconds since 1970, rounded down. */
export function timeMsOf(timeNs: TimeNs): number {
  return Number(floorDivide(timeNs, NS_PER_MS));
}

/**
 * As the sentinel has it: UTC, rounded up to the microsecond, without zeros at the end of the
 * fraction ("2026-08-21T18:01:09.5Z").
 */
export function formatTimeUtc(timeNs: TimeNs): string {
  const timeUs = -floorDivide(-timeNs, NS_PER_US);
  return formatTime(timeUs * NS_PER_US, 0);
}

/**
 * As files_metadata.json has it: local time with its offset, exact to the nanosecond
 * ("2026-08-21T20:00:11.482915337+02:00"; "Z" where the offset is 0).
 */
export function formatTime(timeNs: TimeNs, offsetMinutes: number): string {
  // With numbers as soon as they suffice: it is done for each file of a backup.
  const fractionNs = Number(timeNs % NS_PER_S);
  const borrowed = fractionNs < 0 ? 1 : 0;
  const seconds = Number(timeNs / NS_PER_S) - borrowed + offsetMinutes * 60;
  const text = new Date(seconds * 1000).toISOString().slice(0, 19);
  const digits = String(fractionNs + borrowed * Number(NS_PER_S)).padStart(9, "0");
  const fraction = fractionNs === 0 ? "" : `.${digits.replace(/0+$/, "")}`;
  return `${text}${fraction}${formatOffset(offsetMinutes)}`;
}

function formatOffset(offsetMinutes: number): string {
  if (offsetMinutes === 0) return "Z";
  const size = Math.abs(offsetMinutes);
  const hours = String(Math.floor(size / 60)).padStart(2, "0");
  const minutes = String(size % 60).padStart(2, "0");
  return `${offsetMinutes < 0 ? "-" : "+"}${hours}:${minutes}`;
}

/** Reads RFC 3339 with any offset and up to nine digits of fraction. Throws FormatError. */
export function parseTime(text: string): TimeNs {
  const match = RFC_3339.exec(text);
  if (match === null) throw new FormatError(`not a time in RFC 3339: ${JSON.stringify(text)}`);
  const [year, month, day, hour, minute, second] = match.slice(1, 7).map(Number);
  const utc = new Date(0);
  utc.setUTCFullYear(year ?? 0, (month ?? 0) - 1, day ?? 0);
  utc.setUTCHours(hour ?? 0, minute ?? 0, second ?? 0);
  if (utc.toISOString().slice(0, 19) !== text.slice(0, 19)) {
    throw new FormatError(`no such time: ${JSON.stringify(text)}`);
  }
  const fractionNs = BigInt((match[7] ?? "").padEnd(9, "0"));
  const sign = match[8] === "-" ? -1n : 1n;
  const offsetMinutes = sign * BigInt(Number(match[9] ?? 0) * 60 + Number(match[10] ?? 0));
  return BigInt(utc.getTime()) * NS_PER_MS + fractionNs - offsetMinutes * 60n * NS_PER_S;
}

function floorDivide(value: bigint, by: bigint): bigint {
  const quotient = value / by;
  return value % by < 0n ? quotient - 1n : quotient;
}
