import assert from "node:assert/strict";
import { randomFillSync } from "node:crypto";
import { test } from "node:test";
import { codecOf } from "../../src/codec/table.ts";
import { bytesSource, readAll } from "../../src/io/bytes.ts";

const { signal } = new AbortController();
const options = { jobs: 1, signal };
const MIB = 1024 * 1024;

/** Half noise, half text: what costs these codecs most. */
const content = Buffer.alloc(MIB, "a line of a table; ");
randomFillSync(content, 0, MIB / 2);

/** Turns of the event loop until `work` is done. */
async function turnsDuring(work: Promise<unknown>): Promise<number> {
  let turns = 0;
  let isOver = false;
  const count = (): void => {
    turns += 1;
    if (!isOver) setImmediate(count);
  };
  setImmediate(count);
  await work;
  isOver = true;
  return turns;
}

test("lzma lets others work for each 64 KiB", async () => {
  const codec = codecOf("lzma");
  const packing = readAll(codec.compress(bytesSource(content).open(), options));
  assert.ok((await turnsDuring(packing)) >= 16);
  const unpacking = readAll(codec.decompress(bytesSource(await packing).open(), options));
  assert.ok((await turnsDuring(unpacking)) >= 8);
  assert.ok((await unpacking).equals(content));
});

test("brotli works elsewhere", async () => {
  const settings = { ...options, level: 9 };
  const packing = readAll(codecOf("brotli").compress(bytesSource(content).open(), settings));
  assert.ok((await turnsDuring(packing)) >= 16);
});
