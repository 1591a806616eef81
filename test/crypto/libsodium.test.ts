import assert from "node:assert/strict";
import { existsSync } from "node:fs";
import { test } from "node:test";
import { fc } from "../support/property.ts";
import { headerKeyId, isHeaderOfName, makeHeader } from "../../src/crypto/libsodium-header.ts";
import { libsodiumKeyId } from "../../src/crypto/libsodium-key.ts";
import { FormatError, TruncatedError, WrongKeyError } from "../../src/errors.ts";
import { sampleContent } from "../support/content.ts";
import { leaveOut } from "../support/left-out.ts";
import { runTool } from "../support/tools.ts";
import { decrypt, encrypt, flipped, keyOf, sodiumCrypter } from "./crypters.ts";

const MESSAGE = 8192;
const SEALED = 8209;

test("gives back what was encrypted, of any length and in any chunks", async () => {
  const crypter = await sodiumCrypter();
  const edges = [0, 1, MESSAGE - 1, MESSAGE, MESSAGE + 1, 128 * MESSAGE, 128 * MESSAGE + 1];
  await fc.assert(
    fc.asyncProperty(
      fc.oneof(fc.constantFrom(...edges), fc.nat(3 * MESSAGE)),
      fc.integer({ min: 1, max: 20_000 }),
      async (sizeBytes, chunkBytes) => {
        const plain = sampleContent(sizeBytes);
        const stored = await encrypt(crypter, plain, { chunkBytes });
        assert.equal(stored.length, crypter.encryptedBytes(sizeBytes));
        assert.equal(crypter.plainBytes(stored.length), sizeBytes);
        assert.deepEqual(await decrypt(crypter, stored, { chunkBytes: chunkBytes + 7 }), plain);
      },
    ),
    { numRuns: 40, examples: edges.map((size) => [size, 8209]) },
  );
});

test("no two objects of the same content are alike", async () => {
  const crypter = await sodiumCrypter();
  const objects = await Promise.all(
    Array.from({ length: 20 }, async () =>
      (await encrypt(crypter, Buffer.from("same"))).toString("hex"),
    ),
  );
  assert.equal(new Set(objects).size, 20);
});

for (const header of ["named", "id", "random"] as const) {
  test(`each changed bit is found, with a header that is ${header}`, async () => {
    const crypter = await sodiumCrypter({ header });
    const stored = await encrypt(crypter, sampleContent(60));
    for (let bit = 0; bit < stored.length * 8; bit++) {
      await assert.rejects(
        decrypt(crypter, flipped(stored, bit)),
        (error) => error instanceof FormatError || error instanceof WrongKeyError,
        `bit ${bit}`,
      );
    }
  });
}

test("a changed bit is found in whatever message it is", async () => {
  const crypter = await sodiumCrypter();
  const stored = await encrypt(crypter, sampleContent(3 * MESSAGE + 100));
  const starts = [0, 24, 24 + SEALED, 24 + 2 * SEALED, 24 + 3 * SEALED, stored.length - 1];
  const bits = starts.flatMap((start) => [start * 8, start * 8 + 7, (start - 1) * 8 + 3]);
  for (const bit of bits.filter((one) => one >= 0)) {
    await assert.rejects(
      decrypt(crypter, flipped(stored, bit)),
      (error) => error instanceof FormatError || error instanceof WrongKeyError,
      `bit ${bit}`,
    );
  }
});

test("what is cut off is found, at each border of a message, too", async () => {
  const crypter = await sodiumCrypter();
  for (const sizeBytes of [2 * MESSAGE, 2 * MESSAGE + 40]) {
    const stored = await encrypt(crypter, sampleContent(sizeBytes));
    const borders = [0, 1, 23, 24, 40, 41, 24 + SEALED, 24 + SEALED + 17, 24 + 2 * SEALED];
    for (const length of [...borders, stored.length - 1]) {
      await assert.rejects(
        decrypt(crypter, stored.subarray(0, length)),
        (error) => error instanceof TruncatedError && error.storedBytes === length,
        `${length} of ${stored.length}`,
      );
    }
  }
});

test("messages that are left out, doubled, swapped or added are found", async () => {
  const crypter = await sodiumCrypter();
  const stored = await encrypt(crypter, sampleContent(3 * MESSAGE + 9));
  const header = stored.subarray(0, 24);
  const [one, two, three] = [0, 1, 2].map((index) =>
    stored.subarray(24 + index * SEALED, 24 + (index + 1) * SEALED),
  );
  const last = stored.subarray(24 + 3 * SEALED);
  assert.ok(one !== undefined && two !== undefined && three !== undefined);
  const other = await encrypt(crypter, sampleContent(3 * MESSAGE + 9));
  for (const parts of [
    [header, two, three, last],
    [header, one, three, last],
    [header, one, two, last],
    [header, one, one, two, three, last],
    [header, two, one, three, last],
    [header, one, two, three, last, last],
    [header, one, two, three, last, Buffer.of(0)],
    [other.subarray(0, 24), one, two, three, last],
    [header, one, other.subarray(24 + SEALED)],
  ]) {
    await assert.rejects(decrypt(crypter, Buffer.concat(parts)), FormatError);
  }
});

test("an object that was moved to another name is found, unless names are not asked for", async () => {
  const [crypter, tolerant] = await Promise.all([sodiumCrypter(), sodiumCrypter({ header: "id" })]);
  const plain = sampleContent(100);
  const stored = await encrypt(crypter, plain, { name: "wal_005/A.zst" });
  await assert.rejects(decrypt(crypter, stored, { name: "wal_005/B.zst" }), {
    code: "format",
    message: /encrypted under another name than wal_005\/B\.zst/,
    hint: /WALNUT_LIBSODIUM_HEADER=id/,
  });
  assert.deepEqual(await decrypt(tolerant, stored, { name: "wal_005/B.zst" }), plain);
  // WAL-G's copy composer gives parts this name.
  const name = "basebackups_005/b/tar_partitions/copy_0.tar.zst";
  assert.deepEqual(await decrypt(crypter, stored, { name }), plain);
  // What others wrote names nothing.
  const foreign = await encrypt(await sodiumCrypter({ header: "random" }), plain);
  assert.deepEqual(await decrypt(crypter, foreign, { name: "wal_005/B.zst" }), plain);
});

test("a header tells its key to everyone, and its name to who has the key", () => {
  const key = keyOf(1);
  const named = makeHeader("named", key, "a");
  assert.equal(headerKeyId(named), libsodiumKeyId(key));
  assert.equal(headerKeyId(makeHeader("id", key, "a")), libsodiumKeyId(key));
  assert.ok(isHeaderOfName(named, key, "a"));
  assert.ok(!isHeaderOfName(named, key, "b"));
  assert.ok(isHeaderOfName(makeHeader("id", key, "a"), key, "b"));
  // By chance one in 32,000 looks like ours.
  const random = Array.from({ length: 100 }, () => headerKeyId(makeHeader("random", key, "a")));
  assert.ok(random.filter((id) => id === undefined).length > 95);
});

test("a wrong key is named before the first byte, an old one fits", async () => {
  const plain = sampleContent(2 * MESSAGE);
  const stored = await encrypt(await sodiumCrypter({ current: keyOf(1) }), plain);
  const [mine, other] = [libsodiumKeyId(keyOf(1)), libsodiumKeyId(keyOf(2))];
  const wrong = await sodiumCrypter({ current: keyOf(2) });
  await assert.rejects(decrypt(wrong, stored), {
    code: "wrong-key",
    message: new RegExp(`^wrong key \\(id ${mine}, have ${other}\\)`),
    hint: /WALNUT_LIBSODIUM_OLD_KEY_PATHS/,
  });
  const foreign = await encrypt(await sodiumCrypter({ header: "random" }), plain);
  await assert.rejects(decrypt(wrong, foreign), {
    code: "wrong-key",
    message: /does not name its key, have/,
  });
  const both = await sodiumCrypter({ current: keyOf(2), previous: [keyOf(3), keyOf(1)] });
  assert.deepEqual(await decrypt(both, stored), plain);
  assert.deepEqual(await decrypt(both, foreign), plain);
  assert.deepEqual(both.neededKeyIds(stored), [mine]);
});

/** Debian's library, by way of Python: an implementation that is not ours. */
const PYTHON = "/usr/bin/python3";
const LIBRARY = "/usr/lib/x86_64-linux-gnu/libsodium.so.23";
const READER = `
import ctypes, sys
na = ctypes.CDLL("${LIBRARY}")
key = bytes.fromhex(sys.argv[2])
state = ctypes.create_string_buffer(na.crypto_secretstream_xchacha20poly1305_statebytes())
tag = ctypes.c_ubyte()
data = sys.stdin.buffer.read()
u64 = ctypes.c_ulonglong
if sys.argv[1] == "open":
    assert na.crypto_secretstream_xchacha20poly1305_init_pull(state, data[:24], key) == 0
    at = 24
    while True:
        piece = data[at:at + 8209]
        out = ctypes.create_string_buffer(8192)
        assert na.crypto_secretstream_xchacha20poly1305_pull(
            state, out, None, ctypes.byref(tag), piece, u64(len(piece)), None, u64(0)) == 0, at
        sys.stdout.buffer.write(out.raw[:len(piece) - 17])
        at += len(piece)
        assert (tag.value == 3) == (len(piece) < 8209)
        if tag.value == 3: break
    assert at == len(data)
else:
    header = ctypes.create_string_buffer(24)
    na.crypto_secretstream_xchacha20poly1305_init_push(state, header, key)
    sys.stdout.buffer.write(header.raw)
    for at in range(0, len(data) // 8192 * 8192 + 1, 8192):
        piece = data[at:at + 8192]
        out = ctypes.create_string_buffer(len(piece) + 17)
        na.crypto_secretstream_xchacha20poly1305_push(
            state, out, None, piece, u64(len(piece)), None, u64(0), 3 if len(piece) < 8192 else 0)
        sys.stdout.buffer.write(out.raw)
`;

if (!existsSync(LIBRARY) || !existsSync(PYTHON)) {
  leaveOut("libsodium of Debian", `${LIBRARY} or ${PYTHON} is not installed`);
} else {
  test("Debian's libsodium reads what we write, and we what it writes", async () => {
    const key = keyOf(7);
    const crypter = await sodiumCrypter({ current: key });
    for (const sizeBytes of [0, 1, MESSAGE - 1, MESSAGE, 2 * MESSAGE + 5]) {
      const plain = sampleContent(sizeBytes);
      const words = (mode: string) => ["-c", READER, mode, key.toString("hex")];
      const stored = await encrypt(crypter, plain);
      assert.deepEqual(await runTool(PYTHON, words("open"), stored), plain);
      const sealed = await runTool(PYTHON, words("seal"), plain);
      assert.deepEqual(await decrypt(crypter, sealed), plain);
    }
  });
}
