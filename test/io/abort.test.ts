import assert from "node:assert/strict";
import { test } from "node:test";
import { abortable, untilAborted } from "../../src/io/abort.ts";

const reason = new Error("told to stop");
const never = new Promise<never>(() => {});

async function* numbers() {
  yield* [1, 2, 3];
}

test("a promise is passed on while nothing is aborted", async () => {
  const { signal } = new AbortController();
  assert.equal(await untilAborted(Promise.resolve(7), signal), 7);
  await assert.rejects(untilAborted(Promise.reject(new Error("own")), signal), /own/);
});

test("an abort, before or later, wins over a promise that does not settle", async () => {
  const controller = new AbortController();
  const waiting = untilAborted(never, controller.signal);
  controller.abort(reason);
  await assert.rejects(waiting, (thrown) => thrown === reason);
  await assert.rejects(untilAborted(never, controller.signal), (thrown) => thrown === reason);
  // The late failure of abandoned work must not end the process.
  const failing = untilAborted(Promise.reject(new Error("late")), controller.signal);
  await assert.rejects(failing, (thrown) => thrown === reason);
});

test("no listener stays behind on a signal that lives long", async () => {
  const { signal } = new AbortController();
  let listeners = 0;
  const add = signal.addEventListener.bind(signal);
  const remove = signal.removeEventListener.bind(signal);
  signal.addEventListener = (...words: Parameters<typeof add>) => {
    listeners++;
    add(...words);
  };
  signal.removeEventListener = (...words: Parameters<typeof remove>) => {
    listeners--;
    remove(...words);
  };
  for (let round = 0; round < 10; round++) await untilAborted(Promise.resolve(), signal);
  for await (const _ of abortable(numbers(), signal)) continue;
  assert.equal(listeners, 0);
});

test("a stream is passed on and closed when it is left early", async () => {
  let isClosed = false;
  async function* source() {
    try {
      yield 1;
      yield 2;
    } finally {
      isClosed = true;
    }
  }
  const { signal } = new AbortController();
  assert.deepEqual(await Array.fromAsync(abortable(source(), signal)), [1, 2]);
  isClosed = false;
  for await (const _ of abortable(source(), signal)) break;
  assert.equal(isClosed, true);
});

test("an abort ends a stalled stream at once", async () => {
  const controller = new AbortController();
  async function* source() {
    yield 1;
    controller.abort(reason);
    await never;
  }
  const reading = Array.fromAsync(abortable(source(), controller.signal));
  await assert.rejects(reading, (thrown) => thrown === reason);
});
