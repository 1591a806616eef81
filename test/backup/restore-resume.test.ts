import assert from "node:assert/strict";
import { spawn } from "node:child_process";
import { once } from "node:events";
import {
  chmodSync,
  existsSync,
  mkdirSync,
  readFileSync,
  renameSync,
  rmSync,
  symlinkSync,
  writeFileSync,
} from "node:fs";
import { join } from "node:path";
import { test } from "node:test";
import { formatRestoreMarker, type RestoreMarker } from "../../src/backup/restore-marker.ts";
import { isProcessAlive } from "../../src/io/process-identity.ts";
import { MemoryStorage } from "../support/memory-storage.ts";
import { collectingLog, restoreInto, snapshot } from "../support/restoring.ts";
import { scratchDirectory } from "../support/scratch-directory.ts";
import {
  putSyntheticBackup,
  specialEntries,
  SYNTHETIC_NAME,
  type SyntheticBackup,
  type SyntheticEntry,
} from "../support/synthetic-backup.ts";

const ID = "0123456789abcdef0123456789abcdef";

function clusterWith(location?: string): readonly SyntheticEntry[] {
  return [
    { kind: "directory", path: "" },
    { kind: "file", path: "PG_VERSION", content: Buffer.from("15\n") },
    { kind: "directory", path: "base" },
    { kind: "file", path: "base/1", content: Buffer.alloc(8192, 1) },
    { kind: "file", path: "base/2", content: Buffer.alloc(8192, 2), mode: 0o640 },
    { kind: "directory", path: "global" },
    { kind: "file", path: "global/1262", content: Buffer.alloc(8192, 3) },
    ...(location === undefined ? [] : tablespaceFiles),
    ...specialEntries(location === undefined ? "" : `16385 ${location}\n`),
  ];
}

const tablespaceFiles: readonly SyntheticEntry[] = [
  { kind: "directory", path: "pg_tblspc" },
  { kind: "directory", path: "pg_tblspc/16385/PG_15" },
  { kind: "file", path: "pg_tblspc/16385/PG_15/1", content: Buffer.alloc(8192, 4) },
];

async function makeStorage(location?: string, more: Partial<SyntheticBackup> = {}) {
  const storage = new MemoryStorage();
  const spec =
    location === undefined
      ? undefined
      : {
          basePrefix: "/x",
          tablespaces: [{ name: "16385", location, link: "pg_tblspc/16385" }],
        };
  await putSyntheticBackup(storage, {
    entries: clusterWith(location),
    sentinel: { spec },
    ...more,
  });
  return storage;
}

/** Turns a whole restore into one that was killed before its last step. */
function unfinish(destination: string, marker: Partial<RestoreMarker> = {}): void {
  const whole = { id: ID, backup: SYNTHETIC_NAME, locations: [], ...marker };
  rmSync(join(destination, "global/pg_control"));
  writeFileSync(join(destination, "global/pg_control.walnut"), formatRestoreMarker(whole));
  for (const location of whole.locations) {
    writeFileSync(join(location, "walnut_restore.json"), formatRestoreMarker(whole));
  }
}

test("what is right is kept, what is wrong, missing or foreign is put right", async () => {
  using scratch = scratchDirectory();
  const location = join(scratch.path, "ts");
  const outside = join(scratch.path, "outside");
  mkdirSync(outside);
  writeFileSync(join(outside, "file"), "untouched");
  const storage = await makeStorage(location);
  const destination = join(scratch.path, "data");
  await restoreInto(storage, destination);
  const whole = snapshot(destination);
  const wholeLocation = snapshot(location);

  unfinish(destination, { locations: [location] });
  writeFileSync(join(destination, "base/1"), Buffer.alloc(8192, 9));
  rmSync(join(destination, "global/1262"));
  chmodSync(join(destination, "base/2"), 0o600);
  writeFileSync(join(destination, "base/foreign"), "x");
  mkdirSync(join(destination, "pg_tblspc/16399/PG_15"), { recursive: true });
  symlinkSync(outside, join(destination, "base/link"));
  writeFileSync(join(destination, "global/pg_control.walnut.tmp-0011223344556677"), "x");
  writeFileSync(join(location, "PG_15/foreign"), "x");

  const log = collectingLog();
  const report = await restoreInto(storage, destination, { log });
  assert.equal(report.keptBytes, 3 + 8192 + 8192);
  assert.deepEqual(snapshot(destination), whole);
  assert.deepEqual(snapshot(location), wholeLocation);
  assert.equal(readFileSync(join(outside, "file"), "utf8"), "untouched");
  assert.match(log.lines.join("\n"), /going on with an interrupted restore/);
});

test("a directory with many names that are none of the backup's is put right", async () => {
  using scratch = scratchDirectory();
  const storage = await makeStorage();
  const destination = join(scratch.path, "data");
  await restoreInto(storage, destination);
  const whole = snapshot(destination);
  unfinish(destination);
  for (let number = 0; number < 320; number += 1) {
    writeFileSync(join(destination, "base", `${number}${"x".repeat(240)}`), "");
  }
  const report = await restoreInto(storage, destination);
  assert.equal(report.keptBytes, 3 + 3 * 8192);
  assert.deepEqual(snapshot(destination), whole);
});

test("only parts with missing files are fetched again", async () => {
  using scratch = scratchDirectory();
  const storage = await makeStorage(undefined, { partCount: 7 });
  const destination = join(scratch.path, "data");
  await restoreInto(storage, destination);
  unfinish(destination);
  rmSync(join(destination, "base/1"));
  const report = await restoreInto(storage, destination);
  assert.equal(report.writtenBytes, 8192);
});

test("a kept file that the manifest does not know any more is not kept", async () => {
  using scratch = scratchDirectory();
  const destination = join(scratch.path, "data");
  await restoreInto(await makeStorage(), destination);
  unfinish(destination, { backup: "base_000000010000000000000001" });
  const other = new MemoryStorage();
  const entries: SyntheticEntry[] = [
    { kind: "directory", path: "" },
    { kind: "file", path: "base", content: Buffer.from("now a file") },
    ...specialEntries(),
  ];
  await putSyntheticBackup(other, { entries });
  await restoreInto(other, destination);
  assert.equal(snapshot(destination).get("base"), "file 0600 now a file");
  assert.equal(existsSync(join(destination, "PG_VERSION")), false);
});

test("without our manifest all is cleared first; links are removed, not followed", async () => {
  using scratch = scratchDirectory();
  const location = join(scratch.path, "ts");
  const outside = join(scratch.path, "outside");
  mkdirSync(outside);
  writeFileSync(join(outside, "file"), "untouched");
  const storage = await makeStorage(location, { style: "walg" });
  const destination = join(scratch.path, "data");
  await restoreInto(storage, destination);
  const whole = snapshot(destination);
  unfinish(destination, { locations: [location] });
  symlinkSync(outside, join(destination, "foreign"));
  symlinkSync(outside, join(location, "foreign"));
  const report = await restoreInto(storage, destination);
  assert.equal(report.keptBytes, 0);
  assert.deepEqual(snapshot(destination), whole);
  assert.deepEqual([...snapshot(location).keys()], ["", "PG_15", "PG_15/1"]);
  assert.equal(readFileSync(join(outside, "file"), "utf8"), "untouched");
});

test("a location that the interrupted restore had and this one has not is cleared", async () => {
  using scratch = scratchDirectory();
  const [first, second] = [join(scratch.path, "one"), join(scratch.path, "two")];
  const storage = await makeStorage(first);
  const destination = join(scratch.path, "data");
  await restoreInto(storage, destination);
  unfinish(destination, { locations: [first] });
  const mappings = [{ from: "16385", to: second }];
  await restoreInto(storage, destination, { tablespaces: { mappings } });
  assert.deepEqual([...snapshot(first).keys()], [""]);
  assert.deepEqual([...snapshot(second).keys()], ["", "PG_15", "PG_15/1"]);
});

test("a location that somebody else took meanwhile is never cleared", async () => {
  for (const isMarked of [true, false]) {
    using scratch = scratchDirectory();
    const [first, second] = [join(scratch.path, "one"), join(scratch.path, "two")];
    const storage = await makeStorage(first);
    const destination = join(scratch.path, "data");
    await restoreInto(storage, destination);
    unfinish(destination, { locations: [first] });
    rmSync(join(first, "walnut_restore.json"));
    if (isMarked) {
      const other = { id: ID.replace("0", "f"), backup: SYNTHETIC_NAME, locations: [first] };
      writeFileSync(join(first, "walnut_restore.json"), formatRestoreMarker(other));
    }
    const before = snapshot(first);
    await assert.rejects(restoreInto(storage, destination), {
      name: "RefusedError",
      message: `location ${first} of tablespace 16385 is not empty`,
    });
    const mappings = [{ from: "16385", to: second }];
    await restoreInto(storage, destination, { tablespaces: { mappings } });
    assert.deepEqual(snapshot(first), before);
  }
});

test("killed between the last two renames: only that is left to do", async () => {
  using scratch = scratchDirectory();
  const storage = await makeStorage();
  const destination = join(scratch.path, "data");
  await restoreInto(storage, destination);
  const whole = snapshot(destination);
  renameSync(join(destination, "global/pg_control"), join(destination, "global/pg_control.walnut"));
  const report = await restoreInto(storage, destination);
  assert.equal(report.writtenBytes, 0);
  assert.deepEqual(snapshot(destination), whole);
});

test("killed there, but another backup is wanted now: the whole one is not touched", async () => {
  using scratch = scratchDirectory();
  const storage = await makeStorage();
  const destination = join(scratch.path, "data");
  await restoreInto(storage, destination);
  const marker = join(destination, "global/pg_control.walnut");
  renameSync(join(destination, "global/pg_control"), marker);
  const control = readFileSync(marker);
  control.writeUInt8(99, 100);
  writeFileSync(marker, control);
  const before = snapshot(destination);
  await assert.rejects(restoreInto(storage, destination), {
    name: "RefusedError",
    message: `destination ${destination} is not empty`,
  });
  assert.deepEqual(snapshot(destination), before);
});

test("killed while the marker was written: nothing stands in the way", async () => {
  using scratch = scratchDirectory();
  const destination = join(scratch.path, "data");
  mkdirSync(join(destination, "global"), { recursive: true });
  writeFileSync(join(destination, "global/pg_control.walnut.tmp-0011223344556677"), "{");
  const location = join(scratch.path, "ts");
  mkdirSync(location);
  writeFileSync(join(location, "walnut_restore.json.tmp-0011223344556677"), "{");
  await restoreInto(await makeStorage(location), destination);
  assert.equal(existsSync(join(destination, "global/pg_control")), true);
  const left = [...snapshot(destination).keys(), ...snapshot(location).keys()];
  assert.deepEqual(
    left.filter((path) => path.includes("walnut")),
    [],
  );
});

test("two restores do not work on one destination; a killed one does not count", async () => {
  using scratch = scratchDirectory();
  const child = spawn(process.execPath, [
    "-e",
    `import(${JSON.stringify(new URL("../../src/io/process-identity.ts", import.meta.url))})
       .then((module) => process.stdout.write(module.describeProcess() + "\\n"));
     setInterval(() => {}, 1000);`,
  ]);
  const [line]: unknown[] = await once(child.stdout, "data");
  const process_ = String(line).trim();
  assert.equal(isProcessAlive(process_), true);
  const storage = await makeStorage();
  const destination = join(scratch.path, "data");
  await restoreInto(storage, destination);
  unfinish(destination, { process: process_ });
  await assert.rejects(restoreInto(storage, destination), {
    name: "RefusedError",
    message: `process ${child.pid} is restoring into ${destination} at this moment`,
  });
  child.kill("SIGKILL");
  await once(child, "exit");
  await restoreInto(storage, destination);
});
