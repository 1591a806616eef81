import assert from "node:assert/strict";
import { mkdir } from "node:fs/promises";
import { join } from "node:path";
import { test } from "node:test";
import { changeControl } from "../support/control-file.ts";
import { recordWal } from "../support/real-wal.ts";
import { openWorkbench } from "./workbench.ts";

const wal = await recordWal();

test("a repository that begins on a later timeline may lack that one's history", async () => {
  await using bench = await openWorkbench();
  await mkdir(join(bench.directory, "pg_wal"));
  await bench.put("wal_005/000000050000000000000007.zst", Buffer.of(1));
  const outcomeOn = async (timeline: number, name = "00000005.history") => {
    await bench.file("global/pg_control", changeControl(wal.control, { timeline }));
    const fetched = bench.fetch(name, join(bench.directory, "pg_wal", "RECOVERYHISTORY"));
    return await fetched.then(
      () => "fetched",
      (error: unknown) => (error instanceof Error ? error.name : ""),
    );
  };
  assert.equal(await outcomeOn(4), "RefusedError");
  assert.equal(await outcomeOn(5), "NotInArchiveError");
  assert.equal(await outcomeOn(6), "NotInArchiveError");
  assert.equal(await outcomeOn(5, "00000006.history"), "NotInArchiveError");
});
