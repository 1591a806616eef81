/** Archiving through encryption: what is compared, refused and named, with every kind of key. */
import assert from "node:assert/strict";
import { mkdtempSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { after, beforeEach, test } from "node:test";
import { fetchWal } from "../../src/archive/fetch.ts";
import { pushWal } from "../../src/archive/push.ts";
import { codecOf } from "../../src/codec/table.ts";
import type { Crypter, Decrypter } from "../../src/crypto/crypter.ts";
import { bytesSource } from "../../src/io/bytes.ts";
import { silentLog } from "../../src/io/log.ts";
import { isSecretKey } from "../../src/layout/secrecy.ts";
import { borrowed } from "../../src/storage/overlay.ts";
import { EncryptedStorage } from "../../src/storage/encrypted.ts";
import type { Storage } from "../../src/storage/storage.ts";
import { flipped, keyOf, pgpCrypters, signal, sodiumCrypter } from "../crypto/crypters.ts";
import { patternBytes } from "../support/bodies.ts";
import { FakeKms } from "../support/fake-kms.ts";
import { MemoryStorage } from "../support/memory-storage.ts";
import { writeWal } from "../support/wal-writer.ts";

const SEGMENT_BYTES = 1024 * 1024;
const directory = mkdtempSync(join(tmpdir(), "walnut-encrypted-"));
after(() => rmSync(directory, { recursive: true }));

// Not compressible, so that an object has many messages.
const records = Array.from({ length: 300 }, (_, index) => ({
  dataBytes: 5000,
  data: patternBytes(5000, index),
}));
const wal = writeWal({ segmentBytes: SEGMENT_BYTES, records });
const [first, second] = wal.segments;
assert.ok(first !== undefined && second !== undefined);
const KEY = `wal_005/${first.name}.zst`;
const OTHER_KEY = `wal_005/${second.name}.zst`;

const sodium = await sodiumCrypter();
const pgp = await pgpCrypters();
const kms = await FakeKms.start();
after(() => kms[Symbol.asyncDispose]());
const kmsCrypter = await kms.openCrypter({ signal });

let memory: MemoryStorage;
beforeEach(() => {
  memory = new MemoryStorage();
});

function storage(crypter?: Crypter, decrypters: readonly Decrypter[] = [], isPlainRead = false) {
  const rules = { decrypters, isSecret: isSecretKey, isPlainRead };
  return new EncryptedStorage(memory, crypter === undefined ? rules : { ...rules, crypter });
}

const common = {
  codecJobs: 1,
  cacheDirectory: join(directory, "cache"),
  timeoutMs: 60_000,
  log: silentLog,
  signal,
};

async function push(target: Storage, segment: { name: string; bytes: Uint8Array }) {
  const path = join(directory, segment.name);
  writeFileSync(path, segment.bytes);
  const codec = codecOf("zstd");
  return await pushWal(target, { path, name: segment.name }, { ...common, codec });
}

async function fetch(target: Storage, { name }: { name: string }): Promise<Buffer> {
  const path = join(directory, "fetched");
  rmSync(path, { force: true });
  await fetchWal(target, name, path, common);
  return readFileSync(path);
}

async function damage(key: string, change: (bytes: Buffer) => Buffer): Promise<void> {
  const bytes = memory.bytesOf(key);
  assert.ok(bytes !== undefined);
  await memory.put(key, bytesSource(change(Buffer.from(bytes))), { signal });
}

for (const [kind, writer, reader] of [
  ["libsodium", sodium, sodium],
  ["OpenPGP", pgp.both, pgp.both],
  ["OpenPGP with public keys only", pgp.publicOnly, pgp.both],
] as const) {
  test(`${kind}: the same file again is the same, another one a conflict`, async () => {
    assert.equal(await push(storage(writer), first), "archived");
    const stored = memory.bytesOf(KEY);
    assert.equal(await push(storage(writer), first), "already archived");
    // What follows the last record has no meaning, for a note neither.
    const last = { name: second.name, bytes: Buffer.from(second.bytes) };
    assert.equal(await push(storage(writer), last), "archived");
    last.bytes.fill(0xa5, SEGMENT_BYTES - 100);
    assert.equal(await push(storage(writer), last), "already archived");
    const changed = { name: first.name, bytes: flipped(first.bytes, 700_000 * 8) };
    await assert.rejects(push(storage(writer), changed), { code: "conflict" });
    assert.equal(memory.bytesOf(KEY), stored);
    assert.deepEqual(await fetch(storage(reader), first), Buffer.from(first.bytes));
  });
}

test("the daemon, which lends its storage, recognises what it can't read", async () => {
  const lent = borrowed(storage(pgp.publicOnly));
  assert.equal(await push(lent, first), "archived");
  assert.equal(await push(lent, first), "already archived");
});

test("an encrypted object that is cut off is replaced, wherever it ends", async () => {
  for (const crypter of [sodium, pgp.both, kmsCrypter]) {
    await push(storage(crypter), first);
    const { length = 0 } = memory.bytesOf(KEY) ?? {};
    for (const size of [0, 20, 24, 24 + 8209, length - 1]) {
      await damage(KEY, (bytes) => bytes.subarray(0, size));
      assert.equal(await push(storage(crypter), first), "leftover replaced", `${size}`);
      assert.deepEqual(await fetch(storage(crypter), first), Buffer.from(first.bytes));
    }
    await memory.delete([KEY], { signal });
  }
});

test("a changed bit is damage, for a push and for a fetch", async () => {
  for (const crypter of [sodium, pgp.both, kmsCrypter]) {
    memory = new MemoryStorage();
    await push(storage(crypter), first);
    await damage(KEY, (bytes) => flipped(bytes, 5000 * 8));
    const message = crypter === pgp.both ? /./ : /not authentic/;
    await assert.rejects(fetch(storage(crypter), first), { code: "damaged", message });
    await assert.rejects(push(storage(crypter), first), { code: "damaged" });
  }
});

test("a segment under another's name is found by its header, and by its name without reading it", async () => {
  for (const [crypter, message] of [
    [sodium, /encrypted under another name/],
    [await sodiumCrypter({ header: "random" }), /address|name|segment/],
    [pgp.both, /address|name|segment/],
    [kmsCrypter, /address|name|segment/],
  ] as const) {
    memory = new MemoryStorage();
    await push(storage(crypter), first);
    await push(storage(crypter), second);
    const swapped = memory.bytesOf(OTHER_KEY);
    await damage(KEY, () => swapped ?? Buffer.alloc(0));
    await assert.rejects(fetch(storage(crypter), first), { code: "damaged", message });
  }
});

test("a wrong key and no key are said on the first object, with the ids", async () => {
  await push(storage(sodium), first);
  const other = await sodiumCrypter({ current: keyOf(2) });
  const [own] = sodium.ownKeyIds;
  for (const [target, message] of [
    [storage(other), new RegExp(`wrong key \\(id ${own}, have ${other.ownKeyIds[0]}\\)`)],
    [storage(pgp.both), /encrypted in another way; have openpgp/],
    [storage(), new RegExp(`with libsodium and the key of id ${own}, and no key is configured`)],
  ] as const) {
    const expected = { code: "wrong-key", message };
    await assert.rejects(fetch(target, first), expected);
    await assert.rejects(push(target, first), expected);
  }
  // WAL-G's object names no key.
  memory = new MemoryStorage();
  await push(storage(await sodiumCrypter({ header: "random" })), first);
  await assert.rejects(fetch(storage(), first), {
    code: "damaged",
    message: /or it is encrypted and no key/,
  });
});

test("old keys of any kind open old objects", async () => {
  await push(storage(sodium), first);
  await push(storage(pgp.publicOnly), second);
  const current = await sodiumCrypter({ current: keyOf(2), previous: [keyOf(1)] });
  const target = storage(current, [pgp.both]);
  assert.deepEqual(await fetch(target, first), Buffer.from(first.bytes));
  // OpenPGP's objects are not even tried with libsodium's keys.
  const reader = storage(undefined, [pgp.both, current]);
  assert.deepEqual(await fetch(reader, second), Buffer.from(second.bytes));
});

test("a plain object where a key is configured is refused, unless it is asked for", async () => {
  await push(storage(), first);
  for (const crypter of [sodium, pgp.both]) {
    await assert.rejects(fetch(storage(crypter), first), {
      code: "wrong-key",
      message: /is not encrypted, although a key is configured/,
      hint: /WALNUT_READ_UNENCRYPTED=true/,
    });
    assert.deepEqual(await fetch(storage(crypter, [], true), first), Buffer.from(first.bytes));
  }
});
