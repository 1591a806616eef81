import assert from "node:assert/strict";
import { existsSync, readFileSync, readlinkSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { test } from "node:test";
import { backupFetch } from "../../src/commands/backup-fetch.ts";
import { parseJson } from "../../src/layout/json.ts";
import { runCommand } from "../support/command-run.ts";
import { MemoryStorage } from "../support/memory-storage.ts";
import { scratchDirectory } from "../support/scratch-directory.ts";
import { putSyntheticBackup, specialEntries, SYNTHETIC_NAME } from "../support/synthetic-backup.ts";

const NEWER = "base_000000010000000000000009";

async function storageWithBackups(location = "/recorded/place"): Promise<MemoryStorage> {
  const storage = new MemoryStorage();
  const spec = {
    basePrefix: "/x",
    tablespaces: [{ name: "16385", location, link: "pg_tblspc/16385" }],
  };
  await putSyntheticBackup(storage, {
    name: NEWER,
    entries: specialEntries(),
    sentinel: { finishTimeNs: 2_000_000_000_000_000_000n },
  });
  await putSyntheticBackup(storage, {
    entries: specialEntries(`16385 ${location}\n`),
    sentinel: { spec, userData: parseJson('{"day":"monday"}') },
  });
  return storage;
}

test("LATEST is the newest by its own record, and what comes next is said", async () => {
  using scratch = scratchDirectory();
  const destination = join(scratch.path, "data");
  const { stdout, log } = await runCommand(backupFetch, await storageWithBackups(), [
    destination,
    "LATEST",
  ]);
  assert.equal(stdout, "");
  assert.equal(log[0], `info: LATEST backup is: '${NEWER}'`);
  assert.ok(log[1]?.startsWith(`info: backup restored {"backup":"${NEWER}"`), log.join("\n"));
  assert.match(log.at(-2) ?? "", /data\/postgresql\.auto\.conf, .*recovery\.signal.*archive_mode/);
  assert.equal(log.at(-1), `info: restore_command = 'exec walnut wal-fetch "%f" "%p"'`);
  assert.equal(existsSync(join(destination, "global/pg_control")), true);
});

test("a server whose settings lie elsewhere is told to bring them", async () => {
  using scratch = scratchDirectory();
  const conf = {
    kind: "file",
    path: "postgresql.conf",
    content: Buffer.from("port = 1\n"),
  } as const;
  for (const [name, own] of [
    ["without", []],
    ["with", [conf]],
  ] as const) {
    const storage = new MemoryStorage();
    await putSyntheticBackup(storage, { entries: [...specialEntries(), ...own] });
    const args = [join(scratch.path, name), "LATEST"];
    const { log } = await runCommand(backupFetch, storage, args);
    assert.equal(/^warning: .*no postgresql\.conf/m.test(log.join("\n")), name === "without");
  }
});

test("tablespaces are mapped, user data choose, WAL-G's other flags are accepted", async () => {
  using scratch = scratchDirectory();
  const destination = join(scratch.path, "data");
  const place = join(scratch.path, "place");
  const { log } = await runCommand(backupFetch, await storageWithBackups(), [
    destination,
    '--target-user-data={"day": "monday"}',
    "--tablespace-mapping",
    `/recorded/place=${place}`,
    "--reverse-unpack",
    "--skip-redundant-tars",
  ]);
  assert.equal(readlinkSync(join(destination, "pg_tblspc/16385")), place);
  assert.equal(readFileSync(join(destination, "tablespace_map"), "utf8"), `16385 ${place}\n`);
  assert.match(log.join("\n"), /tablespace restored \{"oid":"16385"/);
});

test("the setting for user data chooses, too", async () => {
  using scratch = scratchDirectory();
  const destination = join(scratch.path, "data");
  const specPath = join(scratch.path, "spec.json");
  const place = join(scratch.path, "place");
  writeFileSync(
    specPath,
    `{"16385":{"loc":"${place}","link":"pg_tblspc/16385"},"base_prefix":"","tablespaces":["16385"]}`,
  );
  const args = [destination, "--restore-spec", specPath];
  await runCommand(backupFetch, await storageWithBackups(), args, {
    fetchTargetUserData: '{"day":"monday"}',
  });
  assert.equal(readlinkSync(join(destination, "pg_tblspc/16385")), place);
  assert.equal(existsSync(join(destination, "tablespace_map")), false);
});

test("a mask restores single files", async () => {
  using scratch = scratchDirectory();
  const destination = join(scratch.path, "data");
  const args = [destination, NEWER, "--mask=backup_label"];
  const { log } = await runCommand(backupFetch, await storageWithBackups(), args);
  assert.equal(existsSync(join(destination, "backup_label")), true);
  assert.equal(existsSync(join(destination, "global/pg_control")), false);
  assert.match(log.at(-1) ?? "", /no server starts from it/);
});

const wrong: readonly (readonly [args: readonly string[], message: RegExp])[] = [
  [[], /^the destination is missing$/],
  [["/d"], /^the backup's name is missing$/],
  [["/d", "a", "b"], /^surplus argument "b"$/],
  [
    ["/d", "a", "--target-user-data=1"],
    /^a backup is chosen by its name or by user data, not by both$/,
  ],
  [["/d", "--target-user-data=x"], /^user data x is not JSON: /],
  [["/d", "a", "--restore-only="], /^--restore-only has ""$/],
  [["/d", "a", "--restore-only=a,b/c/d/e"], /^--restore-only has "b\/c\/d\/e"$/],
  [["/d", "a", "--restore-only=a/"], /^--restore-only has "a\/"$/],
  [
    ["/d", "a", "--delta", "--restore-only=a"],
    /^--delta and --restore-only contradict each other$/,
  ],
  [["/d", NEWER, "--restore-only=a"], /^backup base_\w+ does not list its databases and tables$/],
  [["/d", "a", "--mask=["], /^mask "\[" is not a pattern$/],
  [["/d", "a", "--tablespace-mapping=x"], /^tablespace mapping "x" is not OLD=NEW$/],
  [
    ["/d", "a", "--restore-spec=/nowhere/spec"],
    /^restore spec \/nowhere\/spec can't be read: no such file/,
  ],
  [["/d", "nonsense"], /^backup nonsense does not exist in memory:\/\/test$/],
  [["/d", SYNTHETIC_NAME, "--tablespace-mapping=1=/x"], /^no tablespace of the backup is 1$/],
];

for (const [args, message] of wrong) {
  test(`refuses backup-fetch ${args.join(" ")}`, async () => {
    const storage = await storageWithBackups();
    await assert.rejects(runCommand(backupFetch, storage, args), (error: Error) => {
      assert.match(error.message, message);
      return true;
    });
    assert.equal(existsSync("/d"), false);
  });
}
