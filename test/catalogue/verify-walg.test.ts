import assert from "node:assert/strict";
import { test } from "node:test";
import { verify } from "../../src/commands/verify.ts";
import { systemClock } from "../../src/io/clock.ts";
import { DirectoryStorage } from "../../src/storage/directory.ts";
import { runCommand } from "../support/command-run.ts";
import { unpackWalgFixture, WALG_CASES, type WalgCase } from "../support/walg-fixture.ts";

/** Each level somewhere: to read the same again would prove nothing more. */
const LEVELS: Readonly<Record<WalgCase, readonly (readonly string[])[]>> = {
  "zstd-full": [["--quick"], ["--budget=1MiB"], []],
  "brotli-full": [["--full"]],
  timelines: [["--full"]],
  "lz4-chain": [["--full"]],
};

for (const name of WALG_CASES) {
  test(`WAL-G's repository ${name} is whole at every level`, async () => {
    await using fixture = await unpackWalgFixture(name);
    await using storage = new DirectoryStorage(fixture.repository, systemClock);
    for (const level of LEVELS[name]) {
      const { stdout } = await runCommand(verify, storage, [...level, "--json"]);
      const report = JSON.parse(stdout);
      assert.deepEqual([report.status, report.findings], ["OK", []], level.join(" "));
      // Also where a timeline ends with an unfinished segment.
      if (level.includes("--full")) assert.equal(report.all_proved_since, report.started);
    }
  });
}
