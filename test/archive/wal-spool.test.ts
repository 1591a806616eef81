import assert from "node:assert/strict";
import { existsSync, mkdirSync, readdirSync, writeFileSync } from "node:fs";
import { readFile, rm } from "node:fs/promises";
import { join } from "node:path";
import { test } from "node:test";
import { ReceiveDirectory, WalSpool } from "../../src/archive/wal-spool.ts";
import { readAll } from "../../src/io/bytes.ts";
import { describeProcess } from "../../src/io/process-identity.ts";
import { scratchDirectory } from "../support/scratch-directory.ts";

const MIB = 1024 * 1024;
const { signal } = new AbortController();

function create(directory: string): Promise<WalSpool> {
  return WalSpool.create({ directory, timeline: 3, segmentNumber: 5n, segmentBytes: MIB });
}

test("a spool is its segment, zeros where nothing has come", async () => {
  using scratch = scratchDirectory();
  const spool = await create(scratch.path);
  assert.equal(spool.name, "000000030000000000000005");
  assert.equal(spool.startLsn, 0x500000n);
  const bytes = Buffer.alloc(700_000, 7);
  assert.equal(await spool.append(bytes), 700_000);
  assert.equal(spool.receivedLsn, BigInt(0x500000 + 700_000));
  assert.equal(spool.isComplete, false);
  const padded = Buffer.concat([bytes, Buffer.alloc(MIB - bytes.length)]);
  assert.ok(padded.equals(await readFile(spool.path)));
  assert.ok(padded.equals(await readAll(spool.read(700_000, { signal }))));

  assert.equal(await spool.append(bytes), MIB - 700_000);
  assert.equal(spool.isComplete, true);
  assert.equal(await spool.append(bytes), 0);
  assert.ok(Buffer.alloc(MIB, 7).equals(await readAll(spool.read(MIB, { signal }))));
  await spool[Symbol.asyncDispose]();
  assert.deepEqual(readdirSync(scratch.path), []);
});

test("what comes in while it is read does not get into the reading", async () => {
  using scratch = scratchDirectory();
  await using spool = await create(scratch.path);
  await spool.append(Buffer.alloc(1000, 1));
  const chunks: Buffer[] = [];
  for await (const chunk of spool.read(1000, { signal })) {
    chunks.push(Buffer.from(chunk));
    await spool.append(Buffer.alloc(5000, 2));
  }
  const expected = Buffer.concat([Buffer.alloc(1000, 1), Buffer.alloc(MIB - 1000)]);
  assert.ok(Buffer.concat(chunks).equals(expected));
});

test("a file that is gone, and a directory that is gone, are told", async () => {
  using scratch = scratchDirectory();
  await assert.rejects(create(join(scratch.path, "none")), { name: "LocalFileError" });
  await using spool = await create(scratch.path);
  await assert.rejects(create(scratch.path), { name: "LocalFileError", message: /exists/ });
  assert.equal(spool.receivedBytes, 0);
});

test("a directory of ours is removed at the end, those of the dead at the start", async () => {
  using scratch = scratchDirectory();
  const parent = join(scratch.path, "cache");
  const [, , boot = ""] = (describeProcess() ?? "").split(":");
  mkdirSync(join(parent, `receive-1_1_${boot}-abcdef`), { recursive: true });
  mkdirSync(join(parent, `receive-${process.pid}_1_${boot}-abcdef`));
  mkdirSync(join(parent, "receive-unknown-abcdef"));
  writeFileSync(join(parent, "archive.json"), "");
  {
    await using one = await ReceiveDirectory.make(parent);
    await using other = await ReceiveDirectory.make(parent);
    assert.ok(existsSync(one.path) && existsSync(other.path) && one.path !== other.path);
    assert.equal(readdirSync(parent).filter((name) => name.startsWith("receive-")).length, 3);
  }
  assert.deepEqual(readdirSync(parent).toSorted(), ["archive.json", "receive-unknown-abcdef"]);
  await rm(parent, { recursive: true });
});
