import { test } from "node:test";
import assert from "node:assert/strict";
import { setImmediate as turn } from "node:timers/promises";
import { fc } from "../support/property.ts";
import { Semaphore, boundedParallel, orderedJobs } from "../../src/io/ordered.ts";

const never = new AbortController().signal;

async function* numbers(count: number): AsyncGenerator<number, void, undefined> {
  for (let value = 0; value < count; value += 1) yield value;
}

/** Gives so many, then fails. */
async function* failingAfter(count: number): AsyncGenerator<number, void, undefined> {
  yield* numbers(count);
  throw new RangeError("input is gone");
}

async function* stalling(): AsyncGenerator<number, void, undefined> {
  yield 1;
  await new Promise(() => {});
}

async function collect<T>(values: AsyncIterable<T>): Promise<T[]> {
  return await Array.fromAsync(values);
}

async function takeInto<T>(values: AsyncIterable<T>, seen: T[]): Promise<void> {
  for await (const value of values) seen.push(value);
}

async function turns(count: number): Promise<void> {
  for (let index = 0; index < count; index += 1) await turn();
}

async function laterThanTheNext(value: number): Promise<number> {
  await turns(5 - value);
  return value;
}

test("results come in the order of the inputs, never more at work than jobs", async () => {
  const property = fc.asyncProperty(
    fc.array(fc.nat({ max: 4 }), { maxLength: 30 }),
    fc.integer({ min: 1, max: 5 }),
    async (delays, jobs) => {
      let running = 0;
      let most = 0;
      const run = async (index: number): Promise<number> => {
        running += 1;
        most = Math.max(most, running);
        await turns(delays[index] ?? 0);
        running -= 1;
        return index * 10;
      };
      const results = await collect(
        orderedJobs(numbers(delays.length), jobs, run, { signal: never }),
      );
      assert.deepEqual(
        results,
        delays.map((_, index) => index * 10),
      );
      assert.equal(most <= jobs, true);
      assert.equal(most, Math.min(most, delays.length));
    },
  );
  await fc.assert(property, { numRuns: 60 });
});

test("jobs run at the same time", async () => {
  const both = Promise.withResolvers<void>();
  let running = 0;
  const run = async (): Promise<void> => {
    running += 1;
    if (running === 2) both.resolve();
    await both.promise;
  };
  assert.equal((await collect(orderedJobs(numbers(2), 2, run, { signal: never }))).length, 2);
});

test("it reads ahead, but not far", async () => {
  let readCount = 0;
  async function* counted() {
    for (let value = 0; value < 100; value += 1) {
      readCount += 1;
      yield value;
    }
  }
  const results = orderedJobs(counted(), 2, async (value) => value, { signal: never });
  assert.deepEqual(await results.next(), { value: 0, done: false });
  await turns(20);
  // Four results that nobody took, one input that waits, and the one that was taken.
  assert.equal(readCount, 6);
  assert.deepEqual(await results.next(), { value: 1, done: false });
  await turns(20);
  assert.equal(readCount, 7);
  await results.return();
});

test("an error of a job comes in its turn, and ends the inputs and the jobs", async () => {
  let isInputEnded = false;
  let running = 0;
  async function* watched() {
    try {
      yield* numbers(100);
    } finally {
      isInputEnded = true;
    }
  }
  const run = async (value: number): Promise<number> => {
    running += 1;
    await turns(value === 2 ? 1 : 10);
    running -= 1;
    if (value === 2) throw new RangeError("bad piece");
    return value;
  };
  const seen: number[] = [];
  const reading = takeInto(orderedJobs(watched(), 3, run, { signal: never }), seen);
  await assert.rejects(reading, { name: "RangeError", message: "bad piece" });
  assert.deepEqual(seen, [0, 1]);
  assert.equal(isInputEnded, true);
  assert.equal(running, 0);
});

test("an error of the inputs comes after the results before it", async () => {
  const seen: number[] = [];
  const results = orderedJobs(failingAfter(3), 2, laterThanTheNext, { signal: never });
  const reading = takeInto(results, seen);
  await assert.rejects(reading, { message: "input is gone" });
  assert.deepEqual(seen, [0, 1, 2]);
});

test("a consumer that stops early ends the inputs and waits for the jobs", async () => {
  let isInputEnded = false;
  let running = 0;
  async function* watched() {
    try {
      yield* numbers(100);
    } finally {
      isInputEnded = true;
    }
  }
  const run = async (value: number): Promise<number> => {
    running += 1;
    await turns(value * 3);
    running -= 1;
    if (value === 1) throw new Error("nobody asks for this one");
    return value;
  };
  for await (const value of orderedJobs(watched(), 3, run, { signal: never })) {
    assert.equal(value, 0);
    break;
  }
  assert.equal(isInputEnded, true);
  assert.equal(running, 0);
});

test("an abort rejects at once, while the inputs stall and while a job does", async () => {
  const stalls = [
    { inputs: stalling(), run: async (value: number) => value },
    { inputs: numbers(5), run: async () => await new Promise<number>(() => {}) },
  ];
  for (const { inputs, run } of stalls) {
    const abort = new AbortController();
    const reading = collect(orderedJobs(inputs, 2, run, { signal: abort.signal }));
    await turns(5);
    abort.abort(new RangeError("enough"));
    await assert.rejects(reading, { name: "RangeError", message: "enough" });
    await assert.rejects(collect(orderedJobs(numbers(1), 2, run, { signal: abort.signal })), {
      message: "enough",
    });
  }
});

test("boundedParallel runs all, at most limit at a time", async () => {
  let running = 0;
  let most = 0;
  const done: number[] = [];
  const run = async (value: number): Promise<void> => {
    running += 1;
    most = Math.max(most, running);
    await turns(value % 4);
    running -= 1;
    done.push(value);
  };
  for (const items of [numbers(20), Array.from({ length: 20 }, (_, index) => index)]) {
    done.length = 0;
    await boundedParallel(items, 3, run, { signal: never });
    assert.deepEqual(
      done.toSorted((a, b) => a - b),
      Array.from({ length: 20 }, (_, index) => index),
    );
    assert.equal(most, 3);
  }
});

test("boundedParallel: the first error aborts the others, which it waits for, and is thrown", async () => {
  const ended: number[] = [];
  let isInputEnded = false;
  async function* watched() {
    try {
      yield* numbers(100);
    } finally {
      isInputEnded = true;
    }
  }
  const run = async (value: number, { signal }: { signal: AbortSignal }): Promise<void> => {
    if (value === 1) throw new RangeError("first");
    const aborted = Promise.withResolvers<void>();
    signal.addEventListener("abort", () => aborted.resolve());
    await aborted.promise;
    await turns(3);
    ended.push(value);
    throw new Error("because of the abort");
  };
  await assert.rejects(boundedParallel(watched(), 3, run, { signal: never }), {
    name: "RangeError",
    message: "first",
  });
  assert.deepEqual(ended, [0]);
  assert.equal(isInputEnded, true);
});

test("boundedParallel: an error of the items is thrown", async () => {
  const seen: number[] = [];
  const run = async (value: number): Promise<void> => void seen.push(value);
  await assert.rejects(boundedParallel(failingAfter(2), 2, run, { signal: never }), {
    message: "input is gone",
  });
  assert.deepEqual(seen, [0, 1]);
});

test("boundedParallel: an abort from outside is thrown, whatever the jobs make of it", async () => {
  const abort = new AbortController();
  const run = async (value: number, { signal }: { signal: AbortSignal }): Promise<void> => {
    if (value === 1) abort.abort(new RangeError("stopped"));
    await turns(2);
    if (signal.aborted) throw new Error("another error");
  };
  await assert.rejects(boundedParallel(numbers(9), 2, run, { signal: abort.signal }), {
    name: "RangeError",
    message: "stopped",
  });
  await assert.rejects(boundedParallel(numbers(9), 2, run, { signal: abort.signal }), {
    message: "stopped",
  });
});

test("a semaphore lets so many in, the others in their order", async () => {
  const semaphore = new Semaphore(2);
  const order: number[] = [];
  await semaphore.acquire({ signal: never });
  await semaphore.acquire({ signal: never });
  const waiting = [1, 2, 3].map(async (value) => {
    await semaphore.acquire({ signal: never });
    order.push(value);
  });
  await turns(2);
  assert.deepEqual(order, []);
  semaphore.release();
  await turns(2);
  assert.deepEqual(order, [1]);
  semaphore.release();
  semaphore.release();
  await Promise.all(waiting);
  assert.deepEqual(order, [1, 2, 3]);
});

test("who gives up waiting for a semaphore takes nothing", async () => {
  const semaphore = new Semaphore(1);
  await semaphore.acquire({ signal: never });
  const abort = new AbortController();
  const impatient = semaphore.acquire({ signal: abort.signal });
  const patient = semaphore.acquire({ signal: never });
  abort.abort(new RangeError("no patience"));
  await assert.rejects(impatient, { message: "no patience" });
  semaphore.release();
  await patient;

  // Given and aborted in the same moment: it goes on to the next one.
  const late = new AbortController();
  const unlucky = semaphore.acquire({ signal: late.signal });
  const next = semaphore.acquire({ signal: never });
  late.abort(new RangeError("too late"));
  semaphore.release();
  await assert.rejects(unlucky, { message: "too late" });
  await next;
  await assert.rejects(semaphore.acquire({ signal: late.signal }), { message: "too late" });
});
