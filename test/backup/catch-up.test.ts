import assert from "node:assert/strict";
import { existsSync, readFileSync } from "node:fs";
import { mkdir, readdir, rename, rm, writeFile } from "node:fs/promises";
import { join } from "node:path";
import { after, before, describe, test } from "node:test";
import { readCommandLine } from "../../src/commands/words.ts";
import type { Config } from "../../src/config/config.ts";
import { catchUpFetch } from "../../src/commands/catchup-fetch.ts";
import { catchUpList } from "../../src/commands/catchup-list.ts";
import { catchUpPush } from "../../src/commands/catchup-push.ts";
import { fetchCatchUp } from "../../src/backup/catch-up-fetch.ts";
import { catchUpStorage } from "../../src/backup/catch-up-storage.ts";
import { silentLog } from "../../src/io/log.ts";
import { parsePgControl } from "../../src/postgres/pg-control.ts";
import { type CommandRun, runCommand } from "../support/command-run.ts";
import { comparePages } from "../support/page-compare.ts";
import { restoreCluster } from "../support/postgres.ts";
import { catchUp, type Pair, startPair } from "../support/standby-pair.ts";

for (const [words, message] of [
  [["data", "--from-lsn", "x"], /^--from-lsn x is no position in the WAL$/],
  [["data", "--from-lsn", "18446744073709551616"], /is no position/],
  [[], /data directory/],
] as const) {
  test(`catchup-push refuses the words ${words.join(" ")}`, () => {
    assert.throws(() => catchUpPush.parse(wordsOf(words)), { name: "UsageError", message });
  });
}

function wordsOf(words: readonly string[]) {
  const flags = readCommandLine(
    words,
    { names: () => [], find: () => undefined },
    catchUpPush.flags,
  );
  return flags.words;
}

describe("a standby that lags behind", () => {
  const all: { pair?: Pair; fromLsn?: string; backup?: string } = {};
  function pair(): Pair {
    if (all.pair === undefined) throw new Error("no servers");
    return all.pair;
  }
  before(async () => {
    all.pair = await startPair(18, async ({ cluster }) => {
      const location = await cluster.makeDirectory("a space");
      await cluster.query(`CREATE TABLESPACE other LOCATION '${location}'`);
      await cluster.query("CREATE TABLE far TABLESPACE other AS SELECT * FROM item");
    });
  });
  after(async () => await all.pair?.[Symbol.asyncDispose]());

  function run(
    command: typeof catchUpPush | typeof catchUpFetch | typeof catchUpList,
    words: readonly string[],
  ): Promise<CommandRun> {
    const { primary } = pair();
    const { cluster } = primary;
    const config: Partial<Config> = {
      postgres: {
        host: "127.0.0.1",
        port: cluster.port,
        user: "postgres",
        database: "postgres",
        applicationName: "walnut-test",
      },
      cacheDirectory: join(cluster.directory, "cache"),
      fsync: false,
    };
    // Each has arguments of its own.
    if (command === catchUpPush) return runCommand(catchUpPush, primary.storage, words, config);
    if (command === catchUpFetch) return runCommand(catchUpFetch, primary.storage, words, config);
    return runCommand(catchUpList, primary.storage, words, config);
  }

  test("the primary stores the pages that it lacks", async () => {
    const { primary, standby } = pair();
    const { cluster } = primary;
    await cluster.query(
      "CREATE TABLE big AS SELECT n, repeat('x', 500) FROM generate_series(1, 9000) n",
    );
    await cluster.query("CREATE TABLE short AS SELECT n FROM generate_series(1, 9000) n");
    await cluster.query("CREATE TABLE gone AS SELECT n FROM generate_series(1, 100) n");
    await cluster.query("ALTER TABLE big SET (autovacuum_enabled = off)");
    await cluster.query("VACUUM");
    await catchUp(pair());
    all.fromLsn = await standby.value("SELECT checkpoint_lsn - '0/0' FROM pg_control_checkpoint()");
    await standby.stop();
    const control = parsePgControl(readFileSync(join(standby.dataDirectory, "global/pg_control")));
    assert.ok(control.checkpointLsn >= BigInt(all.fromLsn));

    await cluster.query("UPDATE big SET n = -n WHERE n % 1000 = 0");
    await cluster.query("DELETE FROM short WHERE n > 10");
    await cluster.query("VACUUM short");
    await cluster.query("DROP TABLE gone");
    await cluster.query("UPDATE far SET n = -n WHERE n % 100 = 0");
    await cluster.query("CREATE DATABASE added STRATEGY wal_log");
    await cluster.query("CHECKPOINT");
    await cluster.switchWal();
    await cluster.query("CHECKPOINT");
    await assert.rejects(run(catchUpPush, [cluster.dataDirectory, "--from-lsn", "FFFF/0"]), {
      name: "RefusedError",
      message: /^--from-lsn FFFF\/0 lies behind the server's position 0\/[0-9A-F]+$/,
      hint: /checkpoint_lsn/,
    });
    const result = await run(catchUpPush, [cluster.dataDirectory, "--from-lsn", all.fromLsn]);
    const line = result.log.find((text) => text.startsWith("info: backup written")) ?? "";
    all.backup = /base_[0-9A-F]{24}/.exec(line)?.[0] ?? "";
    const sentinel = readFileSync(
      join(primary.repository, "catchup_005", `${all.backup}_backup_stop_sentinel.json`),
      "utf8",
    );
    const delta = `"DeltaLSN":${all.fromLsn},"DeltaFrom":"","DeltaFullName":"","DeltaCount":1,`;
    assert.ok(sentinel.includes(delta), sentinel);
    const parts = join(primary.repository, "catchup_005", all.backup, "tar_partitions");
    assert.ok((await readdir(parts)).length >= 3);
    const { contentBytes } = JSON.parse(sentinel.replace(/"UncompressedSize"/, '"contentBytes"'));
    assert.ok(contentBytes < 20_000_000, `${contentBytes}: ${line}`);
    assert.ok((await run(catchUpList, [])).stdout.includes(all.backup));
  });

  test("what would end in a wrong directory is refused, and nothing is changed", async () => {
    const { standby } = pair();
    const { dataDirectory } = standby;
    const fetch = () => run(catchUpFetch, [dataDirectory, all.backup ?? ""]);
    await writeFile(join(dataDirectory, "postmaster.pid"), "1\n");
    await assert.rejects(fetch(), { name: "RefusedError", message: /it holds postmaster\.pid/ });
    await rm(join(dataDirectory, "postmaster.pid"));

    const control = join(dataDirectory, "global/pg_control");
    await assert.rejects(run(catchUpFetch, [pair().primary.cluster.dataDirectory, "LATEST"]), {
      name: "RefusedError",
      message: /postmaster\.pid/,
    });
    const path = await pair().primary.cluster.value("SELECT pg_relation_filepath('big')");
    await rename(join(dataDirectory, path), join(dataDirectory, "away"));
    await assert.rejects(fetch(), {
      message: /lacks base.*, of which the backup has only changes/,
    });
    await rename(join(dataDirectory, "away"), join(dataDirectory, path));
    assert.ok(existsSync(control));
    await assert.rejects(run(catchUpFetch, [join(dataDirectory, "none"), "LATEST"]), {
      name: "RefusedError",
      message: /none does not exist on this host$/,
    });
    await assert.rejects(run(catchUpFetch, [join(dataDirectory, "base"), "LATEST"]), {
      name: "RefusedError",
    });
  });

  test("it is caught up without the WAL in between, page by page", async () => {
    const { primary, standby } = pair();
    const { dataDirectory } = standby;
    const backup = all.backup ?? "";
    for (const name of await readdir(join(primary.repository, "wal_005"))) {
      if (/^[0-9A-F]{24}/.test(name) && name < backup.slice(5)) {
        await rm(join(primary.repository, "wal_005", name));
      }
    }
    const link = join(dataDirectory, "pg_tblspc");
    const [oid = ""] = await readdir(link);
    const [release = ""] = await readdir(join(link, oid));
    const foreign = join(link, oid, "PG_17_202406281", "5");
    await mkdir(foreign, { recursive: true });
    await writeFile(join(foreign, "16384"), "of another cluster");
    await writeFile(join(link, oid, release, "5", "99999"), "of a dropped table");
    const stopped = new AbortController();
    const interrupted = fetchCatchUp(catchUpStorage(primary.storage), backup, dataDirectory, {
      downloadConcurrency: 1,
      codecJobs: 1,
      fsync: false,
      log: silentLog,
      signal: stopped.signal,
      onProgress: (doneBytes) => {
        if (doneBytes > 1024 * 1024) stopped.abort(new Error("interrupted"));
      },
    });
    await assert.rejects(interrupted, { message: "interrupted" });
    assert.ok(!existsSync(join(dataDirectory, "global/pg_control")), "no server can start");
    const { log } = await run(catchUpFetch, [dataDirectory, "LATEST"]);
    assert.match(log.at(-1) ?? "", /^info: caught up; start the standby/);
    assert.ok(existsSync(join(dataDirectory, "standby.signal")));
    assert.ok(existsSync(join(foreign, "16384")));
    assert.ok(!existsSync(join(link, oid, release, "5", "99999")));
    await rm(join(link, oid, "PG_17_202406281"), { recursive: true });
    const { cluster } = primary;
    await using caught = await restoreCluster(dataDirectory, {
      major: 18,
      signal: "standby",
      restoreCommand: `cp "${primary.repository}/wal_005/%f" "%p"`,
      settings: { primary_conninfo: `host=127.0.0.1 port=${cluster.port} user=postgres` },
    });
    assert.equal(caught.outcome, "consistent", caught.log());
    const lsn = await cluster.value("SELECT pg_current_wal_lsn()");
    await caught.waitFor(`SELECT pg_last_wal_replay_lsn() >= '${lsn}'`);
    assert.equal(await caught.contents(), await cluster.contents());
    await cluster.stop();
    await caught.stop();
    assert.deepEqual(comparePages(cluster.dataDirectory, dataDirectory), []);
  });
});
