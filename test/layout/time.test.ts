import assert from "node:assert/strict";
import { test } from "node:test";
import { fc } from "../support/property.ts";
import { formatTime, formatTimeUtc, parseTime, timeMsOf, timeNsOf } from "../../src/layout/time.ts";

const exact = [
  ["2026-08-21T18:01:09.5Z", 1787335269500000000n],
  ["2026-08-21T20:00:11.482915337+02:00", 1787335211482915337n],
  ["2026-08-19T08:00:00-03:30", 1787139000000000000n],
  ["0001-01-01T00:00:00Z", -62135596800000000000n],
  ["1969-12-31T23:59:59.999999999Z", -1n],
] as const;

for (const [text, timeNs] of exact) {
  test(`${text} is read exactly`, () => assert.equal(parseTime(text), timeNs));
}

for (const text of [
  "",
  "2026-08-21",
  "2026-08-21T18:01:09",
  "2026-08-21 18:01:09Z",
  "2026-08-21T18:01:09.Z",
  "2026-08-21T18:01:09.1234567890Z",
  "2026-02-30T18:01:09Z",
  "2026-13-01T18:01:09Z",
  "2026-08-21T24:01:09Z",
  "2026-08-21T18:01:60Z",
  "2026-08-21T18:01:09+0200",
]) {
  test(`refuses ${JSON.stringify(text)}`, () => {
    assert.throws(() => parseTime(text), { name: "FormatError" });
  });
}

test("the sentinel's times are rounded up to the microsecond", () => {
  assert.equal(formatTimeUtc(1787335269500000000n), "2026-08-21T18:01:09.5Z");
  assert.equal(formatTimeUtc(1787335269123456001n), "2026-08-21T18:01:09.123457Z");
  assert.equal(formatTimeUtc(1787335269999999001n), "2026-08-21T18:01:10Z");
  assert.equal(formatTimeUtc(1787335269123456000n), "2026-08-21T18:01:09.123456Z");
  assert.equal(formatTimeUtc(-1500n), "1969-12-31T23:59:59.999999Z");
});

test("a time in any zone is read back to the nanosecond", () => {
  fc.assert(
    fc.property(
      fc.bigInt({ min: -(10n ** 18n), max: 10n ** 19n }),
      fc.integer({ min: -14 * 60, max: 14 * 60 }),
      (timeNs, offsetMinutes) => {
        assert.equal(parseTime(formatTime(timeNs, offsetMinutes)), timeNs);
      },
    ),
  );
});

test("milliseconds go to nanoseconds and back", () => {
  assert.equal(timeNsOf(1787335269500.25), 1787335269500250000n);
  assert.equal(timeMsOf(1787335269500999999n), 1787335269500);
  assert.equal(timeMsOf(-1n), -1);
});
