import assert from "node:assert/strict";
import { test } from "node:test";
import { Watchdog } from "../../src/io/watchdog.ts";
import { FakeClock } from "../support/fake-clock.ts";

function watch(timeoutMs: number, signal = new AbortController().signal) {
  const clock = new FakeClock();
  const onTimeout = () => new Error(`silent for ${timeoutMs} ms`);
  return { clock, watchdog: new Watchdog({ signal, timeoutMs, clock, onTimeout }) };
}

test("silence aborts, with the reason that was asked for", async () => {
  const { clock, watchdog } = watch(1000);
  await clock.advance(999);
  assert.equal(watchdog.signal.aborted, false);
  await clock.advance(1);
  assert.equal(watchdog.signal.aborted, true);
  assert.equal(watchdog.signal.reason.message, "silent for 1000 ms");
});

test("progress gives the full time again", async () => {
  const { clock, watchdog } = watch(1000);
  for (let round = 0; round < 10; round++) {
    await clock.advance(900);
    watchdog.progress();
  }
  assert.equal(watchdog.signal.aborted, false);
  await clock.advance(1000);
  assert.equal(watchdog.signal.aborted, true);
});

test("time does not count while it is suspended", async () => {
  const { clock, watchdog } = watch(1000);
  await clock.advance(900);
  watchdog.suspend();
  await clock.advance(50_000);
  watchdog.resume();
  await clock.advance(999);
  assert.equal(watchdog.signal.aborted, false);
  await clock.advance(1001);
  assert.equal(watchdog.signal.aborted, true);
});

test("who wants to know is told once of each silence, before its end", async () => {
  const clock = new FakeClock();
  const told: number[] = [];
  const startMs = clock.monotonicMs();
  const watchdog = new Watchdog({
    signal: new AbortController().signal,
    timeoutMs: 1000,
    clock,
    onTimeout: () => new Error("silent"),
    notice: { afterMs: 300, tell: () => told.push(clock.monotonicMs() - startMs) },
  });
  await clock.advance(200);
  watchdog.progress();
  await clock.advance(299);
  assert.deepEqual(told, []);
  await clock.advance(501);
  assert.deepEqual([told, watchdog.signal.aborted], [[500], false]);
  watchdog.progress();
  watchdog.suspend();
  await clock.advance(5000);
  watchdog.resume();
  await clock.advance(999);
  assert.equal(told.length, 2);
  await clock.advance(1);
  assert.deepEqual([told.length, watchdog.signal.aborted], [2, true]);
});

test("the outer signal aborts it with its own reason, also one aborted before", async () => {
  const reason = new Error("told to stop");
  const outer = new AbortController();
  const { watchdog } = watch(1000, outer.signal);
  outer.abort(reason);
  assert.equal(watchdog.signal.reason, reason);
  assert.equal(watch(1000, outer.signal).watchdog.signal.reason, reason);
});

test("once disposed it neither fires nor listens", async () => {
  const outer = new AbortController();
  const { clock, watchdog } = watch(1000, outer.signal);
  watchdog[Symbol.dispose]();
  await clock.advance(5000);
  outer.abort();
  assert.equal(watchdog.signal.aborted, false);
});
