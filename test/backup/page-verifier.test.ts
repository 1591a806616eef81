import assert from "node:assert/strict";
import { truncateSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { test } from "node:test";
import { openForReading } from "../../src/backup/file-content.ts";
import { PageVerifier } from "../../src/backup/page-verifier.ts";
import type { WalkedFile } from "../../src/backup/walk.ts";
import type { Clock } from "../../src/io/clock.ts";
import { pageChecksum } from "../../src/postgres/data-page.ts";
import { lsn } from "../../src/postgres/lsn.ts";
import { PageChecksums } from "../../src/postgres/page-checksums.ts";
import { scratchDirectory } from "../support/scratch-directory.ts";

const PAGE = 8192;
const [START, STOP] = [1000n, 2000n];

function page(position: bigint, block: number, fill = 7): Buffer {
  const bytes = Buffer.alloc(PAGE, fill);
  bytes.writeUInt32LE(0, 0);
  bytes.writeUInt32LE(Number(position), 4);
  bytes.writeUInt16LE(PAGE | 4, 18);
  bytes.writeUInt16LE(pageChecksum(bytes, block), 8);
  return bytes;
}

function damaged(bytes: Buffer): Buffer {
  return Buffer.concat([bytes.subarray(0, 5000), Buffer.from([99]), bytes.subarray(5001)]);
}

interface Verified {
  /** Damaged blocks at the end, by what the verifier says. */
  readonly corrupt: readonly number[];
  /** What goes into the backup. */
  readonly stored: Buffer;
  readonly pauses: number;
}

/** Reads a file of these pages; `onPause` may change the file. */
async function verify(
  pages: readonly Buffer[],
  onPause: (path: string, pause: number) => void = () => {},
  name = "/base/5/16384",
): Promise<Verified> {
  using scratch = scratchDirectory();
  const path = join(scratch.path, "16384");
  writeFileSync(path, Buffer.concat(pages));
  let pauses = 0;
  const clock: Clock = {
    now: () => 0,
    monotonicMs: () => 0,
    sleep: async () => onPause(path, (pauses += 1)),
  };
  const verifier = new PageVerifier({
    sums: await PageChecksums.create(),
    startLsn: lsn(START),
    clock,
    isEveryBlockListed: true,
  });
  using file = openForReading(path);
  assert.ok(file !== undefined);
  const sizeBytes = pages.length * PAGE;
  const base = { mode: 0o600, mtimeNs: 0n, uid: 0, gid: 0 };
  const entry: WalkedFile = { kind: "file", name, path, sizeBytes, ...base };
  const stored = Buffer.alloc(sizeBytes);
  file.readSync(stored, 0);
  const verification = verifier.open(entry, file);
  await verification?.check(stored, 0, { signal: AbortSignal.timeout(120_000) });
  const [found] = verifier.finish(lsn(STOP));
  return { corrupt: found?.blocks.blockNumbers ?? [], stored, pauses };
}

test("right pages, new pages and torn ones that the WAL has are no damage", async () => {
  const pages = [page(1n, 0), Buffer.alloc(PAGE), damaged(page(START, 2)), page(1500n, 3)];
  const { corrupt, pauses } = await verify([...pages, damaged(page(STOP, 4))]);
  assert.deepEqual([corrupt, pauses], [[], 0]);
});

test("a cold page with a wrong checksum is damage, after some looks", async () => {
  const pages = [page(1n, 0), damaged(page(999n, 1)), page(1n, 2), damaged(page(1n, 3))];
  const { corrupt, pauses } = await verify(pages);
  assert.deepEqual(corrupt, [1, 3]);
  assert.ok(pauses >= 2 && pauses < 20, `${pauses} pauses`);
});

test("a page of another place, and one with zeros for a header only, are damage", async () => {
  const headless = damaged(Buffer.alloc(PAGE));
  assert.deepEqual((await verify([page(1n, 0), page(1n, 0), headless])).corrupt, [1, 2]);
});

test("blocks count over all relation segments", async () => {
  const pages = [page(1n, 131_072), page(1n, 1)];
  assert.deepEqual((await verify(pages, undefined, "/base/5/16384.1")).corrupt, [1]);
});

test("a page that was just being written is right in the backup, too", async () => {
  const right = page(999n, 1, 9);
  const { corrupt, stored } = await verify([page(1n, 0), damaged(right)], (path, pause) => {
    if (pause === 2) writeFileSync(path, Buffer.concat([page(1n, 0), right]));
  });
  assert.deepEqual(corrupt, []);
  assert.deepEqual(stored.subarray(PAGE), right);
});

test("a page that was cut off meanwhile is no damage", async () => {
  const { corrupt, stored } = await verify([page(1n, 0), damaged(page(1n, 1))], (path) => {
    truncateSync(path, PAGE);
  });
  assert.deepEqual(corrupt, []);
  assert.deepEqual(stored.subarray(PAGE), Buffer.alloc(PAGE));
});

test("a position that the server has not reached does not excuse a page", async () => {
  assert.deepEqual((await verify([damaged(page(STOP + 1n, 0))])).corrupt, [0]);
});

test("a bad disk is not waited for at every page", async () => {
  const pages = Array.from({ length: 300 }, (_, block) => damaged(page(1n, block)));
  const { corrupt, pauses } = await verify(pages);
  assert.equal(corrupt.length, 300);
  assert.ok(pauses <= 4 * 50, `${pauses} pauses`);
});

for (const name of [
  "/base/5/16384_vm",
  "/base/5/t3_16384",
  "/pg_xact/0000",
  "/base/5/PG_VERSION",
]) {
  test(`${name} has no checksums`, async () => {
    assert.deepEqual((await verify([damaged(page(1n, 0))], undefined, name)).corrupt, []);
  });
}
