import assert from "node:assert/strict";
import { mkdir, mkdtemp, readdir, rename, rm, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { after, test } from "node:test";
import { StorageError } from "../../src/errors.ts";
import { openStorage } from "../../src/storage/open.ts";
import { text, textOf } from "./contract-lists.ts";

const signal = new AbortController().signal;
const scratch = await mkdtemp(join(tmpdir(), "walnut-root-memory-"));
after(() => rm(scratch, { recursive: true }));

interface Place {
  readonly root: string;
  readonly cacheDirectory: string;
}

async function newPlace(): Promise<Place> {
  const home = await mkdtemp(join(scratch, "place-"));
  const root = join(home, "root");
  await mkdir(root);
  return { root, cacheDirectory: join(home, "cache") };
}

/** As each command opens it. */
async function open({ root, cacheDirectory }: Place) {
  return await openStorage(
    { kind: "directory", path: root },
    {
      signal,
      requestTimeoutMs: 10_000,
      uploadConcurrency: 1,
      cacheDirectory,
    },
  );
}

async function put(place: Place, key: string): Promise<void> {
  await using storage = await open(place);
  await storage.put(key, text(key), { signal, ifAbsent: true });
}

/** The directory stays, and what was in it is away until the function that this gives is called. */
async function unmount(root: string): Promise<() => Promise<void>> {
  await rename(root, `${root}.away`);
  await mkdir(root);
  return async () => {
    await rm(root, { recursive: true });
    await rename(`${root}.away`, root);
  };
}

test("an empty directory in the place of a store that was used takes nothing", async () => {
  const place = await newPlace();
  await put(place, "wal_005/a");
  await using warm = await open(place);
  await warm.put("wal_005/b", text("b"), { signal });
  const mount = await unmount(place.root);
  const puts = [() => put(place, "wal_005/c"), () => warm.put("wal_005/c", text("c"), { signal })];
  for (const refused of puts) {
    await assert.rejects(refused, (error) => {
      assert(error instanceof StorageError);
      assert.equal(
        error.message,
        `storage directory ${place.root} is empty, and it was not before`,
      );
      assert.match(error.hint ?? "", /^Is its file system mounted\? .* delete \/.*\/cache\/dir/);
      return true;
    });
  }
  assert.deepEqual(await readdir(place.root), []);
  await mount();
  await put(place, "wal_005/c");
  assert.equal(await textOf(warm, "wal_005/b"), "b");
});

test("an object in the root is refused, too, and does not make the place forgotten", async () => {
  const place = await newPlace();
  await put(place, "wal_005/a");
  await unmount(place.root);
  for (const key of ["walnut_check", "wal_005/b", "walnut_check"]) {
    await assert.rejects(put(place, key), {
      name: "StorageError",
      message: /is empty, and it was/,
    });
  }
  assert.deepEqual(await readdir(place.root), []);
});

test("what was there and was removed on purpose stops nothing", async (t) => {
  await t.test("by a delete of ours", async () => {
    const place = await newPlace();
    await put(place, "a/b");
    await using storage = await open(place);
    await storage.delete(["a/b"], { signal });
    assert.deepEqual(await readdir(place.root), []);
    await put(place, "a/b");
  });
  await t.test("by hand, once the memory is deleted as the hint says", async () => {
    const place = await newPlace();
    await put(place, "a/b");
    await (
      await unmount(place.root)
    )();
    await rm(join(place.root, "a"), { recursive: true });
    const error: unknown = await put(place, "a/b").catch((thrown: unknown) => thrown);
    assert(error instanceof StorageError);
    const [, path = ""] = /delete (\S+),/.exec(error.hint ?? "") ?? [];
    await rm(path);
    await put(place, "a/b");
  });
});

test("without a cache directory that can be written nothing is remembered", async () => {
  const place = await newPlace();
  await writeFile(place.cacheDirectory, "no directory");
  await put(place, "a/b");
  await unmount(place.root);
  await put(place, "a/b");
});
