import assert from "node:assert/strict";
import { test } from "node:test";
import { isTemporary, Outage } from "../../src/archive/outage.ts";
import {
  ConflictError,
  DatabaseError,
  DeadlineError,
  RefusedError,
  StorageAccessError,
  StorageError,
  WrongClusterError,
} from "../../src/errors.ts";
import type { Log } from "../../src/io/log.ts";

const { signal } = new AbortController();

test("an outage is said once for each reason, and its pauses grow up to ten seconds", async () => {
  const lines: string[] = [];
  const note =
    (level: string): Log["info"] =>
    (text, fields) =>
      void lines.push(`${level} ${text} ${JSON.stringify(fields)}`);
  const log = {
    debug: note("debug"),
    info: note("info"),
    warning: note("warning"),
    error: note("error"),
  };
  const time = { nowMs: 5000 };
  const pauses: number[] = [];
  const clock = {
    now: () => time.nowMs,
    monotonicMs: () => time.nowMs,
    sleep: async (ms: number) => {
      pauses.push(ms);
      time.nowMs += ms;
    },
  };
  const outage = new Outage("storing", { log, clock });
  outage.end();
  assert.equal(outage.durationMs, 0);
  for (let attempt = 0; attempt < 8; attempt += 1) {
    await outage.pauseAfter(new StorageError("away", { isRetryable: true, hint: "Wait." }), {
      signal,
    });
  }
  assert.deepEqual(pauses, [250, 500, 1000, 2000, 4000, 8000, 10_000, 10_000]);
  assert.equal(outage.durationMs, 35_750);
  outage.end();
  outage.end();
  assert.equal(outage.durationMs, 0);
  await outage.pauseAfter(new Error("again"), { signal });
  assert.equal(pauses.at(-1), 250);
  for (let n = 0; n < 10; n += 1) {
    await outage.pauseAfter(new Error(`reason ${n}`), { signal });
    await outage.pauseAfter(new Error("again"), { signal });
  }
  assert.equal(lines.length, 7);
  assert.deepEqual(lines.slice(0, 3), [
    'warning storing failed; it is tried again until it works {"reason":"away","hint":"Wait."}',
    'info storing works again {"seconds":36,"attempts":8}',
    'warning storing failed; it is tried again until it works {"reason":"again"}',
  ]);
});

test("only what may mend by itself is temporary", () => {
  for (const error of [
    new StorageError("x", { isRetryable: false }),
    new StorageAccessError("x"),
    new DeadlineError("x"),
    new DatabaseError("x"),
  ]) {
    assert.equal(isTemporary(error), true);
  }
  for (const error of [
    new ConflictError("x"),
    new WrongClusterError("x"),
    new RefusedError("x"),
    new TypeError("x"),
  ]) {
    assert.equal(isTemporary(error), false);
  }
});
