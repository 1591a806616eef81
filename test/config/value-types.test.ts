import assert from "node:assert/strict";
import { test } from "node:test";
import type { SettingType } from "../../src/config/setting.ts";
import {
  LONGEST_DURATION_MS,
  boolean,
  bytes,
  choice,
  duration,
  integer,
  json,
  share,
} from "../../src/config/value-types.ts";

interface Case {
  readonly type: SettingType<unknown>;
  readonly good: readonly (readonly [string, unknown])[];
  readonly bad: readonly (readonly [string, RegExp])[];
}

const cases: Readonly<Record<string, Case>> = {
  boolean: {
    type: boolean,
    good: [
      ...["1", "t", "T", "true", "TRUE", "True"].map((word) => [word, true] as const),
      ...["0", "f", "F", "false", "FALSE", "False"].map((word) => [word, false] as const),
    ],
    bad: ["yes", "no", "on", "tRUE", " true", "2", "enabled"].map(
      (word) => [word, /^is not true or false$/] as const,
    ),
  },
  integer: {
    type: integer(-1, 100),
    good: [
      ["-1", -1],
      ["0", 0],
      ["+7", 7],
      ["007", 7],
      ["100", 100],
    ],
    bad: [
      ["101", /^is not a whole number from -1 to 100$/],
      ["-2", /^is not a whole number from -1 to 100$/],
      ["1.5", /^is not a whole number$/],
      ["1e2", /^is not a whole number$/],
      ["0x10", /^is not a whole number$/],
      ["1_000", /^is not a whole number$/],
      ["9007199254740993", /^is not a whole number$/],
      ["ten", /^is not a whole number$/],
    ],
  },
  "integer without upper limit": {
    type: integer(1),
    good: [["9007199254740991", Number.MAX_SAFE_INTEGER]],
    bad: [["0", /^is not a whole number of at least 1$/]],
  },
  bytes: {
    type: bytes(10),
    good: [
      ["10", 10],
      ["1073741823", 1_073_741_823],
      ["1kB", 1000],
      ["1KiB", 1024],
      ["64MiB", 64 * 1024 * 1024],
      ["64 MiB", 64 * 1024 * 1024],
      ["1.5 GiB", 1.5 * 1024 ** 3],
      ["1gb", 1e9],
      ["2TiB", 2 * 1024 ** 4],
      ["12b", 12],
    ],
    bad: [
      ["9", /^is less than 10 bytes$/],
      ["-10", /^is not a number of bytes$/],
      ["10 M", /^is not a number of bytes$/],
      ["10 parsecs", /^is not a number of bytes$/],
      ["10.5", /^is not a whole number of bytes$/],
      ["9999999999TiB", /^is not a whole number of bytes$/],
      ["1e9", /^is not a number of bytes$/],
    ],
  },
  duration: {
    type: duration({ minMs: 5 }),
    good: [
      ["5ms", 5],
      ["30s", 30_000],
      ["1m", 60_000],
      ["1h30m", 5_400_000],
      ["1.5s", 1500],
      [".5s", 500],
      ["1m0.5s", 60_500],
      ["5000000ns", 5],
      ["6000us", 6],
      ["6000µs", 6],
    ],
    bad: [
      ["4ms", /^is less than 5 ms$/],
      ["0", /^is less than 5 ms$/],
      ["30", /^has no unit: write 30s or 30m$/],
      ["-1s", /^is not a duration/],
      ["1d", /^is not a duration/],
      ["1 m", /^is not a duration/],
      ["s", /^is not a duration/],
      ["1s2", /^is not a duration/],
      ["600h", /^is more than 24 days$/],
    ],
  },
  "duration with a unit of plain numbers": {
    type: duration({ minMs: 0, plainUnit: "s" }),
    good: [
      ["3600", 3_600_000],
      ["0", 0],
      ["2m", 120_000],
    ],
    bad: [["2147484", /^is more than 24 days$/]],
  },
  choice: {
    type: choice(["zstd", "lz4"]),
    good: [["lz4", "lz4"]],
    bad: [
      ["LZ4", /^is not one of zstd, lz4$/],
      ["", /^is not one of zstd, lz4$/],
    ],
  },
  share: {
    type: share,
    good: [
      [".99", 0.99],
      ["1", 1],
      ["0.", 0],
    ],
    bad: [
      ["1.1", /^is not a number from 0 to 1$/],
      ["-0.1", /^is not a number from 0 to 1$/],
      [".", /^is not a number from 0 to 1$/],
    ],
  },
  json: {
    type: json,
    good: [['{"a": 12345678901234567890}', '{"a": 12345678901234567890}']],
    bad: [["{a: 1}", /^is not JSON$/]],
  },
};

for (const [name, { type, good, bad }] of Object.entries(cases)) {
  for (const [text, value] of good) {
    test(`${name} takes ${text}`, () => assert.deepEqual(type.parse(text), value));
  }
  for (const [text, message] of bad) {
    test(`${name} refuses ${text}`, () => {
      assert.throws(() => type.parse(text), { name: "FormatError", message });
    });
  }
}

test("the longest duration is one that timers take", () => {
  assert.equal(duration({ minMs: 0 }).parse(`${LONGEST_DURATION_MS}ms`), LONGEST_DURATION_MS);
});
