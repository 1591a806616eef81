import assert from "node:assert/strict";
import { test } from "node:test";
import { formatGroup, parseGroup } from "../../src/catalogue/commit-index.ts";
import { type VerifyOptions, verifyRepository } from "../../src/catalogue/verify.ts";
import { codecByExtension } from "../../src/codec/table.ts";
import type { Crypter } from "../../src/crypto/crypter.ts";
import { bytesSource, readAll } from "../../src/io/bytes.ts";
import { systemClock } from "../../src/io/clock.ts";
import { createHasher } from "../../src/io/hash.ts";
import { COMMIT_INDEX_FOLDER, verifyMemoryKey } from "../../src/layout/keys.ts";
import { isSecretKey } from "../../src/layout/secrecy.ts";
import { EncryptedStorage } from "../../src/storage/encrypted.ts";
import type { Storage } from "../../src/storage/storage.ts";
import { pgpCrypters, sodiumCrypter } from "../crypto/crypters.ts";
import { FakeKms } from "../support/fake-kms.ts";
import { MemoryStorage } from "../support/memory-storage.ts";
import { type Random, seededRandom } from "../support/random.ts";
import { fillExtras, fillRepository } from "../support/synthetic-repository.ts";

const isLong = process.env["WALNUT_LONG"] !== undefined;
const FLIPS = isLong ? 200 : 3;
const options: VerifyOptions = {
  level: "full",
  jobs: 4,
  codecJobs: 1,
  isRelearning: false,
  clock: systemClock,
  onProgress: () => {},
  signal: AbortSignal.timeout(3_600_000),
};

/** What it needs while the test runs goes onto the stack. */
type MakeCrypter = (stack: AsyncDisposableStack) => Promise<Crypter | undefined>;

const encryptions: Readonly<Record<string, MakeCrypter>> = {
  none: async () => undefined,
  libsodium: async () => await sodiumCrypter(),
  openpgp: async () => (await pgpCrypters()).both,
  "aws-kms": async (stack) => {
    const kms = stack.use(await FakeKms.start());
    return await kms.openCrypter({ signal: options.signal });
  },
};

function withKey(storage: MemoryStorage, crypter: Crypter | undefined): Storage {
  if (crypter === undefined) return storage;
  const rules = { crypter, decrypters: [], isSecret: isSecretKey, isPlainRead: false };
  return new EncryptedStorage(storage, rules);
}

async function put(storage: MemoryStorage, key: string, bytes: Buffer): Promise<void> {
  await storage.put(key, bytesSource(bytes), { signal: options.signal });
}

function copyOf(storage: MemoryStorage): ReadonlyMap<string, Buffer> {
  return new Map(
    storage.keys.map((key) => [key, Buffer.from(storage.bytesOf(key) ?? Buffer.alloc(0))]),
  );
}

/**
 * An unfinished segment may end anywhere, so that a bit that ends its records looks like an end:
 * only a compression with a checksum, or encryption, tells. We store no other; WAL-G does.
 */
function isVouchedFor(key: string, isEncrypted: boolean): boolean {
  return isEncrypted || !/\.partial(\.br|\.lzma)?$/.test(key);
}

/** In turn: every object as likely as any other, every byte as likely as any other. */
function pickKey(objects: ReadonlyMap<string, Buffer>, random: Random, index: number): string {
  const keys = [...objects.keys()];
  if (index % 2 === 0) return keys[Math.floor(random.next() * keys.length)] ?? "";
  const total = [...objects.values()].reduce((sum, { length }) => sum + length, 0);
  let left = random.next() * total;
  return keys.find((key) => (left -= objects.get(key)?.length ?? 0) < 0) ?? "";
}

/** As archiving leaves it: indexes made of local segments, which know no stored object. */
async function forgetProof(storage: MemoryStorage): Promise<void> {
  const hasher = await createHasher("xxh64");
  await storage.delete([verifyMemoryKey], options);
  for (const key of storage.keys.filter((one) => one.startsWith(COMMIT_INDEX_FOLDER))) {
    const entries = parseGroup(storage.bytesOf(key) ?? Buffer.alloc(0), hasher).values();
    const local = entries.map((entry) => ({ ...entry, key: undefined, stored: undefined }));
    await put(storage, key, formatGroup(local, hasher));
  }
}

async function flip(storage: MemoryStorage, key: string, random: Random): Promise<string> {
  const bytes = Buffer.from(storage.bytesOf(key) ?? Buffer.alloc(0));
  const at = Math.floor(random.next() * bytes.length);
  const bit = Math.floor(random.next() * 8);
  bytes[at] = (bytes[at] ?? 0) ^ (1 << bit);
  await put(storage, key, bytes);
  return `seed ${random.seed}: bit ${bit} of byte ${at} of ${key} (${bytes.length} bytes)`;
}

/**
 * A few bits of a compressed stream have no meaning. In a segment only the hash of what an earlier
 * verify read tells of these.
 */
async function decompressesAlike(
  storage: MemoryStorage,
  key: string,
  original: Buffer | undefined,
): Promise<boolean> {
  const [, extension = ""] = /^wal_005\/[0-9A-F]{24}(?:\.partial)?\.(\w+)$/.exec(key) ?? [];
  const codec = codecByExtension(extension);
  const [one, other] = [original, storage.bytesOf(key)];
  if (codec === undefined || one === undefined || other === undefined) return false;
  const plain = (bytes: Buffer) =>
    readAll(codec.decompress(bytesSource(bytes).open(), { jobs: 1, signal: options.signal }));
  return (await plain(one)).equals(await plain(other));
}

for (const [name, makeCrypter] of Object.entries(encryptions)) {
  test(`verify --full finds a flipped bit anywhere, encryption ${name}`, async () => {
    const random = seededRandom();
    const stored = new MemoryStorage();
    await using stack = new AsyncDisposableStack();
    const crypter = await makeCrypter(stack);
    const storage = withKey(stored, crypter);
    await fillRepository(storage, random);
    await fillExtras(storage);
    const isShort = !isLong && crypter !== undefined;
    for (const round of isShort ? [1] : [1, 2]) {
      const { findings } = await verifyRepository(storage, options);
      assert.deepEqual(findings, [], `clean, round ${round}`);
    }
    for (const proof of isShort ? ["without"] : ["with", "without"]) {
      if (proof === "without") await forgetProof(stored);
      const objects = copyOf(stored);
      const vouched = new Map(
        [...objects].filter(([key]) => isVouchedFor(key, crypter !== undefined)),
      );
      for (let index = 0; index < FLIPS; index += 1) {
        const key = pickKey(vouched, random, index);
        const what = await flip(stored, key, random);
        const { findings } = await verifyRepository(storage, options);
        const isFound =
          findings.some(({ kind }) => kind !== "note") ||
          (proof === "without" && (await decompressesAlike(stored, key, objects.get(key))));
        assert.ok(isFound, `${proof} an earlier proof, ${what}`);
        for (const [known, content] of objects) await put(stored, known, content);
        const fresh = stored.keys.filter((found) => !objects.has(found));
        await stored.delete(fresh, options);
      }
    }
  });
}
