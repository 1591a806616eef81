import assert from "node:assert/strict";
import { test } from "node:test";
import { CreateKeyCommand, KMSClient } from "@aws-sdk/client-kms";
import { loadChaCha, openAwsKms } from "../../src/crypto/aws-kms.ts";
import { dareBytes, plainBytesOfDare, openDare, sealDare } from "../../src/crypto/dare.ts";
import { FormatError, TruncatedError, WrongKeyError } from "../../src/errors.ts";
import { bytesSource, readAll } from "../../src/io/bytes.ts";
import { inChunks, sampleContent } from "../support/content.ts";
import { FakeKms } from "../support/fake-kms.ts";
import { TcpFaultProxy } from "../support/fault-proxy.ts";
import { leaveOut } from "../support/left-out.ts";
import { availableS3Servers, startS3Server } from "../support/s3-server.ts";
import { decrypt, encrypt, flipped, keyOf, signal } from "./crypters.ts";

const PACKAGE = 65_536;
const key = keyOf(1);

const seal = async (plain: Buffer): Promise<Buffer> =>
  await readAll(sealDare(inChunks(plain, 70_001), { key, signal }));

const open = async (stored: Uint8Array): Promise<Buffer> =>
  await readAll(openDare(inChunks(stored, 1009), { key, signal, openChaCha: loadChaCha }));

test("DARE gives back what was sealed", async () => {
  for (const sizeBytes of [0, 1, PACKAGE - 1, PACKAGE, PACKAGE + 1, 20 * PACKAGE + 7]) {
    const plain = sampleContent(sizeBytes);
    const stored = await seal(plain);
    assert.equal(stored.length, dareBytes(sizeBytes));
    assert.equal(plainBytesOfDare(stored.length), sizeBytes);
    assert.deepEqual(await open(stored), plain);
  }
});

test("DARE: each changed bit is found", async () => {
  const stored = await seal(Buffer.from("content"));
  for (let bit = 0; bit < stored.length * 8; bit++) {
    await assert.rejects(open(flipped(stored, bit)), Error, `bit ${bit}`);
  }
});

test("a changed bit of an object is found, of its data key and of what follows", async () => {
  await using kms = await FakeKms.start();
  const crypter = await kms.openCrypter({ signal });
  const stored = await encrypt(crypter, Buffer.from("content"));
  // Each other data key is another question to the service.
  const sealedBytes = stored.length - dareBytes("content".length);
  for (let byte = 0; byte < stored.length; byte += byte < sealedBytes ? 8 : 1) {
    await assert.rejects(
      decrypt(crypter, flipped(stored, byte * 8 + (byte % 8))),
      (error) => error instanceof FormatError || error instanceof WrongKeyError,
      `byte ${byte} of ${stored.length}`,
    );
  }
});

test("DARE: what is cut off, left out, doubled or swapped is found", async () => {
  const stored = await seal(sampleContent(3 * PACKAGE + 9));
  const size = PACKAGE + 32;
  const [one, two, three] = [0, 1, 2].map((index) =>
    stored.subarray(index * size, (index + 1) * size),
  );
  const last = stored.subarray(3 * size);
  assert.ok(one !== undefined && two !== undefined && three !== undefined);
  for (const parts of [
    [one, two, three],
    [one, two, three, last.subarray(0, -1)],
    [one, two, three.subarray(0, 100)],
    [one],
  ]) {
    await assert.rejects(open(Buffer.concat(parts)), TruncatedError);
  }
  for (const parts of [
    [two, three, last],
    [one, three, last],
    [one, two, last],
    [two, one, three, last],
    [one, one, two, three, last],
    [one, two, three, last, last],
  ]) {
    await assert.rejects(open(Buffer.concat(parts)), FormatError);
  }
});

test("DARE: what sio writes without AES in hardware is read", async () => {
  const openChaCha = await loadChaCha();
  const header = Buffer.from("2001060080000102030405060708090a", "hex");
  // Made by Debian's libsodium: crypto_aead_chacha20poly1305_ietf_encrypt.
  const sealed = Buffer.from("35c3a3a66cf03bc5d83d038904902e5692029a7f7ff21f", "hex");
  const nonce = header.subarray(4);
  assert.deepEqual(
    openChaCha(sealed, nonce, header.subarray(0, 4), key),
    new Uint8Array(Buffer.from("content")),
  );
  assert.deepEqual(await open(Buffer.concat([header, sealed])), Buffer.from("content"));
  await assert.rejects(open(flipped(Buffer.concat([header, sealed]), 150)), FormatError);
});

test("a key service that never answers ends in time", async () => {
  await using silent = await TcpFaultProxy.start({ host: "127.0.0.1", port: 1 });
  silent.fault = { isSilent: true };
  const before = process.env["AWS_ENDPOINT_URL_KMS"];
  process.env["AWS_ENDPOINT_URL_KMS"] = `http://127.0.0.1:${silent.port}`;
  try {
    const credentials = { accessKeyId: "any", secretAccessKey: "any" };
    const method = { kind: "aws-kms", keyId: "k", region: "us-east-1", ...credentials } as const;
    const crypter = await openAwsKms(method, { signal, requestTimeoutMs: 200 });
    for (const call of [encrypt(crypter, Buffer.from("x")), decrypt(crypter, Buffer.alloc(300))]) {
      await assert.rejects(call, { name: "StorageError", message: /no answer within 0.2 s$/ });
    }
    const reason = new Error("told to stop");
    const stopped = { name: "a", signal: AbortSignal.abort(reason) };
    await assert.rejects(
      readAll(crypter.encrypt(bytesSource(Buffer.from("x")).open(), stopped)),
      reason,
    );
  } finally {
    if (before === undefined) delete process.env["AWS_ENDPOINT_URL_KMS"];
    else process.env["AWS_ENDPOINT_URL_KMS"] = before;
  }
});

/** moto's answers have another length than those of AWS. */
const MOTO_SEALED_KEY_BYTES = 96;

const hasMoto = (await availableS3Servers()).includes("moto");
if (hasMoto) test("a data key of AWS KMS", roundTripByKms);
else leaveOut("AWS KMS", "moto is not installed (scripts/test-servers.sh)");

async function roundTripByKms(): Promise<void> {
  await using server = await startS3Server("moto");
  const before = process.env["AWS_ENDPOINT_URL_KMS"];
  process.env["AWS_ENDPOINT_URL_KMS"] = server.endpoint;
  try {
    const credentials = { accessKeyId: "any", secretAccessKey: "any" };
    const client = new KMSClient({ region: "us-east-1", credentials });
    const { KeyMetadata } = await client.send(new CreateKeyCommand({}));
    client.destroy();
    const method = {
      kind: "aws-kms",
      keyId: KeyMetadata?.KeyId ?? "",
      region: "us-east-1",
    } as const;
    const settings = { signal, sealedKeyBytes: MOTO_SEALED_KEY_BYTES };
    const writer = await openAwsKms({ ...method, ...credentials }, settings);
    const reader = await openAwsKms({ ...method, ...credentials }, settings);

    const plain = sampleContent(200_000);
    const [one, two] = [await encrypt(writer, plain), await encrypt(writer, plain)];
    assert.equal(one.length, writer.encryptedBytes(plain.length));
    assert.ok(writer.recognises(one));
    // One question a process, as WAL-G asks it.
    const sealedKey = one.subarray(0, MOTO_SEALED_KEY_BYTES);
    assert.deepEqual(two.subarray(0, MOTO_SEALED_KEY_BYTES), sealedKey);
    assert.notDeepEqual(one, two);
    assert.deepEqual(await decrypt(reader, one), plain);
    assert.deepEqual(await decrypt(reader, two), plain);

    await assert.rejects(decrypt(reader, flipped(one, 50 * 8)), { code: "wrong-key" });
    await assert.rejects(decrypt(reader, one.subarray(0, 40)), TruncatedError);
    const exact = await openAwsKms({ ...method, ...credentials }, { signal });
    await assert.rejects(encrypt(exact, plain), {
      code: "config",
      message: /and the format has 184/,
    });
    const missing = await openAwsKms(
      { ...method, ...credentials, keyId: "00000000-0000-0000-0000-000000000000" },
      settings,
    );
    await assert.rejects(encrypt(missing, plain), { code: "config" });
  } finally {
    if (before === undefined) delete process.env["AWS_ENDPOINT_URL_KMS"];
    else process.env["AWS_ENDPOINT_URL_KMS"] = before;
  }
}
