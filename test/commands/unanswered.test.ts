/** How long commands wait for a store that is not there. */
import assert from "node:assert/strict";
import { test } from "node:test";
import { runProgram } from "../../src/commands/program.ts";
import { systemClock } from "../../src/io/clock.ts";
import { SkippingClock } from "../support/fake-clock.ts";
import { freePort } from "../support/postgres-programs.ts";
import { scratchDirectory } from "../support/scratch-directory.ts";

/** What requests wait for before somebody is told, and before they end. */
const WATCHED_MS: readonly number[] = [10_000, 30_000];

/** Pauses between attempts take no time; a request has all it needs. */
class PauseSkipping extends SkippingClock {
  override async sleep(ms: number, options: { readonly signal: AbortSignal }): Promise<void> {
    if (WATCHED_MS.includes(ms)) await systemClock.sleep(ms, options);
    else await super.sleep(ms, options);
  }
}

/** Gives the seconds after which the command gave up, and all that it said. */
async function secondsOf(...args: readonly string[]) {
  using scratch = scratchDirectory();
  let errors = "";
  const exitCode = await runProgram({
    args,
    environment: {
      WALNUT_S3_PREFIX: "s3://bucket/main",
      AWS_ENDPOINT: `http://127.0.0.1:${await freePort()}`,
      AWS_ACCESS_KEY_ID: "key",
      AWS_SECRET_ACCESS_KEY: "secret-of-the-test",
      WALNUT_CACHE_DIR: scratch.path,
    },
    workingDirectory: scratch.path,
    cpuCount: 1,
    versionText: "test",
    clock: new PauseSkipping(),
    isUtc: true,
    signal: new AbortController().signal,
    writeOutput: async () => {},
    stderr: { isTerminal: false, columns: 80, write: async (text) => void (errors += text) },
    fileExists: () => false,
    exportVariable: () => {},
    programWords: ["walnut"],
    appendFile: () => {},
    processId: 1,
    onSignal: () => {},
  });
  assert.equal(exitCode, 13, errors);
  const [, seconds] = /gave up after \d+ attempts in (\d+)\.\d s/.exec(errors) ?? [];
  assert.ok(seconds !== undefined, errors);
  return { seconds: Number(seconds), errors };
}

for (const line of [
  "info",
  "timeline",
  "backup-list",
  "verify",
  "wal-verify integrity --timeline 1 --lsn 0/3000000",
  "wal-show",
  "catchup-list",
  "find --time 2026-11-22T00:00:00Z",
  "st ls",
]) {
  test(`${line} says soon that nobody answers, where, and what may help`, async () => {
    const { seconds, errors } = await secondsOf(...line.split(" "));
    assert.ok(seconds <= 30, errors);
    assert.match(errors, /WARNING: .* will be repeated .* givesUpInSeconds=30/);
    assert.match(
      errors,
      /ERROR: .*s3:\/\/127\.0\.0\.1:\d+\/bucket.*ECONNREFUSED.*\nHINT: Check AWS_E/,
    );
  });
}

test("what changes the repository outlasts an outage", async () => {
  assert.ok((await secondsOf("backup-mark", "LATEST")).seconds > 600);
});
