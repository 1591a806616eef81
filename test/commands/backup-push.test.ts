import assert from "node:assert/strict";
import { join } from "node:path";
import { after, before, describe, test } from "node:test";
import { backupPush } from "../../src/commands/backup-push.ts";
import type { Config } from "../../src/config/config.ts";
import { formatJson } from "../../src/layout/json.ts";
import { filesMetadataKey, tarFolder } from "../../src/layout/keys.ts";
import { type BackupWorld, startBackupWorld } from "../support/backup-world.ts";
import { type CommandRun, runCommand } from "../support/command-run.ts";
import { MemoryStorage } from "../support/memory-storage.ts";

const misused = [
  [["a", "b"], /surplus argument "b"/],
  [["--delta-from-name", "LATEST", "--delta-from-user-data", "{}"], /not by both$/],
  [["--delta-from-user-data", "x"], /^user data x is not JSON/],
  [["--remote", "data"], /^--remote and the data directory data contradict each other$/],
  [["--type", "delta"], /^--type delta: there is no such type of backup$/],
  [["--changes", "guess"], /^--changes guess: changed blocks can't be found in this way$/],
  [["--type", "incr", "--full"], /^--full and --type incr contradict each other$/],
  [["--delta-from-name", "x", "--without-files-metadata"], /and a base contradict/],
  [["--add-user-data", "monthly"], /^user data monthly is not JSON: /],
  [["--add-user-data"], /needs a value/],
  [["--permanently"], /unknown flag/],
] as const;

for (const [words, message] of misused) {
  test(`refuses the words ${words.join(" ")}`, async () => {
    await assert.rejects(runCommand(backupPush, new MemoryStorage(), words), {
      name: "UsageError",
      message,
    });
  });
}

describe("on a server", () => {
  const all: { world?: BackupWorld } = {};
  function world(): BackupWorld {
    if (all.world === undefined) throw new Error("no world");
    return all.world;
  }
  before(async () => {
    all.world = await startBackupWorld({ major: 15 });
  });
  after(async () => await all.world?.[Symbol.asyncDispose]());

  async function run(
    words: readonly string[],
    config: Partial<Config> = {},
  ): Promise<CommandRun & { readonly backup: string }> {
    const { cluster, storage } = world();
    const result = await runCommand(backupPush, storage, words, {
      postgres: {
        host: "127.0.0.1",
        port: cluster.port,
        user: "postgres",
        database: "postgres",
        applicationName: "walnut-test",
      },
      cacheDirectory: join(cluster.directory, "cache"),
      ...config,
    });
    const written = result.log.find((line) => line.startsWith("info: backup written"));
    const backup = /"backup":"(base_[0-9A-F]{24}(?:_D_[0-9A-F]{24})?)"/.exec(written ?? "")?.[1];
    assert.ok(backup !== undefined, result.log.join("\n"));
    return { ...result, backup };
  }

  test("takes a full backup and says so", async () => {
    const { stdout, log, backup } = await run([world().cluster.dataDirectory]);
    assert.equal(stdout, "", "stdout is for data");
    const sentinel = await world().sentinel(backup);
    assert.equal(sentinel.isPermanent, false);
    assert.equal(sentinel.userData, undefined);
    assert.equal(sentinel.base, undefined);
    assert.match(
      log.at(-1) ?? "",
      /"files":\d+,"size":"\d+\.\d MiB","stored":"\d.* [KM]iB","time":/,
    );
    const objects = await world().keys(`basebackups_005/${backup}/`);
    assert.ok(
      objects.some((key) => key.endsWith(".tar.zst")),
      "zstd unless it is told otherwise",
    );
  });

  test("takes WAL-G's flags, long and short, and the directory from PGDATA", async () => {
    const words = ["-p", "-f", "--add-user-data", '{"a":[1.50]}', "--without-files-metadata"];
    const { dataDirectory } = world().cluster;
    const { backup } = await run(words, { dataDirectory, compressionMethod: "none" });
    const sentinel = await world().sentinel(backup);
    assert.equal(sentinel.isPermanent, true);
    assert.equal(formatJson(sentinel.userData ?? null), '{"a":[1.50]}');
    assert.equal(sentinel.isFilesMetadataDisabled, true);
    assert.equal((await world().keys()).includes(filesMetadataKey(backup)), false);
  });

  test("composers are flags and settings, one counts; empty flags count as absent", async () => {
    const { dataDirectory } = world().cluster;
    const words = ["-v", "-s", "-r", "-b", "--delta-from-name", "", "--add-user-data", ""];
    const { backup } = await run([dataDirectory, ...words], {
      sentinelUserData: '"from the settings"',
    });
    assert.equal((await world().sentinel(backup)).userData, "from the settings");
    const parts = async (name: string) =>
      (await world().keys(tarFolder(name))).filter((key) => /part_|copy_/.test(key));
    assert.ok((await parts(backup)).length > 3, "each database has parts of its own");
    const copied = await run([dataDirectory], { composer: "copy" });
    assert.ok((await parts(copied.backup)).some((key) => key.includes("copy_")));
    const remote = await run(["--remote", "-c", "--changes", "page-scan"]);
    assert.match(remote.log.join("\n"), /warning: --changes page-scan has no effect over the rep/);
    assert.match(remote.log.join("\n"), /warning: --copy-composer has no effect over the rep/);
  });

  test("without a data directory, or on request, it comes over the network", async () => {
    const { dataDirectory } = world().cluster;
    for (const [words, config] of [
      [[], {}],
      [["--remote", "--full"], { dataDirectory }],
    ] as const) {
      const { backup } = await run(words, config);
      const keys = await world().keys(`basebackups_005/${backup}/`);
      assert.ok(keys.some((key) => key.endsWith("walnut_backup_manifest.zst")));
    }
  });

  test("takes increments by WAL-G's setting and by the words of other tools", async () => {
    const { dataDirectory } = world().cluster;
    const full = await run([dataDirectory, "--full"]);
    const config = {
      increments: { maxSteps: 1, origin: "latest" as const, isPageScanAllowed: true },
    };
    const first = await run([dataDirectory], config);
    assert.equal((await world().sentinel(first.backup)).base?.name, full.backup);
    assert.ok(first.log.some((line) => line.startsWith("info: Delta backup from ")));
    const second = await run([dataDirectory], config);
    assert.equal((await world().sentinel(second.backup)).base, undefined);
    const reason =
      /Doing full backup: WALG_DELTA_MAX_STEPS is 1, and base_[0-9A-F]+ has as many increments/;
    assert.ok(second.log.some((line) => reason.test(line)));

    const third = await run([dataDirectory, "--type", "incr", "--changes", "page-scan"]);
    assert.equal((await world().sentinel(third.backup)).own?.changeSource, "page-scan");
    const words = [dataDirectory, "--type", "diff", "--add-user-data", '{"n":4}'];
    const fourth = await run(words);
    const base = { name: second.backup, fullName: second.backup, stepCount: 1 };
    for (const { backup } of [third, fourth]) {
      const sentinel = await world().sentinel(backup);
      assert.deepEqual({ ...sentinel.base, startLsn: 0n }, { ...base, startLsn: 0n });
    }
    const named = ["--type", "incr", "--delta-from-user-data", '{"n":4}'];
    const fifth = await run([dataDirectory, ...named]);
    assert.equal((await world().sentinel(fifth.backup)).base?.stepCount, 2);
    await assert.rejects(run([dataDirectory, "--type", "incr", "--delta-from-name", "none"]), {
      name: "RefusedError",
      message: "an increment can't be based on what was asked for: backup none does not exist",
    });
  });

  test("a relative directory is looked up where the program was started", async () => {
    await assert.rejects(run(["no/such/data"]), {
      name: "RefusedError",
      message: /^data directory \/.*\/no\/such\/data does not exist on this host$/,
    });
  });
});
