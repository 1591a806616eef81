import { FormatError } from "../errors.ts";
import type { SettingType } from "./setting.ts";

/** Any text. */
export const text: SettingType<string> = {
  name: "text",
  text: "a text",
  isSecret: false,
  isSwitch: false,
  parse: (value) => value,
};

/** A text that is never shown. */
export const secret: SettingType<string> = { ...text, name: "secret", isSecret: true };

/** The address of a proxy. Shown unless it holds a login. */
export const proxyUrl: SettingType<string> = {
  ...text,
  name: "URL",
  looksSecret: (value) => value.includes("@"),
};

/** A path of a local file or directory. Keys are pasted here by mistake: those are not shown. */
export const path: SettingType<string> = {
  ...text,
  name: "path",
  text: "a path",
  looksSecret: isContent,
  parse(value) {
    if (isContent(value)) throw new FormatError("holds what belongs into a file, not its path");
    return value;
  },
};

/** PEM, JSON, several lines, or 32 bytes in hex or base64. */
function isContent(value: string): boolean {
  return (
    /^\s*\{|-----BEGIN |[\r\n]/.test(value) || /^([0-9A-Fa-f]{64}|[A-Za-z0-9+/]{43}=)$/.test(value)
  );
}

/**
 * Exactly what Go's ParseBool takes: other words are refused, so that "yes" does not mean no.
 *
 * @source strconv.ParseBool
 */
export const boolean: SettingType<boolean> = {
  name: "boolean",
  text: "true or false",
  isSecret: false,
  isSwitch: true,
  parse(value) {
    if (/^(1|t|T|true|TRUE|True)$/.test(value)) return true;
    if (/^(0|f|F|false|FALSE|False)$/.test(value)) return false;
    throw new FormatError("is not true or false");
  },
};

/** A whole number in `[min, max]`. */
export function integer(min: number, max = Number.MAX_SAFE_INTEGER): SettingType<number> {
  const range = max === Number.MAX_SAFE_INTEGER ? `of at least ${min}` : `from ${min} to ${max}`;
  return {
    name: "integer",
    text: `a whole number ${range}`,
    isSecret: false,
    isSwitch: false,
    parse(value) {
      const number = /^[+-]?\d+$/.test(value) ? Number(value) : Number.NaN;
      if (!Number.isSafeInteger(number)) throw new FormatError("is not a whole number");
      if (number < min || number > max) throw new FormatError(`is not ${this.text}`);
      return number;
    },
  };
}

/** A decimal number from 0 to 1. */
export const share: SettingType<number> = {
  name: "number",
  text: "a number from 0 to 1",
  isSecret: false,
  isSwitch: false,
  parse(value) {
    const number = /^(\d+(\.\d*)?|\.\d+)$/.test(value) ? Number(value) : Number.NaN;
    if (!(number >= 0 && number <= 1)) throw new FormatError("is not a number from 0 to 1");
    return number;
  },
};

const BYTES_PER_UNIT: ReadonlyMap<string, number> = new Map([
  ["", 1],
  ["b", 1],
  ["kb", 1e3],
  ["mb", 1e6],
  ["gb", 1e9],
  ["tb", 1e12],
  ["kib", 2 ** 10],
  ["mib", 2 ** 20],
  ["gib", 2 ** 30],
  ["tib", 2 ** 40],
]);

/** A number of bytes of at least `min`, plain or with a unit; the value is in bytes. */
export function bytes(min: number): SettingType<number> {
  return {
    name: "bytes",
    text: `a number of bytes of at least ${min}, or with a unit: 512KiB, 64MiB, 1GB`,
    isSecret: false,
    isSwitch: false,
    parse(value) {
      const match = /^(\d+(?:\.\d+)?) ?([A-Za-z]*)$/.exec(value);
      const unit = BYTES_PER_UNIT.get((match?.[2] ?? "").toLowerCase());
      if (match?.[1] === undefined || unit === undefined) {
        throw new FormatError("is not a number of bytes");
      }
      const count = Number(match[1]) * unit;
      if (!Number.isSafeInteger(count)) throw new FormatError("is not a whole number of bytes");
      if (count < min) throw new FormatError(`is less than ${min} bytes`);
      return count;
    },
  };
}

const MS_PER_UNIT: ReadonlyMap<string, number> = new Map([
  ["ns", 1e-6],
  ["us", 1e-3],
  ["µs", 1e-3],
  ["μs", 1e-3],
  ["ms", 1],
  ["s", 1000],
  ["m", 60_000],
  ["h", 3_600_000],
]);

/** Timers of the runtime take no more than this, about 24.8 days. */
export const LONGEST_DURATION_MS = 2 ** 31 - 1;

export interface DurationOptions {
  readonly minMs: number;
  /** Unit of a number without one; without it only "0" needs no unit. */
  readonly plainUnit?: "ms" | "s" | "m";
}

/**
 * Go's durations; the value is in milliseconds, at most LONGEST_DURATION_MS.
 *
 * @source time.ParseDuration
 */
export function duration({ minMs, plainUnit }: DurationOptions): SettingType<number> {
  return {
    name: "duration",
    text: "a duration such as 500ms, 30s, 1m or 1h30m",
    isSecret: false,
    isSwitch: false,
    parse(value) {
      const ms = durationMs(value, plainUnit);
      if (ms < minMs) throw new FormatError(`is less than ${minMs} ms`);
      if (ms > LONGEST_DURATION_MS) throw new FormatError("is more than 24 days");
      return ms;
    },
  };
}

function durationMs(value: string, plainUnit: DurationOptions["plainUnit"]): number {
  if (/^\d+$/.test(value)) {
    if (Number(value) === 0) return 0;
    const unit = MS_PER_UNIT.get(plainUnit ?? "");
    if (unit === undefined) {
      throw new FormatError(`has no unit: write ${value}s or ${value}m`);
    }
    return Number(value) * unit;
  }
  if (!/^((\d+\.?\d*|\.\d+)(ns|us|µs|μs|ms|s|m|h))+$/.test(value)) {
    throw new FormatError("is not a duration such as 500ms, 30s, 1m or 1h30m");
  }
  const parts = value.matchAll(/(\d+\.?\d*|\.\d+)(ns|us|µs|μs|ms|s|m|h)/g);
  return [...parts].reduce(
    (sum, [, count, unit]) => sum + Number(count) * (MS_PER_UNIT.get(unit ?? "") ?? Number.NaN),
    0,
  );
}

/** One of `values`, which are compared exactly. */
export function choice<const T extends string>(values: readonly T[]): SettingType<T> {
  return {
    name: "choice",
    text: `one of ${values.join(", ")}`,
    isSecret: false,
    isSwitch: false,
    parse(value) {
      const found = values.find((one) => one === value);
      if (found === undefined) throw new FormatError(`is not ${this.text}`);
      return found;
    },
  };
}

/** JSON of any shape; the value is the text itself, so that its numbers stay exact. */
export const json: SettingType<string> = {
  ...text,
  name: "JSON",
  text: "a JSON value",
  parse(value) {
    try {
      JSON.parse(value);
    } catch (cause) {
      throw new FormatError("is not JSON", { cause });
    }
    return value;
  },
};

/** JSON that may hold credentials. */
export const secretJson: SettingType<string> = { ...json, isSecret: true };
