import assert from "node:assert/strict";
import { test } from "node:test";
import { withinDeadline } from "../../src/archive/deadline.ts";
import { InterruptedError, StorageError } from "../../src/errors.ts";
import { systemClock } from "../../src/io/clock.ts";
import { withRetry } from "../../src/io/retry.ts";
import { pause } from "../support/until.ts";

const never = new Promise<never>(() => {});
const alive = () => new AbortController().signal;

/** Rejects as a well-behaved call does when its signal is aborted. */
function untilAbort(signal: AbortSignal): Promise<never> {
  return new Promise((_, reject) => {
    signal.addEventListener("abort", () => reject(signal.reason));
  });
}

function messageOf(error: unknown): string {
  return error instanceof Error ? error.message : String(error);
}

test("what ends in time gives its value", async () => {
  const value = await withinDeadline({ timeoutMs: 1000, signal: alive() }, async () => 7);
  assert.equal(value, 7);
});

test("what takes too long ends with the name of its step", async () => {
  const work = withinDeadline({ timeoutMs: 20, signal: alive() }, async ({ signal, begin }) => {
    begin("storing X in memory://test");
    await untilAbort(signal);
  });
  await assert.rejects(work, {
    name: "DeadlineError",
    message: "storing X in memory://test did not finish within 20 ms",
  });
});

test("what failed until the time was up is told, with its way out", async () => {
  const failure = new StorageError("cannot put X: 507", { isRetryable: true, hint: "Add room." });
  const policy = { attempts: 100, baseMs: 1, capMs: 1, totalMs: 60_000 };
  const failing = async () => {
    throw failure;
  };
  const work = withinDeadline({ timeoutMs: 20, signal: alive() }, async ({ signal, begin }) => {
    begin("storing X");
    // What a caller wraps its signal with passes the reason on.
    const inner = AbortSignal.any([signal, alive()]);
    await withRetry(failing, policy, { clock: systemClock, random: Math.random, signal: inner });
  });
  await assert.rejects(work, {
    name: "DeadlineError",
    message:
      "storing X did not finish within 20 ms, because of failures; the last one: cannot put X: 507",
    hint: "Add room. PostgreSQL calls again by itself.",
  });
});

test("what was spent before the work began is told, with where to look", async () => {
  const spent = { ms: 40.4, by: "waiting for wal-drain", hint: "Ask wal-drain." };
  const work = withinDeadline({ timeoutMs: 20, signal: alive(), spent }, ({ begin }) => {
    begin("storing X");
    return never;
  });
  await assert.rejects(work, {
    name: "DeadlineError",
    message: "storing X did not finish within 60 ms, 40 of them waiting for wal-drain",
    hint: /does not answer in time\. .* Ask wal-drain\. .* raise WALNUT_WAL_TIMEOUT\.$/,
  });
});

test("silence after a failure that was repeated is told as that failure", async () => {
  let calls = 0;
  const work = withinDeadline({ timeoutMs: 30, signal: alive() }, async ({ signal }) => {
    const policy = { attempts: 9, baseMs: 1, capMs: 1, totalMs: 60_000 };
    const attempt = async () => {
      if (++calls > 1) await untilAbort(signal);
      throw new StorageError("reset", { isRetryable: true });
    };
    await withRetry(attempt, policy, { clock: systemClock, random: () => 0, signal });
  });
  await assert.rejects(work, {
    message: /^the start did not finish .* the last one: reset$/,
    hint: /does not answer in time/,
  });
});

test("a call that ignores its signal is left behind", async () => {
  const work = withinDeadline({ timeoutMs: 20, signal: alive() }, ({ begin }) => {
    begin("reading /dead/mount");
    return never;
  });
  await assert.rejects(work, {
    name: "DeadlineError",
    message: "reading /dead/mount did not finish within 20 ms",
  });
});

const MIB = 1024 * 1024;

test("a transfer that gets on has its time again, and no more once it does not", async () => {
  const roundMs = 30;
  const began = performance.now();
  const work = withinDeadline({ timeoutMs: roundMs, signal: alive() }, async (scope) => {
    scope.begin("storing X in memory://test");
    while (performance.now() - began < 5 * roundMs) {
      scope.moved(MIB);
      await pause(1);
    }
    scope.moved(MIB - 1);
    await untilAbort(scope.signal);
  });
  const [, allMs = ""] =
    /^storing X in memory:\/\/test did not finish within (\d+) ms; in the last 30 less than 1 MiB passed$/.exec(
      await work.then(() => "it did", messageOf),
    ) ?? [];
  assert.ok(Number(allMs) > 5 * roundMs, allMs);
});

test("what trickles has its time once", async () => {
  const work = withinDeadline({ timeoutMs: 40, signal: alive() }, async ({ signal, moved }) => {
    while (!signal.aborted) {
      moved(1);
      await pause(1);
    }
    throw signal.reason;
  });
  await assert.rejects(work, { message: "the start did not finish within 40 ms" });
});

test("clean-up after the deadline is waited for", async () => {
  const done: string[] = [];
  const work = withinDeadline({ timeoutMs: 20, signal: alive() }, async ({ signal }) => {
    try {
      await untilAbort(signal);
    } finally {
      await pause(50);
      done.push("removed");
    }
  });
  await assert.rejects(work, { name: "DeadlineError" });
  assert.deepEqual(done, ["removed"]);
});

test("work that succeeds after all has succeeded", async () => {
  const value = await withinDeadline({ timeoutMs: 20, signal: alive() }, async ({ signal }) => {
    await untilAbort(signal).catch(() => {});
    return "acknowledged";
  });
  assert.equal(value, "acknowledged");
});

test("the caller's own abort stays what it is", async () => {
  const controller = new AbortController();
  const work = withinDeadline({ timeoutMs: 10_000, signal: controller.signal }, ({ signal }) =>
    untilAbort(signal),
  );
  controller.abort(new InterruptedError("asked to stop by SIGTERM"));
  await assert.rejects(work, { name: "InterruptedError" });
});

test("the caller's own abort also leaves a call behind that ignores it", async () => {
  const controller = new AbortController();
  const work = withinDeadline({ timeoutMs: 10_000, signal: controller.signal }, () => never);
  controller.abort(new InterruptedError("asked to stop by SIGTERM"));
  await assert.rejects(work, { name: "InterruptedError" });
});

test("nothing is begun for a caller who has been aborted", async () => {
  const signal = AbortSignal.abort(new InterruptedError("asked to stop"));
  const work = withinDeadline({ timeoutMs: 1000, signal }, () => assert.fail("begun"));
  await assert.rejects(work, { name: "InterruptedError" });
});

test("another failure stays what it is, also when the time is up meanwhile", async () => {
  const work = withinDeadline({ timeoutMs: 20, signal: alive() }, async ({ signal }) => {
    await untilAbort(signal).catch(() => {});
    throw new StorageError("the store answered 503", { isRetryable: true });
  });
  await assert.rejects(work, { name: "StorageError", message: "the store answered 503" });
});
