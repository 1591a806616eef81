import assert from "node:assert/strict";
import { mkdirSync, writeFileSync } from "node:fs";
import { readFile } from "node:fs/promises";
import { join } from "node:path";
import { test } from "node:test";
import { readControlFile } from "../../src/archive/control-file.ts";
import { readLocalControl } from "../../src/archive/local-control.ts";
import { readControlAround } from "../../src/archive/local-wal.ts";
import { parsePgControl } from "../../src/postgres/pg-control.ts";
import { recordWal } from "../support/real-wal.ts";
import { scratchDirectory } from "../support/scratch-directory.ts";

const { control } = await recordWal();
const torn = Buffer.from(control).fill(0, 200);

function dataDirectory(path: string, bytes: Uint8Array): string {
  mkdirSync(join(path, "global"));
  writeFileSync(join(path, "global", "pg_control"), bytes);
  return path;
}

test("one that the server is just writing is read again", async () => {
  using scratch = scratchDirectory();
  const directory = dataDirectory(scratch.path, torn);
  const readings = [
    readControlFile(directory),
    readLocalControl(directory),
    readControlAround(join(directory, "pg_wal", "RECOVERYXLOG")),
  ];
  // Read after all three have begun to.
  assert.deepEqual(await readFile(join(directory, "global", "pg_control")), torn);
  writeFileSync(join(directory, "global", "pg_control"), control);
  const whole = parsePgControl(control);
  assert.deepEqual(await Promise.all(readings), [whole, whole, whole]);
});

test("one that stays damaged is an error that names it", async () => {
  using scratch = scratchDirectory();
  const directory = dataDirectory(scratch.path, torn);
  const name = "LocalFileError";
  await assert.rejects(readControlFile(directory), { name, message: /pg_control can't be read/ });
  await assert.rejects(readLocalControl(directory), { name });
  assert.equal(await readControlAround(join(directory, "pg_wal", "RECOVERYXLOG")), undefined);
});

test("without one it depends on who asks", async () => {
  using scratch = scratchDirectory();
  await assert.rejects(readControlFile(scratch.path), {
    name: "LocalFileError",
    message: /ENOENT/,
  });
  assert.equal(await readLocalControl(scratch.path), undefined);
  assert.equal(await readControlAround(join(scratch.path, "pg_wal", "RECOVERYXLOG")), undefined);
});
