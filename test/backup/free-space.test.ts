import assert from "node:assert/strict";
import { existsSync } from "node:fs";
import { join } from "node:path";
import { test } from "node:test";
import { freeBytes, requireSpace } from "../../src/backup/free-space.ts";
import { LocalFileError } from "../../src/errors.ts";
import type { GetOptions } from "../../src/storage/storage.ts";
import { MemoryStorage } from "../support/memory-storage.ts";
import { restoreInto } from "../support/restoring.ts";
import { scratchDirectory } from "../support/scratch-directory.ts";
import { putSyntheticBackup, specialEntries } from "../support/synthetic-backup.ts";

test("what does not exist yet is where it will be made", async () => {
  using scratch = scratchDirectory();
  const deep = join(scratch.path, "not", "yet");
  assert.ok((await freeBytes(deep)) > 0);
  await requireSpace([{ directory: deep, sizeBytes: 1 }]);
});

test("needs on one file system are added up", async () => {
  using scratch = scratchDirectory();
  const free = await freeBytes(scratch.path);
  const half = Math.ceil(free * 0.75);
  await requireSpace([{ directory: scratch.path, sizeBytes: half }]);
  await assert.rejects(
    requireSpace([
      { directory: scratch.path, sizeBytes: half },
      { directory: join(scratch.path, "other"), sizeBytes: half },
    ]),
    {
      name: "RefusedError",
      message: new RegExp(
        `^${scratch.path} needs ${2 * half} bytes, its file system has \\d+ free$`,
      ),
    },
  );
});

test("a restore that can't fit is refused before anything is written", async () => {
  for (const style of ["walg", "bare"] as const) {
    using scratch = scratchDirectory();
    const storage = new MemoryStorage();
    const uncompressedBytes = 2 ** 52;
    await putSyntheticBackup(storage, {
      entries: specialEntries(),
      style,
      sentinel: { uncompressedBytes },
    });
    await assert.rejects(restoreInto(storage, join(scratch.path, "data")), {
      name: "RefusedError",
      message: /needs 4503599627370496 bytes, its file system has \d+ free$/,
    });
    assert.equal(existsSync(join(scratch.path, "data")), false);
  }
});

const FULL = { code: "ENOSPC", errno: -28, syscall: "write" };

/** The disk is full as soon as a part's content is to be written. */
class FullDisk extends MemoryStorage {
  override async *get(key: string, options: GetOptions): AsyncGenerator<Uint8Array, void> {
    let count = 0;
    for await (const chunk of super.get(key, options)) {
      count += 1;
      if (count > 2) throw Object.assign(new Error("no space"), FULL);
      yield chunk;
    }
  }
}

test("a disk that gets full is said with what is needed and what is free, and ends at once", async () => {
  using scratch = scratchDirectory();
  const storage = new FullDisk();
  const content = Buffer.alloc(4 * 1024 * 1024, 1);
  await putSyntheticBackup(storage, {
    entries: [{ kind: "file", path: "base/1", content }, ...specialEntries()],
    method: "none",
  });
  await assert.rejects(restoreInto(storage, join(scratch.path, "data")), (error: Error) => {
    assert.ok(error instanceof LocalFileError, String(error));
    assert.match(
      error.message,
      /^cannot write .*\/data\/base\/1: no space left on the device \(ENOSPC\), \d+ bytes still to come, \d+ bytes free$/,
    );
    assert.match(error.hint ?? "", /run the same command again/);
    return true;
  });
});
