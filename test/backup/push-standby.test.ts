import assert from "node:assert/strict";
import { join } from "node:path";
import { after, before, describe, test } from "node:test";
import type { PushedBackup } from "../../src/backup/push.ts";
import type { PushChange } from "../support/backup-world.ts";
import { HookedStorage } from "../support/hooked-storage.ts";
import { restoreCluster } from "../support/postgres.ts";
import { restoreInto } from "../support/restoring.ts";
import { catchUp, type Pair, startPair } from "../support/standby-pair.ts";
import { until } from "../support/until.ts";

/** Takes a backup of the standby while the primary ends the last segment. */
async function push(
  { primary, world }: Pair,
  change: PushChange = {},
  isRemote = false,
): Promise<PushedBackup> {
  const from = world.logged.length;
  const ended = new AbortController();
  const settings = { stopTimeoutMs: 60_000, ...change };
  const pushing = isRemote ? world.pushRemote(settings) : world.push(settings);
  pushing.finally(() => ended.abort()).catch(() => {});
  const isRead = (): boolean =>
    world.logged.slice(from).some((line) => line.startsWith("info: all files are read"));
  await until("all files are read", () => isRead() || ended.signal.aborted);
  await primary.cluster.switchWal();
  return await pushing;
}

/** What a restore of the backup and all WAL gives is what the primary holds. */
async function assertRestores({ primary, world }: Pair, backup: string): Promise<void> {
  const destination = join(primary.cluster.directory, `restored ${backup}`);
  await restoreInto(world.storage, destination, { backup });
  await using restored = await restoreCluster(destination, {
    major: primary.cluster.major,
    signal: "recovery",
    restoreCommand: `cp "${primary.repository}/wal_005/%f" "%p"`,
    settings: { primary_conninfo: "" },
  });
  assert.equal(restored.outcome, "promoted", restored.log());
  assert.equal(await restored.contents(), await primary.cluster.contents());
}

const isLong = process.env["WALNUT_LONG"] === "1";
for (const major of isLong ? ([13, 18] as const) : ([18] as const)) {
  describe(`a standby of PostgreSQL ${major}`, () => {
    const all: { pair?: Pair } = {};
    function pair(): Pair {
      if (all.pair === undefined) throw new Error("no servers");
      return all.pair;
    }
    before(async () => {
      all.pair = await startPair(major);
    });
    after(async () => await all.pair?.[Symbol.asyncDispose]());

    test("is backed up; the last segment comes from the primary", async () => {
      const { primary, standby } = pair();
      await catchUp(pair());
      await primary.cluster.query("UPDATE item SET text = 'new' WHERE n % 3 = 0");
      const lsn = await primary.cluster.value("SELECT pg_current_wal_lsn()");
      await standby.waitFor(`SELECT pg_last_wal_replay_lsn() >= '${lsn}'`);
      const { name } = await push(pair());
      await assertRestores(pair(), name);
    });

    test("an increment of it is based on a backup that ended before its restartpoint", async () => {
      const { primary, world } = pair();
      await primary.cluster.query("UPDATE item SET text = 'newer' WHERE n = 7");
      await primary.cluster.switchWal();
      await catchUp(pair());
      const increments = { maxSteps: 5, origin: "latest" } as const;
      const { name, baseName } = await push(pair(), { increments });
      assert.ok(baseName !== undefined, world.logged.join("\n"));
      await assertRestores(pair(), name);
    });

    test("is backed up over the replication protocol", async () => {
      const { primary } = pair();
      await primary.cluster.query("UPDATE item SET text = 'newest' WHERE n = 8");
      await primary.cluster.switchWal();
      await catchUp(pair());
      const { name } = await push(pair(), {}, true);
      await assertRestores(pair(), name);
    });

    test("a last segment that does not come ends the backup with what to do", async () => {
      const { primary, world } = pair();
      await primary.cluster.query("INSERT INTO item VALUES (0, 'more')");
      await primary.cluster.switchWal();
      await catchUp(pair());
      const before = await world.keys("basebackups_005/");
      await assert.rejects(world.push({ stopTimeoutMs: 300 }), (error: unknown) => {
        assert.ok(error instanceof Error && "hint" in error);
        assert.match(error.message, /^WAL segment [0-9A-F]{24} did not arrive in .* within 0\.3 s/);
        assert.match(String(error.hint), /SELECT pg_switch_wal\(\) there, and set archive_timeout/);
        return true;
      });
      assert.deepEqual(await world.keys("basebackups_005/"), before, "nothing is left");
    });

    test("WAL without full page writes is refused in the server's words", async () => {
      const { primary, world, standby } = pair();
      await primary.cluster.configure({ full_page_writes: "off" });
      await primary.cluster.waitFor("SELECT current_setting('full_page_writes') = 'off'");
      await primary.cluster.query("INSERT INTO item VALUES (0, 'more')");
      const lsn = await primary.cluster.value("SELECT pg_switch_wal()");
      await standby.waitFor(`SELECT pg_last_wal_replay_lsn() >= '${lsn}'`);
      await assert.rejects(world.push(), (error: unknown) => {
        assert.ok(error instanceof Error && "hint" in error);
        assert.match(error.message, /full_page_writes=off.* was replayed since last restartpoint/);
        assert.match(String(error.hint), /Enable "?full_page_writes"? and run CHECKPOINT on the /);
        return true;
      });
      await primary.cluster.configure({ full_page_writes: "on" });
      await primary.cluster.waitFor("SELECT current_setting('full_page_writes') = 'on'");
      await primary.cluster.query("CHECKPOINT");
    });

    test("its promotion during the backup ends that", async () => {
      const { primary, world, standby } = pair();
      await primary.cluster.query("INSERT INTO item VALUES (0, 'more')");
      await primary.cluster.switchWal();
      await catchUp(pair());
      const before = await world.keys("basebackups_005/");
      let isPromoted = false;
      const storage = new HookedStorage(world.storage, {
        beforePut: async () => {
          if (isPromoted) return;
          isPromoted = true;
          await standby.query("SELECT pg_promote()");
        },
      });
      await assert.rejects(world.push({ storage }), (error: unknown) => {
        assert.ok(error instanceof Error && "hint" in error);
        assert.match(error.message, /standby was promoted during online backup/);
        assert.match(String(error.hint), /should not be used/);
        return true;
      });
      assert.ok(isPromoted);
      assert.deepEqual(await world.keys("basebackups_005/"), before, "nothing is left");
    });
  });
}
