import assert from "node:assert/strict";
import { randomFillSync } from "node:crypto";
import { test } from "node:test";
import { codecOf } from "../../src/codec/table.ts";
import { bytesSource, readAll } from "../../src/io/bytes.ts";

const { signal } = new AbortController();
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

for (const method of ["brotli", "lzma"] as const) {
  test(`${method} lets others work while it compresses, and while it decompresses`, async () => {
    const codec = codecOf(method);
    const options = { jobs: 1, signal };
    const packing = readAll(codec.compress(bytesSource(content).open(), options));
    // One for each 64 KiB would be 16.
    assert.ok((await turnsDuring(packing)) >= 8);
    const unpacking = readAll(codec.decompress(bytesSource(await packing).open(), options));
    assert.ok((await turnsDuring(unpacking)) >= 4);
    assert.ok((await unpacking).equals(content));
  });
}
