import { test } from "node:test";
import assert from "node:assert/strict";
import { mkdir } from "node:fs/promises";
import { join } from "node:path";
import { recordWal, walFile } from "../support/real-wal.ts";
import { flipBit, openWorkbench } from "./workbench.ts";

/** Where the header of a page says how much of an earlier record it continues: xlp_rem_len. */
const CONTINUATION_OFFSET = 16;

test("the segment before proves the length of the record that a segment continues", async () => {
  const wal = await recordWal();
  await using bench = await openWorkbench();
  await mkdir(join(bench.directory, "pg_wal"));
  const destination = join(bench.directory, "pg_wal", "RECOVERYXLOG");
  await bench.file("global/pg_control", wal.control);
  for (const file of wal.segments) await bench.file(`pg_wal/${file}`, walFile(wal, file));
  const file = wal.segments
    .slice(1)
    .find((one) => walFile(wal, one).readUInt32LE(CONTINUATION_OFFSET) > 0);
  assert.ok(file !== undefined, "a record crosses into one of the segments");

  // One byte more may still end before the same multiple of 8: the records alone don't show it.
  await bench.put(`wal_005/${file}`, flipBit(walFile(wal, file), CONTINUATION_OFFSET, 0));
  await assert.rejects(bench.fetch(file, destination), {
    name: "DamagedError",
    message: /page that continues a record by \d+ bytes instead of \d+ at offset 0$/,
  });
});
