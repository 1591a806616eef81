import assert from "node:assert/strict";
import { mkdir, mkdtemp, rm, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { after, test } from "node:test";
import { runProgram } from "../../src/commands/program.ts";
import { systemClock } from "../../src/io/clock.ts";

const { signal } = new AbortController();
const scratch = await mkdtemp(join(tmpdir(), "walnut-stats-"));
after(() => rm(scratch, { recursive: true }));
await mkdir(join(scratch, "wal_005"));
await writeFile(join(scratch, "wal_005", "note"), "12345");

/** Runs a command line on the repository; gives what it wrote. */
async function run(...args: readonly string[]) {
  const written = { output: "", errors: "" };
  const exitCode = await runProgram({
    args,
    environment: { WALNUT_FILE_PREFIX: scratch },
    workingDirectory: scratch,
    cpuCount: 1,
    versionText: "test",
    clock: systemClock,
    isUtc: true,
    signal,
    writeOutput: async (text) => void (written.output += text),
    writeBytes: async (bytes) => void (written.output += Buffer.from(bytes).toString()),
    stderr: {
      isTerminal: false,
      columns: 80,
      write: async (text) => void (written.errors += text),
    },
    fileExists: () => false,
    exportVariable: () => {},
    programWords: ["walnut"],
    appendFile: () => {},
    processId: 1,
    onSignal: () => {},
  });
  return { exitCode, ...written };
}

test("--stats tells what passed, and nothing does without it", async () => {
  const { exitCode, output, errors } = await run("st", "cat", "wal_005/note", "--stats");
  assert.equal(exitCode, 0, errors);
  assert.equal(output, "12345");
  const [title, store = "", waits, ...rest] = errors.split("\n");
  assert.equal(title, "storage traffic:");
  assert.match(store, /^ {2}file:\/\/.*: calls get \d+.*; objects 0 B put, \d+ B got$/);
  assert.match(waits ?? "", /^ {2}waited 0\.0 s for 0 repetitions, /);
  assert.deepEqual(rest, [""]);

  assert.equal((await run("st", "cat", "wal_005/note")).errors, "");
});

test("it is JSON where the log is, and is told of what failed", async () => {
  const { exitCode, errors } = await run("st", "cat", "none", "--stats", "--log-format=json");
  assert.notEqual(exitCode, 0);
  const [stats = "", failure = ""] = errors.trim().split("\n");
  const { storageTraffic } = JSON.parse(stats);
  assert.equal(storageTraffic.stores.length, 1);
  assert.equal(storageTraffic.stores[0].name, `file://${scratch}`);
  assert.match(failure, /none/);
});
