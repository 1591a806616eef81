import assert from "node:assert/strict";
import { test } from "node:test";
import { readBackupDocuments } from "../../src/backup/backup-documents.ts";
import { readCatalogue } from "../../src/catalogue/catalogue.ts";
import { DocumentsShelf } from "../../src/catalogue/documents-shelf.ts";
import { verifyRepository } from "../../src/catalogue/verify.ts";
import { codecOf } from "../../src/codec/table.ts";
import { bytesSource } from "../../src/io/bytes.ts";
import { systemClock } from "../../src/io/clock.ts";
import type { ObjectInfo, Storage } from "../../src/storage/storage.ts";
import { overlay } from "../../src/storage/overlay.ts";
import type { MemoryStorage } from "../support/memory-storage.ts";
import { seededRandom } from "../support/random.ts";
import { putSyntheticRepository } from "../support/synthetic-repository.ts";

const signal = AbortSignal.timeout(300_000);
const MIB = 1024 * 1024;

/** A store that says which manifests were read. */
function watched(inner: Storage, read: string[]): Storage {
  return overlay(inner, {
    get: (key, options) => {
      const [, name] = /(base_\w+)\/walnut_manifest/.exec(key) ?? [];
      if (name !== undefined) read.push(name);
      return inner.get(key, options);
    },
  });
}

test("holds what there is room for, and reads the rest again, in turn", async () => {
  const inner = await putSyntheticRepository(seededRandom());
  const read: string[] = [];
  const faults: string[] = [];
  const storage = watched(inner, read);
  const { backups } = await readCatalogue(inner, { signal });
  const names = backups.map(({ name }) => name);
  const [first = "", second = "", third = "", fourth = "", fifth = ""] = names;
  const sizes = new Map([
    [first, 40 * MIB],
    [second, 20 * MIB],
    [third, 100 * MIB],
    [fourth, 30 * MIB],
    [fifth, 3 * MIB],
  ]);
  const listed = names.map((name) => ({ name, folder: { documentBytes: sizes.get(name) ?? 0 } }));
  const shelf = new DocumentsShelf(storage, listed, {
    jobs: 3,
    onFault: (backup) => faults.push(backup),
  });
  const zstd = codecOf("zstd");
  for (const name of names) shelf.offer(await readBackupDocuments(inner, name, { zstd, signal }));
  await inner.delete([inner.keys.find((key) => key.includes(`${fifth}_backup_stop`)) ?? ""], {
    signal,
  });
  const taken: string[][] = [];
  const use = async (held: ReadonlyMap<string, unknown>): Promise<void> => {
    await Promise.resolve();
    taken.push([...held.keys()].toSorted());
  };
  await shelf.inTurn(names, use, { signal });
  // What was held is not read again; what was left out, and what could not stay, is.
  assert.deepEqual(taken, [[first, second], [third], [fourth]]);
  assert.deepEqual(read, [third, fourth]);
  assert.deepEqual(faults, [fifth]);
});

test("reads small documents at the same time, large ones alone", async () => {
  const names = ["a", "b", "c", "d", "e"];
  const large = new Set(["b", "d"]);
  const listed = names.map((name) => ({
    name,
    folder: { documentBytes: large.has(name) ? 9 * MIB : 1 },
  }));
  const storage = await putSyntheticRepository(seededRandom());
  const shelf = new DocumentsShelf(storage, listed, { jobs: 8, onFault: assert.fail });
  const running = new Set<string>();
  let most = 0;
  const seen: string[] = [];
  const gate = Promise.withResolvers<void>();
  await shelf.forEach(
    listed,
    async ({ name }) => {
      running.add(name);
      most = Math.max(most, running.size);
      seen.push(name);
      if (large.has(name)) assert.equal(running.size, 1);
      else if (running.size === 3) gate.resolve();
      if (!large.has(name)) await gate.promise;
      await Promise.resolve();
      running.delete(name);
    },
    { signal },
  );
  assert.equal(most, 3);
  assert.deepEqual(seen.toSorted(), names);
});

test("verify finds the same where no documents fit beside each other", async () => {
  const inner = await putSyntheticRepository(seededRandom());
  const read: string[] = [];
  const listing = watched(inner, read);
  const swollen = overlay(listing, {
    async *list(prefix, listOptions): AsyncGenerator<ObjectInfo> {
      for await (const info of inner.list(prefix, listOptions)) {
        const isDocument = info.key.endsWith("files_metadata.json");
        yield isDocument ? { ...info, sizeBytes: info.sizeBytes + 100 * MIB } : info;
      }
    },
  });
  const options = { ...FULL, onProgress: () => {} };
  assert.deepEqual((await verifyRepository(swollen, options)).findings, []);
  const { backups } = await readCatalogue(inner, { signal });
  const names = backups.map(({ name }) => name);
  // Each is read for its documents, hashed, and read for its parts.
  for (const name of names) assert.equal(read.filter((one) => one === name).length, 3, name);
  const key = inner.keys.filter((one) => one.includes("part_001")).at(-1) ?? "";
  await damage(inner, key);
  const { findings } = await verifyRepository(swollen, options);
  assert.deepEqual(
    findings.map(({ kind, subject }) => [kind, subject]),
    [["damaged", key]],
  );
});

const FULL = {
  level: "full",
  jobs: 4,
  codecJobs: 1,
  isRelearning: false,
  clock: systemClock,
  signal,
} as const;

async function damage(storage: MemoryStorage, key: string): Promise<void> {
  const bytes = Buffer.from(storage.bytesOf(key) ?? []);
  const at = bytes.length >> 1;
  bytes.writeUInt8(bytes.readUInt8(at) ^ 1, at);
  await storage.put(key, bytesSource(bytes), { signal });
}
