import assert from "node:assert/strict";
import { test } from "node:test";
import type { Crypter, Decrypter } from "../../src/crypto/crypter.ts";
import { StorageError } from "../../src/errors.ts";
import { bytesSource, readAll } from "../../src/io/bytes.ts";
import { isSecretKey, REKEY_FOLDER, SECRET_FOLDERS } from "../../src/layout/secrecy.ts";
import { EncryptedStorage } from "../../src/storage/encrypted.ts";
import { rekey, type RekeyOptions, type RekeyReport } from "../../src/storage/rekey.ts";
import type { Storage } from "../../src/storage/storage.ts";
import { flipped, keyOf, pgpCrypters, signal, sodiumCrypter } from "../crypto/crypters.ts";
import { sampleContent } from "../support/content.ts";
import { FaultyStorage, type StorageMethod } from "../support/faulty-storage.ts";
import { MemoryStorage } from "../support/memory-storage.ts";

const SEGMENT = "wal_005/000000010000000000000001.br";
const SECOND = "wal_005/000000010000000000000002.br";
const PART = "basebackups_005/base_000000010000000000000001/tar_partitions/part_001.tar.br";
const PARTIAL = "wal_005/000000010000000000000003.partial.br";
const PLAIN_KEY = "basebackups_005/base_000000010000000000000001/metadata.json";
const KEYS = [SEGMENT, SECOND, PART];

const old = await sodiumCrypter({ current: keyOf(1) });
const current = await sodiumCrypter({ current: keyOf(2), previous: [keyOf(1)] });
const onlyCurrent = await sodiumCrypter({ current: keyOf(2) });
const pgp = await pgpCrypters();

const contentOf = (key: string) =>
  sampleContent(20_000, key.length + key.charCodeAt(key.length - 4));

function encrypted(storage: Storage, crypter: Crypter, decrypters: readonly Decrypter[] = []) {
  const rules = { crypter, decrypters, isSecret: isSecretKey, isPlainRead: false };
  return new EncryptedStorage(storage, rules);
}

async function fill(crypter: Crypter, keys: readonly string[] = KEYS): Promise<MemoryStorage> {
  const memory = new MemoryStorage();
  const writer = encrypted(memory, crypter);
  for (const key of [...keys, PLAIN_KEY]) {
    await writer.put(key, bytesSource(contentOf(key)), { signal });
  }
  return memory;
}

async function run(
  storage: Storage,
  crypter: Crypter = current,
  changes: Partial<RekeyOptions> & { readonly decrypters?: readonly Decrypter[] } = {},
): Promise<RekeyReport> {
  const { decrypters = [], ...rest } = changes;
  return await rekey(encrypted(storage, crypter, decrypters).sealed, crypter, {
    folders: SECRET_FOLDERS,
    stageFolder: REKEY_FOLDER,
    jobs: 1,
    isPartialTaken: false,
    isDryRun: false,
    onObject: () => {},
    signal,
    ...rest,
  });
}

/** All objects are there, with their content, for who has only the new key; nothing else is. */
async function requireDone(memory: MemoryStorage, reader: Crypter = onlyCurrent): Promise<void> {
  assert.deepEqual(memory.keys, [...KEYS, PLAIN_KEY].toSorted());
  for (const key of [...KEYS, PLAIN_KEY]) {
    const content = await readAll(encrypted(memory, reader).get(key, { signal }));
    assert.deepEqual(content, contentOf(key), key);
  }
}

test("every object gets the key in use, once", async () => {
  const memory = await fill(old);
  const planned = await run(memory, current, { isDryRun: true });
  assert.deepEqual([planned.changedCount, planned.currentCount], [3, 0]);
  await assert.rejects(requireDone(memory));
  const report = await run(memory);
  assert.deepEqual([report.changedCount, report.currentCount, report.problems], [3, 0, []]);
  await requireDone(memory);
  const again = await run(memory);
  assert.deepEqual([again.changedCount, again.currentCount], [0, 3]);
});

test("objects that WAL-G wrote are told apart by their content", async () => {
  const memory = await fill(await sodiumCrypter({ current: keyOf(1), header: "random" }));
  assert.equal((await run(memory)).changedCount, 3);
  await requireDone(memory);
  const same = await fill(await sodiumCrypter({ current: keyOf(2), header: "random" }));
  assert.equal((await run(same)).currentCount, 3);
});

test("from one kind to the other, and to other recipients", async () => {
  const memory = await fill(old);
  assert.equal((await run(memory, pgp.both, { decrypters: [old] })).changedCount, 3);
  await requireDone(memory, pgp.both);
  const other = (await pgpCrypters()).both;
  assert.equal((await run(memory, other, { decrypters: [pgp.both] })).changedCount, 3);
  await requireDone(memory, other);
  assert.equal((await run(memory, other)).currentCount, 3);
  assert.equal((await run(memory, current, { decrypters: [other] })).changedCount, 3);
  await requireDone(memory);
});

test("unfinished segments are left alone unless they are asked for", async () => {
  const memory = await fill(old, [PARTIAL]);
  const first = await run(memory);
  assert.deepEqual([first.partialCount, first.changedCount], [1, 0]);
  const second = await run(memory, current, { isPartialTaken: true });
  assert.deepEqual([second.partialCount, second.changedCount], [0, 1]);
});

test("what can't be read is named and stays as it is; the others go on", async () => {
  const memory = await fill(old);
  const damaged = flipped(memory.bytesOf(SEGMENT) ?? Buffer.alloc(0), 90_000);
  await memory.put(SEGMENT, bytesSource(damaged), { signal });
  const foreign = encrypted(memory, await sodiumCrypter({ current: keyOf(9) }));
  await foreign.put(SECOND, bytesSource(contentOf(SECOND)), { signal });
  const report = await run(memory);
  assert.deepEqual(report.problems.map(({ key }) => key).toSorted(), [SEGMENT, SECOND]);
  assert.equal(report.changedCount, 1);
  assert.deepEqual(memory.bytesOf(SEGMENT), damaged);
});

const lost = new StorageError("gone", { isRetryable: false });

/** A process that is killed at a call: this one and all later ones fail. */
function dying(memory: MemoryStorage, method: StorageMethod, call: number, isDone: boolean) {
  const storage = new FaultyStorage(memory);
  storage.fault(
    method,
    call,
    isDone ? { kind: "lose-answer", error: lost } : { kind: "fail", error: lost },
  );
  for (let later = call + 1; later < call + 200; later++) {
    storage.fault(method, later, { kind: "fail", error: lost });
  }
  return storage;
}

for (const method of ["put", "get", "list", "delete"] as const) {
  test(`killed at any ${method}, before or after it, it loses nothing and ends at the next run`, async () => {
    for (let call = 1; ; call++) {
      let isFinished = false;
      for (const isDone of method === "put" || method === "delete" ? [false, true] : [false]) {
        const memory = await fill(old);
        const outcome = await run(dying(memory, method, call, isDone)).catch(
          (error: unknown) => error,
        );
        isFinished = outcome !== lost;
        for (const key of KEYS) {
          const content = await readAll(encrypted(memory, current).get(key, { signal }));
          assert.deepEqual(content, contentOf(key), `${method} ${call}`);
        }
        await run(memory);
        await requireDone(memory);
      }
      if (isFinished) {
        assert.ok(call > 2);
        break;
      }
    }
  });
}

for (const bit of [3, 100, 90_000]) {
  test(`a put that the store garbles (bit ${bit}) is found, and the proved copy takes its place`, async () => {
    const memory = await fill(old);
    const report = await run(garbling(memory, bit));
    assert.equal(report.problems.length, 1);
    assert.match(report.problems[0]?.reason ?? "", /came back changed/);
    const again = await run(memory);
    assert.deepEqual(again.problems, []);
    await requireDone(memory);
  });
}

/** Stores the first object that is put in its place with a wrong bit in it. */
function garbling(memory: MemoryStorage, bit: number): Storage {
  let isDone = false;
  return {
    name: memory.name,
    get: (key, options) => memory.get(key, options),
    stat: (key, options) => memory.stat(key, options),
    list: (prefix, options) => memory.list(prefix, options),
    delete: (keys, options) => memory.delete(keys, options),
    async put(key, body, options) {
      await memory.put(key, body, options);
      if (isDone || key.startsWith(REKEY_FOLDER)) return;
      isDone = true;
      const bytes = flipped(memory.bytesOf(key) ?? Buffer.alloc(0), bit);
      await memory.put(key, bytesSource(bytes), { signal });
    },
    [Symbol.asyncDispose]: () => memory[Symbol.asyncDispose](),
  };
}

test("an object that is deleted meanwhile is not put back", async () => {
  const memory = await fill(old);
  const storage = new FaultyStorage(memory);
  storage.fault("put", 1, {
    kind: "before",
    run: async () => {
      for (const key of KEYS) await memory.delete([key], { signal });
    },
  });
  const report = await run(storage);
  assert.deepEqual([report.changedCount, memory.keys], [0, [PLAIN_KEY]]);
});
