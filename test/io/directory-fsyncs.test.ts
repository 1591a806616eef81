import assert from "node:assert/strict";
import { type FileHandle, mkdir, open, readdir, rm } from "node:fs/promises";
import { join } from "node:path";
import { test } from "node:test";
import { DirectoryFsyncs } from "../../src/io/directory-fsyncs.ts";
import { createFileDurably } from "../../src/io/durable.ts";
import { scratchDirectory } from "../support/scratch-directory.ts";

const signal = new AbortController().signal;

/** Lets each fsync of any handle go through when it is told to; counts them. */
async function watchedFsyncs(): Promise<Disposable & { count: number; gate: Promise<void> }> {
  await using probe = await open(import.meta.filename, "r");
  const prototype: FileHandle = Object.getPrototypeOf(probe);
  const original = Reflect.get(prototype, "sync");
  const state = {
    count: 0,
    gate: Promise.resolve(),
    [Symbol.dispose]: () => {
      prototype.sync = original;
    },
  };
  prototype.sync = async function (this: FileHandle) {
    state.count += 1;
    await state.gate;
    await Reflect.apply(original, this, []);
  };
  return state;
}

test("who comes during an fsync shares the next one", async () => {
  using scratch = scratchDirectory();
  using seen = await watchedFsyncs();
  const gate = Promise.withResolvers<void>();
  seen.gate = gate.promise;
  const fsyncs = new DirectoryFsyncs();
  const ended: number[] = [];
  const sync = async (number: number): Promise<void> => {
    await fsyncs.sync(scratch.path, false);
    ended.push(number);
  };
  const first = sync(0);
  while (seen.count === 0) await new Promise((resolve) => setImmediate(resolve));
  const others = [1, 2, 3, 4].map(sync);
  gate.resolve();
  await first;
  assert.deepEqual(ended, [0]);
  await Promise.all(others);
  assert.equal(seen.count, 2);
  await fsyncs.sync(scratch.path, false);
  assert.equal(seen.count, 3);
});

test("a directory that is missing is so for all who wait, and not for those after them", async () => {
  using scratch = scratchDirectory();
  const path = join(scratch.path, "missing");
  const fsyncs = new DirectoryFsyncs();
  const results = await Promise.allSettled([1, 2, 3].map(() => fsyncs.sync(path, false)));
  assert.deepEqual(
    results.map(({ status }) => status),
    ["rejected", "rejected", "rejected"],
  );
  await mkdir(path);
  assert.equal((await fsyncs.sync(path, false)).isDurable, false);
});

test("parents of a new directory are fsynced once, and again when it is another one", async () => {
  using scratch = scratchDirectory();
  using seen = await watchedFsyncs();
  const fsyncs = new DirectoryFsyncs();
  const options = { signal, root: scratch.path, fsyncs };
  const put = async (name: string): Promise<number> => {
    const before = seen.count;
    await createFileDurably(join(scratch.path, "a/b", name), Buffer.from(name), options);
    return seen.count - before;
  };
  // The file, a/b, a, the root.
  assert.equal(await put("one"), 4);
  // The file, a/b.
  assert.equal(await put("two"), 2);
  await rm(join(scratch.path, "a"), { recursive: true });
  assert.equal(await put("three"), 4);
  assert.deepEqual(await readdir(join(scratch.path, "a/b")), ["three"]);
});
