import assert from "node:assert/strict";
import { existsSync } from "node:fs";
import { mkdtemp, readFile, rm } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { after, test } from "node:test";
import { runCommand } from "../../src/commands/gap-backup.ts";
import { isProcessAlive } from "../../src/io/process-identity.ts";

const { signal } = new AbortController();
const dataDirectory = await mkdtemp(join(tmpdir(), "walnut-gap-command-"));
after(() => rm(dataDirectory, { recursive: true }));

test("a command begins once its process is noted, and is that process", async () => {
  const noted = join(dataDirectory, "noted");
  let process = "";
  await runCommand(`echo "$$ $(cat)" > noted`, {
    dataDirectory,
    signal,
    onStarted: async (started) => {
      assert.ok(isProcessAlive(started));
      assert.equal(existsSync(noted), false);
      process = started;
    },
  });
  const [pid = ""] = (await readFile(noted, "utf8")).split(" ");
  assert.ok(process.includes(pid), `${process} is not ${pid}`);
});

test("a command whose process could not be noted never begins", async () => {
  const begun = join(dataDirectory, "begun");
  let process = "";
  const options = {
    dataDirectory,
    signal,
    onStarted: async (started: string) => {
      process = started;
      await Promise.reject(new Error("no space"));
    },
  };
  await assert.rejects(runCommand("touch begun", options), /no space/);
  while (isProcessAlive(process)) await new Promise((resolve) => setImmediate(resolve));
  assert.equal(existsSync(begun), false);
});

test("a command that fails is told of with its end", async () => {
  const options = { dataDirectory, signal, onStarted: async () => {} };
  await assert.rejects(runCommand("exit 3", options), /GAP_BACKUP_COMMAND ended with 3/);
});
