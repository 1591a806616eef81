import { test } from "node:test";
import assert from "node:assert/strict";
import { ByteCursor } from "../../src/io/byte-cursor.ts";
import type { ByteStream } from "../../src/io/bytes.ts";
import { inChunks } from "../support/content.ts";

const letters = Buffer.from("abcdefghijklmnopqrstuvwxyz");

test("pieces of any size come out of chunks of any size", async () => {
  for (let chunkBytes = 1; chunkBytes < 30; chunkBytes += 1) {
    const cursor = new ByteCursor(inChunks(letters, chunkBytes), "text");
    assert.equal((await cursor.readExactly(3)).toString(), "abc");
    await cursor.skip(4);
    assert.equal(cursor.position, 7);
    const target = Buffer.alloc(5);
    await cursor.fill(target);
    assert.equal(target.toString(), "hijkl");
    assert.equal((await cursor.readExactly(0)).length, 0);
    assert.equal(await cursor.readInto(Buffer.alloc(100)), 14);
    assert.equal(await cursor.hasMore(), false);
    assert.equal(await cursor.readInto(Buffer.alloc(1)), 0);
  }
});

test("the rest of a chunk is taken, and some of it given back", async () => {
  const cursor = new ByteCursor(inChunks(letters, 10), "text");
  assert.equal(cursor.takeSome(5).length, 0);
  assert.equal(await cursor.hasMore(), true);
  assert.equal(Buffer.from(cursor.takeSome(100)).toString(), "abcdefghij");
  cursor.giveBack(3);
  assert.equal(cursor.position, 7);
  assert.equal((await cursor.readExactly(4)).toString(), "hijk");
  assert.throws(() => cursor.giveBack(2), { name: "RangeError" });
});

async function* withEmpty(): ByteStream {
  yield Buffer.alloc(0);
  yield Buffer.from("a");
  yield Buffer.alloc(0);
  yield Buffer.from("b");
  yield Buffer.alloc(0);
}

test("empty chunks are passed over", async () => {
  const cursor = new ByteCursor(withEmpty(), "text");
  assert.equal((await cursor.readExactly(2)).toString(), "ab");
  assert.equal(await cursor.hasMore(), false);
});

test("an input that is too short is cut off", async () => {
  const reads = [
    (cursor: ByteCursor) => cursor.readExactly(30),
    (cursor: ByteCursor) => cursor.fill(Buffer.alloc(30)),
    (cursor: ByteCursor) => cursor.skip(30),
  ];
  for (const read of reads) {
    await assert.rejects(read(new ByteCursor(inChunks(letters, 7), "text")), {
      name: "TruncatedError",
      message: "text ends at byte 26, at least 4 too early",
    });
  }
});

test("closing ends the input once", async () => {
  let ends = 0;
  async function* watched(): ByteStream {
    try {
      yield* inChunks(letters, 5);
    } finally {
      ends += 1;
    }
  }
  const cursor = new ByteCursor(watched(), "text");
  await cursor.hasMore();
  await cursor.close();
  await cursor.close();
  assert.equal(ends, 1);
  cursor.takeSome(5);
  assert.equal(await cursor.hasMore(), false);
});
