import assert from "node:assert/strict";
import { test } from "node:test";
import {
  formatBytes,
  formatProgress,
  formatSeconds,
  logProgress,
  terminalProgress,
} from "../../src/commands/progress.ts";
import { Terminal } from "../../src/commands/terminal.ts";
import type { Clock } from "../../src/io/clock.ts";
import { silentLog } from "../../src/io/log.ts";

const MIB = 1024 * 1024;

class HandClock implements Clock {
  nowMs = 0;

  now(): number {
    return this.nowMs;
  }

  monotonicMs(): number {
    return this.nowMs;
  }

  sleep(): Promise<void> {
    return Promise.reject(new Error("nobody sleeps here"));
  }
}

test("formats sizes, durations and a whole state", () => {
  const sizes = [0, 1023, 1024, 1536, MIB, 1.5 * 1024 ** 3, 1024 ** 4, 2048 * 1024 ** 5];
  assert.deepEqual(sizes.map(formatBytes), [
    "0 B",
    "1023 B",
    "1.0 KiB",
    "1.5 KiB",
    "1.0 MiB",
    "1.5 GiB",
    "1.0 TiB",
    "2048.0 PiB",
  ]);
  assert.deepEqual([0, 9.4, 60, 65, 3600, 7265].map(formatSeconds), [
    "0 s",
    "9 s",
    "1 min 00 s",
    "1 min 05 s",
    "1 h 00 min",
    "2 h 01 min",
  ]);
  const state = { activity: "backing up", doneBytes: 25 * MIB, totalBytes: 100 * MIB };
  assert.equal(formatProgress(state, undefined), "backing up: 25.0 MiB of 100.0 MiB (25 %)");
  assert.equal(
    formatProgress(state, 5 * MIB),
    "backing up: 25.0 MiB of 100.0 MiB (25 %), 5.0 MiB/s, 15 s left",
  );
  assert.equal(formatProgress({ activity: "a", doneBytes: 10 }, 0), "a: 10 B, 0 B/s");
  assert.equal(formatProgress({ ...state, doneBytes: 200 * MIB }, 1).includes("left"), false);
  assert.match(formatProgress({ ...state, doneBytes: 200 * MIB }, 1), /\(100 %\)/);
  assert.equal(
    formatProgress({ activity: "a", doneBytes: 0, totalBytes: 0 }, 1),
    "a: 0 B of 0 B, 1 B/s",
  );
});

test("a log gets one line a minute, and none for a short job", () => {
  const clock = new HandClock();
  const lines: string[] = [];
  const sink = logProgress({ ...silentLog, info: (text) => lines.push(text) }, clock);
  for (let second = 0; second <= 150; second += 1) {
    clock.nowMs = second * 1000;
    const totalBytes = 300 * MIB;
    sink.update({ activity: "restoring", doneBytes: second * MIB, totalBytes });
  }
  sink.end();
  assert.deepEqual(lines, [
    "restoring: 60.0 MiB of 300.0 MiB (20 %), 1.0 MiB/s, 4 min 00 s left",
    "restoring: 120.0 MiB of 300.0 MiB (40 %), 1.0 MiB/s, 3 min 00 s left",
  ]);
});

test("the rate follows a job that becomes slower", () => {
  const clock = new HandClock();
  const lines: string[] = [];
  const sink = logProgress({ ...silentLog, info: (text) => lines.push(text) }, clock);
  let doneBytes = 0;
  for (let second = 0; second <= 120; second += 1) {
    clock.nowMs = second * 1000;
    sink.update({ activity: "a", doneBytes });
    doneBytes += second < 60 ? 10 * MIB : MIB;
  }
  assert.match(lines[0] ?? "", /10\.0 MiB\/s$/);
  assert.match(lines[1] ?? "", /, 1\.0 MiB\/s$/);
});

test("the rate of a job that is begun once more is that of the new one", () => {
  const clock = new HandClock();
  const lines: string[] = [];
  const sink = logProgress({ ...silentLog, info: (text) => lines.push(text) }, clock);
  for (let second = 0; second <= 60; second += 1) {
    clock.nowMs = second * 1000;
    sink.update({ activity: "a", doneBytes: (second < 50 ? second : second - 50) * MIB });
  }
  assert.deepEqual(lines, ["a: 10.0 MiB, 1.0 MiB/s"]);
});

test("a terminal's line is rewritten a few times a second and taken off", () => {
  const clock = new HandClock();
  const written: string[] = [];
  const terminal = new Terminal({
    isTerminal: true,
    columns: 30,
    write: (text) => Promise.resolve(void written.push(text)),
  });
  const sink = terminalProgress(terminal, clock);
  for (let step = 0; step <= 10; step += 1) {
    clock.nowMs = step * 100;
    sink.update({ activity: "a", doneBytes: step * MIB });
  }
  assert.deepEqual(written.slice(0, 2), ["\r\u001b[Ka: 0 B", "\r\u001b[Ka: 2.0 MiB"]);
  assert.equal(written.length, 6);

  written.length = 0;
  terminal.writeLines("INFO: line\n");
  terminal.writeLines("INFO: line\n");
  assert.deepEqual(written, ["\r\u001b[K", "INFO: line\n", "INFO: line\n"]);

  written.length = 0;
  terminal.show("x".repeat(100));
  sink.end();
  sink.end();
  assert.deepEqual(written, [`\r\u001b[K${"x".repeat(29)}`, "\r\u001b[K"]);
});
