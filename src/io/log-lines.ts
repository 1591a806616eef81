import type { Clock } from "./clock.ts";
import type { Log, LogFields, LogLevel } from "./log.ts";

/** "text": WAL-G's line form; "json": one object a line. */
export type LogFormat = "text" | "json";

export interface LogOptions {
  readonly format: LogFormat;
  /** Lines below this severity are left out. */
  readonly level: LogLevel;
  readonly clock: Clock;
  /** Whether local time is UTC: then its parts need no zone, whose rules take 6 ms to load. */
  readonly isUtc: boolean;
  /** Takes the secrets out of a line. */
  readonly mask: (text: string) => string;
  /** Gets whole lines with their line end. */
  readonly write: (lines: string) => void;
}

/** How a command failed, for its last lines in the log. */
export interface Failure {
  readonly message: string;
  readonly code: string;
  readonly hint?: string;
  /** Where it was thrown, with its causes; shown for bugs, and for debugging. */
  readonly stack?: string;
}

/** A log that can also say why a command failed. */
export interface CommandLog extends Log {
  failure(failure: Failure): void;
}

const SEVERITY: Readonly<Record<LogLevel, number>> = { debug: 0, info: 1, warning: 2, error: 3 };

/** Field names that a JSON line has for itself. */
const RESERVED = new Set(["time", "level", "text", "hint", "code", "stack"]);

/** One line an event: what would break the line is escaped, what is secret is masked. */
export function createLog(options: LogOptions): CommandLog {
  const { format, level, clock, isUtc, mask, write } = options;
  const formatLine = (lineLevel: LogLevel, text: string, fields: LogFields) => {
    if (format === "json") return formatJsonLine(lineLevel, clock.now(), text, fields);
    return formatTextLine(lineLevel, formatTime(clock.now(), isUtc), text, fields);
  };
  const line = (lineLevel: LogLevel, text: string, fields: LogFields = {}) => {
    if (SEVERITY[lineLevel] < SEVERITY[level]) return;
    write(`${mask(formatLine(lineLevel, text, fields))}\n`);
  };
  return {
    debug: (text, fields) => line("debug", text, fields),
    info: (text, fields) => line("info", text, fields),
    warning: (text, fields) => line("warning", text, fields),
    error: (text, fields) => line("error", text, fields),
    failure({ message, code, hint, stack }) {
      if (format === "json") {
        const entry = { ...jsonHead("error", clock.now(), message), code, hint, stack };
        write(`${mask(JSON.stringify(entry))}\n`);
        return;
      }
      line("error", message);
      if (stack !== undefined) write(`${mask(stack)}\n`);
      if (hint !== undefined) write(`HINT: ${mask(hint)}\n`);
    },
  };
}

/** "INFO: 2026/11/21 20:02:35.123456 text key=value", as WAL-G writes it. */
export function formatTextLine(
  level: LogLevel,
  time: string,
  text: string,
  fields: LogFields,
): string {
  const parts = Object.entries(fields).flatMap(([name, value]) =>
    value === undefined ? [] : [` ${name}=${formatValue(value)}`],
  );
  return `${level.toUpperCase()}: ${time} ${oneLine(text)}${parts.join("")}`;
}

function formatJsonLine(level: LogLevel, nowMs: number, text: string, fields: LogFields): string {
  const named = Object.entries(fields).map(([name, value]) => [
    RESERVED.has(name) ? `${name}_` : name,
    typeof value === "bigint" ? jsonInteger(value) : value,
  ]);
  return JSON.stringify({ ...jsonHead(level, nowMs, text), ...Object.fromEntries(named) });
}

function jsonHead(level: LogLevel, nowMs: number, text: string) {
  return { time: new Date(nowMs).toISOString(), level, text };
}

/** Readers of JSON round numbers beyond 2^53, so those are strings. */
function jsonInteger(value: bigint): number | string {
  return Number.isSafeInteger(Number(value)) ? Number(value) : value.toString();
}

function formatValue(value: string | number | bigint | boolean): string {
  const text = String(value);
  return /^[^\s"=\p{Cc}]+$/u.test(text) ? text : JSON.stringify(text);
}

function oneLine(text: string): string {
  return text.replace(/\p{Cc}/gu, (control) => JSON.stringify(control).slice(1, -1));
}

/** Local time with microseconds, of which the clock has none. */
function formatTime(nowMs: number, isUtc: boolean): string {
  const time = new Date(nowMs);
  if (isUtc) return `${time.toISOString().replaceAll("-", "/").replace("T", " ").slice(0, -1)}000`;
  const date = `${time.getFullYear()}/${two(time.getMonth() + 1)}/${two(time.getDate())}`;
  const clock = `${two(time.getHours())}:${two(time.getMinutes())}:${two(time.getSeconds())}`;
  return `${date} ${clock}.${String(time.getMilliseconds()).padStart(3, "0")}000`;
}

function two(number: number): string {
  return String(number).padStart(2, "0");
}
