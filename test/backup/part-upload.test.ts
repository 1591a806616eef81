import assert from "node:assert/strict";
import { writeFileSync } from "node:fs";
import { join } from "node:path";
import { test } from "node:test";
import { inOrder } from "../../src/backup/composer.ts";
import { DocumentsSpool } from "../../src/backup/documents-spool.ts";
import { PartUpload } from "../../src/backup/part-upload.ts";
import type { Walked } from "../../src/backup/walk.ts";
import { codecOf } from "../../src/codec/table.ts";
import { parseManifest } from "../../src/layout/manifest.ts";
import type { Storage } from "../../src/storage/storage.ts";
import { MemoryStorage } from "../support/memory-storage.ts";
import { scratchDirectory } from "../support/scratch-directory.ts";

const signal = AbortSignal.timeout(60_000);
const BACKUP = "base_000000010000000000000002";
const FILE_BYTES = 100_000;
const common = { mode: 0o600, mtimeNs: 0n, uid: 0, gid: 0 };

function filesIn(directory: string, count: number): readonly Walked[] {
  return Array.from({ length: count }, (_, index) => {
    const name = `/file_${String(index).padStart(3, "0")}`;
    const path = join(directory, name);
    writeFileSync(path, Buffer.alloc(FILE_BYTES, index));
    return { kind: "file" as const, name, path, sizeBytes: FILE_BYTES, ...common };
  });
}

function uploadOf(
  directory: string,
  storage: Pick<Storage, "put">,
  settings: { readonly thresholdBytes: number; readonly partConcurrency: number },
): { readonly upload: PartUpload; readonly documents: DocumentsSpool } {
  const documents = new DocumentsSpool({ directory, hasFilesMetadata: true });
  const upload = new PartUpload({
    ...settings,
    storage,
    backup: BACKUP,
    codec: codecOf("none"),
    codecJobs: 1,
    hash: "xxh64",
    documents,
    onContent: () => {},
    signal,
  });
  return { upload, documents };
}

test("a part ends with the file by which its content exceeds the threshold", async () => {
  using scratch = scratchDirectory();
  const files = filesIn(scratch.path, 10);
  for (const [thresholdBytes, counts] of [
    [0, Array(10).fill(1)],
    [2.5 * FILE_BYTES, [3, 3, 3, 1]],
    [3 * FILE_BYTES, [4, 4, 2]],
    [10 * FILE_BYTES, [10]],
  ] as const) {
    const storage = new MemoryStorage();
    const settings = { thresholdBytes, partConcurrency: 1 };
    const { upload, documents } = uploadOf(scratch.path, storage, settings);
    using _closed = documents;
    await upload.packAll(inOrder(files));
    await upload.finish();
    const parts = new Map<string, number>();
    const header = { backup: BACKUP, systemId: 1n, hash: "xxh64", startLsn: 1n } as const;
    for await (const line of parseManifest(documents.manifest(header))) {
      if (line.kind === "file") parts.set(line.part, (parts.get(line.part) ?? 0) + 1);
    }
    assert.deepEqual([...parts.values()], counts);
    assert.equal(storage.keys.length, counts.length);
  }
});

for (const partConcurrency of [1, 3]) {
  test(`${partConcurrency} parts are packed at the same time, and a bounded number waits`, async () => {
    using scratch = scratchDirectory();
    const files = filesIn(scratch.path, 12);
    const packing = { now: 0, most: 0 };
    const unanswered = { now: 0, most: 0 };
    const allAtWork = Promise.withResolvers<void>();
    const storage: Pick<Storage, "put"> = {
      async put(_key, body) {
        unanswered.now += 1;
        unanswered.most = Math.max(unanswered.most, unanswered.now);
        packing.now += 1;
        packing.most = Math.max(packing.most, packing.now);
        if (packing.now === partConcurrency) allAtWork.resolve();
        // Nobody goes on before as many as may are at work: fewer would wait for ever.
        await allAtWork.promise;
        for await (const _chunk of body.open());
        packing.now -= 1;
        // The store answers late.
        for (let turn = 0; turn < 20; turn += 1) await new Promise(setImmediate);
        unanswered.now -= 1;
      },
    };
    const settings = { thresholdBytes: 0, partConcurrency };
    const { upload, documents } = uploadOf(scratch.path, storage, settings);
    using _closed = documents;
    await upload.packAll(inOrder(files));
    await upload.finish();
    assert.equal(packing.most, partConcurrency);
    assert.ok(unanswered.most <= partConcurrency + 2, `${unanswered.most} parts waited`);
  });
}

test("documents know all of the parts before the store has acknowledged them", async () => {
  using scratch = scratchDirectory();
  const gate = Promise.withResolvers<void>();
  const inner = new MemoryStorage();
  const storage: Pick<Storage, "put"> = {
    async put(key, body, options) {
      await inner.put(key, body, options);
      await gate.promise;
    },
  };
  const settings = { thresholdBytes: 3 * FILE_BYTES, partConcurrency: 1 };
  const { upload, documents } = uploadOf(scratch.path, storage, settings);
  using _closed = documents;
  await upload.packAll(inOrder(filesIn(scratch.path, 8)));
  upload.putTar({ name: "pg_control.tar", tar: Buffer.alloc(1024) });
  await upload.sent();
  assert.equal(upload.sizes.size, 0);
  const header = { backup: BACKUP, systemId: 1n, hash: "xxh64", startLsn: 1n } as const;
  const sizes = new Map<string, number>();
  for await (const line of parseManifest(documents.manifest(header))) {
    if (line.kind === "part") sizes.set(line.name, line.sizeBytes);
  }
  assert.equal(sizes.size, 3);
  assert.equal(
    upload.storedBytes,
    [...sizes.values()].reduce((sum, sizeBytes) => sum + sizeBytes, 0),
  );
  gate.resolve();
  await upload.finish();
  assert.deepEqual(upload.sizes, sizes);
});

test("who waits for what was sent learns that a part has failed", async () => {
  using scratch = scratchDirectory();
  const storage: Pick<Storage, "put"> = {
    async put() {
      throw new Error("the disk is full");
    },
  };
  const settings = { thresholdBytes: 100 * FILE_BYTES, partConcurrency: 1 };
  const { upload, documents } = uploadOf(scratch.path, storage, settings);
  using _closed = documents;
  await upload.packAll(inOrder(filesIn(scratch.path, 2))).catch(() => {});
  await assert.rejects(upload.sent(), { message: "the disk is full" });
  await upload.settle();
});
