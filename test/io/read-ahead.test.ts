import assert from "node:assert/strict";
import { test } from "node:test";
import { readAll } from "../../src/io/bytes.ts";
import { ReadAhead } from "../../src/io/read-ahead.ts";

const signal = AbortSignal.timeout(60_000);
const settled = () => new Promise((resolve) => setImmediate(resolve));

/** Chunks of 10 bytes in memory that is used again, as producers may. */
function source(count: number, failure?: Error) {
  const seen = { read: 0, isEnded: false };
  async function* chunks() {
    const memory = Buffer.alloc(10);
    try {
      for (; seen.read < count;) {
        seen.read += 1;
        yield memory.fill(seen.read);
      }
      if (failure !== undefined) throw failure;
    } finally {
      seen.isEnded = true;
    }
  }
  return { seen, stream: chunks() };
}

test("it reads before it is asked, no further than it may, and gives all in order", async () => {
  const { seen, stream } = source(9);
  await using ahead = new ReadAhead(stream, { bytesMax: 30, signal });
  await settled();
  assert.equal(seen.read, 3);
  const all = await readAll(ahead.bytes());
  assert.deepEqual(
    all,
    Buffer.concat([1, 2, 3, 4, 5, 6, 7, 8, 9].map((one) => Buffer.alloc(10, one))),
  );
  assert.ok(seen.isEnded);
});

test("a failure comes behind the bytes before it, and to nobody if nobody reads", async () => {
  const { stream } = source(2, new Error("cut"));
  await using ahead = new ReadAhead(stream, { bytesMax: 100, signal });
  const read: number[] = [];
  const reading = async () => {
    for await (const chunk of ahead.bytes()) read.push(chunk.length);
  };
  await assert.rejects(reading, /cut/);
  assert.deepEqual(read, [10, 10]);
  const { stream: unread } = source(2, new Error("cut"));
  await using _ignored = new ReadAhead(unread, { bytesMax: 100, signal });
});

test("disposing of it ends the stream, an abort ends the wait for bytes", async () => {
  const { seen, stream } = source(100);
  {
    await using _ahead = new ReadAhead(stream, { bytesMax: 30, signal });
    await settled();
  }
  assert.ok(seen.isEnded);
  assert.ok(seen.read < 100);

  const stop = new AbortController();
  const never = (async function* () {
    await new Promise(() => {});
    yield Buffer.of();
  })();
  await using hanging = new ReadAhead(never, { bytesMax: 30, signal: stop.signal });
  const reading = readAll(hanging.bytes());
  stop.abort(new Error("enough"));
  await assert.rejects(reading, /enough/);
});
