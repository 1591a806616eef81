import assert from "node:assert/strict";
import { rm } from "node:fs/promises";
import { join } from "node:path";
import { test } from "node:test";
import { backfillCommand } from "../../src/commands/backfill.ts";
import { openWorkbench } from "../archive/workbench.ts";
import { runCommand } from "../support/command-run.ts";
import { recordWal, walFile } from "../support/real-wal.ts";

test("backfill says what the archive lacks still", async () => {
  const wal = await recordWal();
  const [, lost = ""] = wal.segments;
  await using bench = await openWorkbench();
  await bench.file("data/global/pg_control", wal.control);
  for (const name of wal.segments) await bench.file(`data/pg_wal/${name}`, walFile(wal, name));
  const directory = join(bench.directory, "data");
  const run = async (...flags: readonly string[]) => {
    const cacheDirectory = join(bench.directory, "cache");
    const { log } = await runCommand(backfillCommand, bench.storage, [directory, ...flags], {
      cacheDirectory,
    });
    return log.filter((line) => line.includes("still lacks WAL"));
  };

  await rm(join(directory, "pg_wal", lost));
  assert.deepEqual(await run("--dry-run"), []);
  const [warning = "", ...more] = await run();
  assert.match(warning, new RegExp(`"first":"${lost}","last":"${lost}","holes":1`));
  assert.deepEqual(more, []);

  await bench.file(`data/pg_wal/${lost}`, walFile(wal, lost));
  assert.deepEqual(await run(), []);
});

test("files that wait for WAL to come have no line, and are counted", async () => {
  const wal = await recordWal();
  const [first = ""] = wal.segments;
  await using bench = await openWorkbench();
  await bench.file("data/global/pg_control", wal.control);
  await bench.file(`data/pg_wal/${first}`, walFile(wal, first));
  for (const ahead of ["FE", "FF"]) {
    await bench.file(`data/pg_wal/${first.slice(0, -2)}${ahead}`, walFile(wal, first));
  }
  const words = [join(bench.directory, "data"), "--dry-run"];
  const cacheDirectory = join(bench.directory, "cache");
  const { stdout, log } = await runCommand(backfillCommand, bench.storage, words, {
    cacheDirectory,
  });
  assert.equal(stdout, `${first} planned (not in the archive)\n`);
  assert.match(log.join("\n"), /backfill is done .*"unused":2/);
});
