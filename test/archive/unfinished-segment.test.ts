/**
 * A standby with archive_mode = always hands over what restore_command gave it of the unfinished
 * segment at the end of the archive, under the name of the whole one.
 */
import assert from "node:assert/strict";
import { join } from "node:path";
import { afterEach, beforeEach, test } from "node:test";
import { formatLsn, lsn } from "../../src/postgres/lsn.ts";
import { parseSegmentName, segmentStart } from "../../src/postgres/wal-file.ts";
import { walkSegment } from "../../src/postgres/wal-record.ts";
import { changeControl, IN_ARCHIVE_RECOVERY, IN_PRODUCTION } from "../support/control-file.ts";
import { recordWal, walFile } from "../support/real-wal.ts";
import { flipBit, openWorkbench, type Workbench } from "./workbench.ts";

const wal = await recordWal();
const [older = "", name = ""] = wal.segments;
const full = walFile(wal, name);
const end = walkSegment(Buffer.from(full).fill(0, full.length / 2), { name }).endOfRecords;
const unfinished = Buffer.from(full).fill(0, end);
/** As a file is that was used for an older segment before. */
const recycled = Buffer.concat([full.subarray(0, end), walFile(wal, older).subarray(end)]);

let bench: Workbench;
beforeEach(async () => {
  bench = await openWorkbench();
});
afterEach(() => bench[Symbol.asyncDispose]());

async function pushOf(content: Buffer, state = IN_ARCHIVE_RECOVERY) {
  await bench.file("b/global/pg_control", changeControl(wal.control, { state }));
  return await bench.push(await bench.file(join("b", "pg_wal", name), content));
}

async function storePartial(content: Buffer): Promise<void> {
  await bench.put(`wal_005/${name}.partial.zst`, await bench.compress("zstd", content));
}

const isStored = () => bench.memory.keys.includes(`wal_005/${name}.zst`);

for (const [what, content] of [
  ["zeros behind its records", unfinished],
  ["older WAL behind its records", recycled],
] as const) {
  test(`with ${what}, all of which the archive has: nothing to archive`, async () => {
    await storePartial(Buffer.from(full).fill(0, end + 4096));
    assert.equal(await pushOf(content), "nothing to archive");
    assert.ok(!isStored());
    // It is handed over once more when it is full.
    assert.equal(await pushOf(full), "archived");
  });
}

const refused = [
  { what: "the archive has nothing of it", stored: undefined },
  { what: "the archive has less of it", stored: Buffer.from(full).fill(0, end / 2) },
  { what: "the archive has something else", stored: flipBit(full, end / 2) },
];
for (const { what, stored } of refused) {
  test(`${what}: refused, and not stored`, async () => {
    if (stored !== undefined) await storePartial(stored);
    await assert.rejects(pushOf(unfinished), {
      name: "RefusedError",
      message: new RegExp(`${name} is not full: its records end at byte ${end}`),
    });
    assert.ok(!isStored());
  });
}

test("a damaged copy is refused, and does not take the place of a sound one", async () => {
  await assert.rejects(pushOf(flipBit(full, end)), { name: "FormatError", message: /damaged/ });
  assert.ok(!isStored());
});

for (const [what, content] of [
  ["its records end there", unfinished],
  ["a crash has left WAL behind them", flipBit(full, end)],
] as const)
  test(`where the timeline was left, and ${what}: archived as it is`, async () => {
    const { segmentNumber } = parseSegmentName(name, full.length);
    const forkLsn = lsn(segmentStart(segmentNumber, full.length) + BigInt(end));
    const history = Buffer.from(`1\t${formatLsn(forkLsn)}\tno recovery target specified\n`);
    await bench.put("wal_005/00000002.history", history);
    assert.equal(await pushOf(content), "archived");
  });

test("the server that writes the timeline knows what it hands over", async () => {
  assert.equal(await pushOf(unfinished, IN_PRODUCTION), "archived");
});
