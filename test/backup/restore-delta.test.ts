import assert from "node:assert/strict";
import {
  cpSync,
  existsSync,
  mkdirSync,
  readdirSync,
  readFileSync,
  rmSync,
  symlinkSync,
  writeFileSync,
} from "node:fs";
import { join } from "node:path";
import { after, before, describe, test } from "node:test";
import type { RestoreOptions, RestoreReport } from "../../src/backup/restore.ts";
import { type BackupWorld, startBackupWorld } from "../support/backup-world.ts";
import { restoreCluster } from "../support/postgres.ts";
import { restoreInto, snapshot } from "../support/restoring.ts";
import { scratchDirectory } from "../support/scratch-directory.ts";
import { chownTree } from "../support/server-user.ts";
import { checkHeaps } from "../support/soundness.ts";

const increments = { maxSteps: 9, origin: "latest" } as const;
const strict = { isOtherClusterAllowed: false, isWalDiscarded: false };
const lenient = { isOtherClusterAllowed: false, isWalDiscarded: true };

/** Both trees without what names their own place. */
function trees(directory: string): readonly ReadonlyMap<string, string>[] {
  return [directory, `${directory} space`].map((root) => {
    const found = new Map(snapshot(root));
    for (const [path, what] of found) {
      if (path === "tablespace_map") found.set(path, what.replace(directory, "<here>"));
      if (what.startsWith("link")) found.set(path, what.replace(directory, "<here>"));
    }
    return found;
  });
}

describe("a delta restore", () => {
  const all: { world?: BackupWorld; backup?: string; contents?: string } = {};
  /** Of the stopped server, whose files moved on after the backup. */
  const scratch = scratchDirectory();
  function world(): BackupWorld {
    if (all.world === undefined) throw new Error("no world");
    return all.world;
  }
  const mappings = (directory: string) => ({
    mappings: [{ from: location(), to: `${directory} space` }],
  });
  function location(): string {
    return join(world().cluster.directory, "space");
  }

  before(async () => {
    all.world = await startBackupWorld({ major: 14 });
    const { cluster } = world();
    const space = await cluster.makeDirectory("space");
    await cluster.query(`CREATE TABLESPACE s LOCATION '${space}'`);
    await cluster.query(
      `CREATE TABLE big AS SELECT g AS id, repeat('b', 100) AS t FROM generate_series(1, 50000) g;
       CREATE TABLE there (id int) TABLESPACE s; INSERT INTO there SELECT generate_series(1, 5000)`,
    );
    await cluster.query("VACUUM big");
    await world().push({ increments });
    await cluster.query("UPDATE big SET t = 'one' WHERE id = 7; DELETE FROM there WHERE id < 100");
    all.backup = (await world().push({ increments })).name;
    all.contents = await cluster.contents();
    await cluster.query("UPDATE big SET t = 'two' WHERE id > 49990; CREATE TABLE newer (a int)");
    await cluster.stop();
  });
  after(async () => {
    scratch[Symbol.dispose]();
    await all.world?.[Symbol.asyncDispose]();
  });

  /** A copy of the server's directory and tablespace, linked to each other. */
  function copyOf(name: string): string {
    const { dataDirectory } = world().cluster;
    const copy = join(scratch.path, name);
    cpSync(dataDirectory, copy, { recursive: true, verbatimSymlinks: true });
    cpSync(location(), `${copy} space`, { recursive: true });
    const link = join(copy, "pg_tblspc");
    for (const oid of readdirSync(link)) {
      rmSync(join(link, oid));
      symlinkSync(`${copy} space`, join(link, oid));
    }
    return copy;
  }

  async function restore(
    directory: string,
    options: Partial<RestoreOptions> = {},
  ): Promise<RestoreReport> {
    const { backup = "" } = all;
    const tablespaces = mappings(directory);
    return await restoreInto(world().storage, directory, { backup, tablespaces, ...options });
  }

  test("gives what a restore into an empty directory gives, and writes what differs", async () => {
    const [fresh, copy] = [join(scratch.path, "fresh"), copyOf("copy")];
    await restore(fresh);
    writeFileSync(join(copy, "base", "stray"), "not of the backup");
    writeFileSync(join(copy, "recovery.signal"), "");
    const report = await restore(copy, { delta: lenient });
    assert.deepEqual(trees(copy), trees(fresh));
    assert.ok(report.keptBytes > 15_000_000, `${report.keptBytes} bytes were kept`);
    assert.ok((report.changedBytes ?? 1e9) < 3_000_000, `${report.changedBytes} bytes changed`);

    await using restored = await restoreCluster(copy, {
      major: 14,
      signal: "recovery",
      restoreCommand: "false",
    });
    assert.equal(restored.outcome, "exited", "without its WAL the backup is not consistent");
  });

  test("it recovers to every row, with pg_wal and logs elsewhere and kept", async () => {
    const copy = copyOf("linked");
    const wal = join(scratch.path, "wal");
    cpSync(join(copy, "pg_wal"), wal, { recursive: true });
    rmSync(join(copy, "pg_wal"), { recursive: true });
    symlinkSync(wal, join(copy, "pg_wal"));
    mkdirSync(join(copy, "log"));
    writeFileSync(join(copy, "log", "server.log"), "why it crashed");
    await restore(copy, { delta: lenient });
    assert.equal(readFileSync(join(copy, "log", "server.log"), "utf8"), "why it crashed");
    assert.deepEqual([...snapshot(wal).keys()], ["", "archive_status"]);
    const { cluster, repository } = world();
    for (const path of [wal, `${copy} space`]) await chownTree(path, cluster.user);
    await chownTree(scratch.path, cluster.user);
    await using restored = await restoreCluster(copy, {
      major: 14,
      signal: "recovery",
      restoreCommand: `cp "${repository}/wal_005/%f" "%p"`,
      settings: { recovery_target: "immediate", recovery_target_action: "promote" },
    });
    assert.equal(restored.outcome, "promoted", restored.log());
    assert.equal(await restored.contents(), all.contents);
    await checkHeaps(restored);
  });

  test("killed at any moment nothing starts, and the same command finishes it", async () => {
    const fresh = join(scratch.path, "other fresh");
    await restore(fresh);
    for (const [index, limitBytes] of [0, 18_000_000].entries()) {
      const copy = copyOf(`killed ${index}`);
      const stop = new AbortController();
      const failing = restore(copy, {
        delta: lenient,
        signal: stop.signal,
        onProgress: (doneBytes) => {
          if (doneBytes > limitBytes + 8192 * 3) stop.abort(new Error("killed by the test"));
        },
      });
      await assert.rejects(failing, { message: "killed by the test" });
      const isBegun = !existsSync(join(copy, "global", "pg_control"));
      assert.equal(existsSync(join(copy, "global", "pg_control.walnut")), isBegun);
      await restore(copy, index === 1 ? {} : { delta: lenient });
      assert.deepEqual(trees(copy), trees(fresh), `${limitBytes}`);
    }
  });

  test("refuses what it must not touch, and changes nothing", async () => {
    const copy = copyOf("refused");
    const ready = join(copy, "pg_wal", "archive_status", "000000010000000000000099.ready");
    writeFileSync(ready, "");
    const wrong: readonly (readonly [options: Partial<RestoreOptions>, message: RegExp])[] = [
      [{}, /is not empty$/],
      [{ delta: strict }, /were never archived, the first is 0000000100000000000000/],
    ];
    const before = trees(copy);
    for (const [options, message] of wrong)
      await assert.rejects(restore(copy, options), { message });
    assert.deepEqual(trees(copy), before);

    const control = join(copy, "global", "pg_control");
    const own = readFileSync(control);
    const other = Buffer.from(own);
    other.writeBigUInt64LE(1n, 0);
    writeFileSync(control, other);
    await assert.rejects(restore(copy, { delta: lenient }), {
      name: "WrongClusterError",
      message: /belongs to cluster 1, the backup to \d+$/,
    });
    writeFileSync(join(copy, "postmaster.pid"), "1\n");
    const delta = { isOtherClusterAllowed: true, isWalDiscarded: true };
    await assert.rejects(restore(copy, { delta }), {
      message: /a server may use .*postmaster.pid$/,
    });
    rmSync(join(copy, "postmaster.pid"));
    await assert.rejects(restore(copy, { delta, mask: () => false }), {
      message: /needs a backup that walnut made, and all of it$/,
    });
    // A location that another data directory uses.
    const tablespaces = { mappings: [] };
    await assert.rejects(restore(copy, { delta, tablespaces }), { message: /is not empty$/ });
    assert.deepEqual(readFileSync(control), other);
    await restore(copy, { delta });
    assert.equal(existsSync(ready), false);
  });
});
