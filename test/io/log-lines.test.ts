import assert from "node:assert/strict";
import { test } from "node:test";
import type { Clock } from "../../src/io/clock.ts";
import { type LogOptions, createLog, formatTextLine } from "../../src/io/log-lines.ts";
import { createMask } from "../../src/io/mask.ts";

/** 2026-11-21 20:02:35.123 in whatever zone the test runs. */
const NOW_MS = new Date(2026, 10, 21, 20, 2, 35, 123).getTime();

const clock: Clock = {
  now: () => NOW_MS,
  monotonicMs: () => 0,
  sleep: () => Promise.resolve(),
};

function record(options: Partial<LogOptions> = {}) {
  const lines: string[] = [];
  const log = createLog({
    format: "text",
    level: "info",
    clock,
    isUtc: false,
    mask: (text) => text,
    write: (text) => lines.push(text),
    ...options,
  });
  return { log, lines };
}

test("writes WAL-G's lines, with fields behind the text", () => {
  const { log, lines } = record();
  log.info("archived", { wal: "000000010000000000000003", sizeBytes: 16_777_216, isNew: true });
  log.warning("slow", { after: undefined, count: 12_345_678_901_234_567_890n });
  log.error("failed");
  log.debug("not shown");
  assert.deepEqual(lines, [
    "INFO: 2026/11/21 20:02:35.123000 archived wal=000000010000000000000003 " +
      "sizeBytes=16777216 isNew=true\n",
    "WARNING: 2026/11/21 20:02:35.123000 slow count=12345678901234567890\n",
    "ERROR: 2026/11/21 20:02:35.123000 failed\n",
  ]);
});

test("what would break a line is quoted", () => {
  const fields = { path: "a b", quote: 'x"y', equals: "a=b", empty: "", control: "a\nb" };
  assert.equal(
    formatTextLine("info", "2026/11/21 20:02:35.123000", "one\ntwo\u001b[31m", fields),
    "INFO: 2026/11/21 20:02:35.123000 one\\ntwo\\u001b[31m " +
      'path="a b" quote="x\\"y" equals="a=b" empty="" control="a\\nb"',
  );
});

test("shows as much as the level says", () => {
  const counts = { debug: 4, info: 3, warning: 2, error: 1 } as const;
  for (const level of ["debug", "info", "warning", "error"] as const) {
    const { log, lines } = record({ level });
    log.debug("x");
    log.info("x");
    log.warning("x");
    log.error("x");
    assert.equal(lines.length, counts[level], level);
  }
});

test("a failure is a message and a hint on a line of its own", () => {
  const { log, lines } = record({ level: "error" });
  log.failure({ message: "no such bucket", code: "storage", hint: "Make it." });
  log.failure({ message: "a bug", code: "bug", stack: "Error: x\n    at y" });
  assert.equal(
    lines.join(""),
    "ERROR: 2026/11/21 20:02:35.123000 no such bucket\nHINT: Make it.\n" +
      "ERROR: 2026/11/21 20:02:35.123000 a bug\nError: x\n    at y\n",
  );
});

test("in JSON, each event is one object in one line", () => {
  const { log, lines } = record({ format: "json", level: "debug" });
  log.info("two\nlines", { time: "field", lsn: 2n ** 60n, small: 5n, gone: undefined });
  log.failure({ message: "m", code: "storage", hint: "h", stack: "a\nb" });
  const time = new Date(NOW_MS).toISOString();
  assert.deepEqual(
    lines.map((line) => JSON.parse(line)),
    [
      {
        time,
        level: "info",
        text: "two\nlines",
        time_: "field",
        lsn: "1152921504606846976",
        small: 5,
      },
      { time, level: "error", text: "m", code: "storage", hint: "h", stack: "a\nb" },
    ],
  );
  for (const line of lines) assert.match(line, /^[^\n]+\n$/);
});

test("no secret appears in any part of any line", () => {
  const secret = 'ge"heim/+=\\';
  for (const format of ["text", "json"] as const) {
    const { log, lines } = record({
      format,
      level: "debug",
      mask: createMask([secret, "hunter2"]),
    });
    log.debug(`with ${secret}`, { key: secret, url: encodeURIComponent(secret) });
    log.failure({ message: secret, code: "x", hint: `use ${secret}`, stack: `at ${secret}` });
    log.info("plain", { hunter2: "hunter2", nested: JSON.stringify({ secret }) });
    const all = lines.join("");
    for (const form of ['ge"heim', 'ge\\"heim', "heim/", "heim%2F", "hunter2"]) {
      assert.ok(!all.includes(form), `${format}: ${form} in ${all}`);
    }
    assert.match(all, /\*\*\*/);
  }
});

test("where local time is UTC, the time is the same", () => {
  const utc: Clock = { ...clock, now: () => Date.UTC(2026, 0, 2, 3, 4, 5, 6) };
  const { log, lines } = record({ clock: utc, isUtc: true });
  log.info("x");
  assert.deepEqual(lines, ["INFO: 2026/01/02 03:04:05.006000 x\n"]);
});
