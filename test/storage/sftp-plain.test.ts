import assert from "node:assert/strict";
import { mkdir, mkdtemp, readdir, rm } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { after, before, test } from "node:test";
import ssh2 from "ssh2";
import { openStorage } from "../../src/storage/open.ts";
import { patternSource, sha256 } from "../support/bodies.ts";
import { PlainSftpServer } from "../support/plain-sftp-server.ts";
import { textOf, text } from "./contract-lists.ts";
import { storageContract } from "./contract.ts";

const signal = new AbortController().signal;
const MIB = 1024 * 1024;
let directory = "";
let server: PlainSftpServer | undefined;
let count = 0;

before(async () => {
  directory = await mkdtemp(join(tmpdir(), "walnut-plain-sftp-"));
  const { private: key } = ssh2.utils.generateKeyPairSync("ed25519");
  server = await PlainSftpServer.start(Buffer.from(key));
});
after(async () => {
  await server?.[Symbol.asyncDispose]();
  await rm(directory, { recursive: true, force: true });
});

async function open() {
  const path = join(directory, `store ${count++}`);
  await mkdir(path);
  const config = {
    kind: "sftp",
    host: "127.0.0.1",
    port: server?.port ?? 0,
    username: "anybody",
    password: "any",
    path,
    isHostKeyChecked: false,
  } as const;
  const storage = await openStorage(config, {
    signal,
    requestTimeoutMs: 20_000,
    uploadConcurrency: 4,
  });
  return { storage, path, close: async () => await storage[Symbol.asyncDispose]() };
}

storageContract("sftp without extensions", open, {
  isCreateAtomic: false,
  isReplaceAtomic: false,
  areVersionsCoarse: true,
  keyCount: 101,
});

test("a write that is refused fails the put, however late the answer is looked at", async () => {
  const { storage, path, close } = await open();
  assert.ok(server !== undefined);
  for (const refused of [0, MIB, 3 * MIB - 20_000]) {
    server.refusesWritesAfter = refused;
    await assert.rejects(storage.put("a", patternSource(3 * MIB), { signal }), {
      name: "StorageError",
      isRetryable: false,
      message: /^cannot write .*\/a: the server says "Failure"$/,
    });
    server.refusesWritesAfter = Number.POSITIVE_INFINITY;
    assert.deepEqual(await readdir(path), []);
  }
  await close();
});

test("a server that gives less than was asked for is asked again", async () => {
  const { storage, close } = await open();
  assert.ok(server !== undefined);
  await storage.put("a", patternSource(MIB), { signal });
  server.readBytesMax = 7001;
  const stored = await sha256(storage.get("a", { signal }));
  server.readBytesMax = Number.POSITIVE_INFINITY;
  assert.equal(stored, await sha256(patternSource(MIB).open()));
  await close();
});

test("an object is replaced without the extension for it, and nothing is left over", async () => {
  const { storage, path, close } = await open();
  await storage.put("a", text("first"), { signal });
  await storage.put("a", text("second"), { signal });
  assert.equal(await textOf(storage, "a"), "second");
  assert.deepEqual(await readdir(path), ["a"]);
  await close();
});
