import assert from "node:assert/strict";
import { mkdirSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { test } from "node:test";
import { scratchDirectory } from "../support/scratch-directory.ts";
import { runWalnut } from "../support/walnut.ts";

test("setup prints three lines, and says what a trial of a restore must not have", async () => {
  using directory = scratchDirectory();
  const data = join(directory.path, "data");
  mkdirSync(join(data, "pg_wal"), { recursive: true });
  const env = { WALG_FILE_PREFIX: directory.path };
  const server = await runWalnut(["setup", data], { env });
  assert.equal(server.code, 0, server.stderr);
  assert.match(
    server.stdout,
    /^archive_mode = on\narchive_command = '.+'\nrestore_command = '.+'\n$/,
  );

  writeFileSync(join(data, "backup_label"), "START WAL LOCATION");
  const restored = await runWalnut(["setup", data], { env });
  assert.equal(restored.code, 0, restored.stderr);
  const [first = "", second = "", ...lines] = restored.stdout.split("\n");
  assert.match(first, /^# .*restored\. .*archive_mode must be off/);
  assert.match(second, /^# /);
  assert.equal(lines.join("\n"), server.stdout);

  // A standby that pg_basebackup has just made is no trial.
  writeFileSync(join(data, "standby.signal"), "");
  const standby = await runWalnut(["setup", data], { env });
  assert.equal(standby.stdout, server.stdout);
});

test("setup warns of a secret among the words that it prints", async () => {
  using directory = scratchDirectory();
  const data = join(directory.path, "data");
  mkdirSync(join(data, "pg_wal"), { recursive: true });
  const words = ["setup", data, `--file-prefix=${directory.path}`];
  assert.equal((await runWalnut(words)).stderr, "");
  const { code, stderr } = await runWalnut([...words, "--pgpassword=hunter2"]);
  assert.equal(code, 0, stderr);
  assert.match(stderr, /^WARNING: .* a secret stands in these lines.* flag=--pgpassword /);
  assert.doesNotMatch(stderr, /hunter2/);
});

test("a directory that is no server's is named by what it lacks", async () => {
  using directory = scratchDirectory();
  const env = { WALG_FILE_PREFIX: directory.path };
  const { code, stdout, stderr } = await runWalnut(["setup", directory.path], { env });
  assert.deepEqual({ code, stdout }, { code: 32, stdout: "" });
  assert.ok(stderr.includes(`cannot look at ${join(directory.path, "pg_wal")}: `), stderr);
});
