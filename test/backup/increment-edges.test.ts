import assert from "node:assert/strict";
import { existsSync, readdirSync, statSync, utimesSync } from "node:fs";
import { writeFile } from "node:fs/promises";
import { join } from "node:path";
import { after, before, describe, test } from "node:test";
import { findBackup } from "../../src/backup/catalogue.ts";
import { codecOf } from "../../src/codec/table.ts";
import { isSecretKey } from "../../src/layout/secrecy.ts";
import { EncryptedStorage } from "../../src/storage/encrypted.ts";
import { sodiumCrypter } from "../crypto/crypters.ts";
import { type BackupWorld, backupWorldOf, startBackupWorld } from "../support/backup-world.ts";
import { restoreCluster } from "../support/postgres.ts";
import { restoreInto, snapshot } from "../support/restoring.ts";
import { scratchDirectory } from "../support/scratch-directory.ts";

const MAJOR = 16;
const increments = { maxSteps: 9, origin: "latest", ways: ["wal", "page-scan"] } as const;

describe("increments on the edge", () => {
  const all: { world?: BackupWorld } = {};
  function world(): BackupWorld {
    if (all.world === undefined) throw new Error("no world");
    return all.world;
  }
  const push = async (change: object = {}) =>
    await world().push({ increments, hasDatabaseNames: false, ...change });

  before(async () => {
    all.world = await startBackupWorld({ major: MAJOR });
    const { cluster } = world();
    const location = await cluster.makeDirectory("live");
    await cluster.query(`CREATE TABLESPACE other LOCATION '${location}'`);
    for (const [table, place] of [
      ["near", "pg_default"],
      ["far", "other"],
    ] as const) {
      await cluster.query(
        `CREATE TABLE ${table} TABLESPACE ${place} AS
         SELECT g AS id, repeat('x', 90) AS t FROM generate_series(1, 9000) g`,
      );
      await cluster.query(`VACUUM ${table}`);
    }
  });
  after(async () => await all.world?.[Symbol.asyncDispose]());

  test("the last segment that is needed is waited for, and its changes are in (E16)", async () => {
    const { cluster, repository, logged } = world();
    await push();
    const gate = join(cluster.directory, "gate");
    const wait = `while [ ! -e "${gate}" ]; do sleep 0.05; done`;
    await world().setArchiveCommand(`${wait}; cp "%p" "${repository}/wal_005/%f"`);
    await cluster.query("UPDATE near SET t = 'late' WHERE id = 4500");
    const pushing = push();
    const isEarly = Promise.race([pushing.then(() => true), cluster.waitFor(WAITING)]);
    assert.notEqual(await isEarly, true, "the backup did not wait for the archive");
    await writeFile(gate, "");
    const { name, baseName } = await pushing;
    assert.ok(baseName !== undefined, logged.join("\n"));
    assert.equal((await world().sentinel(name)).own?.changeSource, "wal");
    using scratch = scratchDirectory();
    assert.ok(await holdsText(name, scratch.path, "late"));
  });

  test("times that change without content, encrypted and in small parts (E18)", async () => {
    const { cluster } = world();
    // Sets what any reader would set later: nothing may change between the two backups.
    await cluster.query("VACUUM (FREEZE) near");
    const crypter = await sodiumCrypter();
    const rules = { crypter, decrypters: [], isSecret: isSecretKey, isPlainRead: true };
    const storage = new EncryptedStorage(world().storage, rules);
    const change = { storage, codec: codecOf("zstd"), thresholdBytes: 100_000 };
    const full = await push({ ...change, increments: { ...increments, fullReason: "a test" } });
    const directory = join(cluster.dataDirectory, "base", "5");
    const files = readdirSync(directory).map((name) => join(directory, name));
    for (const [index, file] of files.entries()) {
      const { mtimeMs } = statSync(file);
      // A second later, and so long ago that no clock was right.
      const time = new Date(index % 2 === 0 ? mtimeMs + 1000 : 1);
      utimesSync(file, time, time);
    }
    const pushed = await push({ ...change, increments: { ...increments, ways: ["page-scan"] } });
    assert.equal(pushed.baseName, full.name, world().logged.slice(-6).join("\n"));
    assert.ok(pushed.unchangedCount > files.length / 2, `${pushed.unchangedCount} are unchanged`);
    using scratch = scratchDirectory();
    const [first, second] = [join(scratch.path, "full"), join(scratch.path, "increment")];
    for (const [backup, place] of [
      [full.name, first],
      [pushed.name, second],
    ] as const) {
      const mappings = await mappingsTo(`${place} other`);
      await restoreInto(storage, place, { backup, tablespaces: { mappings } });
    }
    const [before_, now] = [snapshot(first), snapshot(second)];
    const name = (await cluster.value("SELECT pg_relation_filepath('near')")).trim();
    assert.ok(before_.get(name) !== undefined);
    assert.equal(now.get(name), before_.get(name));
  });

  test("a chain goes to mapped places and leaves the live tablespace alone (E20)", async () => {
    const { cluster, storage } = world();
    await push({ increments: { ...increments, fullReason: "a test" } });
    await cluster.query("UPDATE far SET t = 'moved' WHERE id = 4500");
    const { name: backup, baseName } = await push();
    assert.ok(baseName !== undefined);
    const live = join(cluster.directory, "live");
    using scratch = scratchDirectory();
    const destination = join(scratch.path, "data");
    await assert.rejects(restoreInto(storage, destination, { backup }), {
      name: "RefusedError",
      message: /of tablespace [0-9]+ is not empty$/,
    });
    assert.equal(existsSync(destination), false);
    await cluster.query("CHECKPOINT");
    const untouched = [...snapshot(live).keys()];
    const place = join(scratch.path, "other");
    await restoreInto(storage, destination, {
      backup,
      tablespaces: { mappings: await mappingsTo(place) },
    });
    const found = snapshot(destination);
    const map = found.get("tablespace_map") ?? "";
    assert.ok(map.includes(place) && !map.includes(live), map);
    const path = await cluster.value("SELECT pg_relation_filepath('far')");
    const [, , ...rest] = path.split("/");
    assert.match(snapshot(place).get(rest.join("/")) ?? "", /moved/);
    assert.deepEqual([...snapshot(live).keys()], untouched);
    assert.equal(await cluster.value("SELECT t FROM far WHERE id = 4500"), "moved");
  });

  test("a base on a timeline that the server left is passed over for a full backup", async () => {
    const { cluster, repository, storage } = world();
    const fork = await push({ increments: { ...increments, fullReason: "a test" } });
    const place = await cluster.makeDirectory("forked");
    const mappings = await mappingsTo(await cluster.makeDirectory("forked other"));
    await restoreInto(storage, place, { backup: fork.name, tablespaces: { mappings } });
    // Ahead of the fork on the old timeline: the newest backup there is.
    await cluster.query("UPDATE near SET t = 'never happened'");
    const stray = await push({ increments: { ...increments, ways: ["page-scan"] } });
    assert.equal(stray.baseName, fork.name);
    const signal = AbortSignal.timeout(120_000);
    assert.equal(await findBackup(storage, { kind: "latest" }, { signal }), stray.name);

    await using forked = await restoreCluster(place, {
      major: MAJOR,
      signal: "recovery",
      restoreCommand: `cp "${repository}/wal_005/%f" "%p"`,
      settings: {
        recovery_target: "immediate",
        recovery_target_action: "promote",
        archive_mode: "on",
        archive_command: `cp "%p" "${repository}/wal_005/%f"`,
      },
    });
    assert.equal(forked.outcome, "promoted", forked.log());
    const other = backupWorldOf(forked, repository);
    const { baseName } = await other.push({ increments, hasDatabaseNames: false });
    assert.notEqual(baseName, stray.name);
    const told = other.logged.join("\n");
    assert.match(told, new RegExp(`base of an increment backup=${stray.name} reason=.*timeline`));
  });

  async function mappingsTo(to: string) {
    const oid = await world().cluster.value(
      "SELECT oid FROM pg_tablespace WHERE spcname = 'other'",
    );
    return [{ from: oid, to }];
  }

  async function holdsText(backup: string, directory: string, text: string): Promise<boolean> {
    const destination = join(directory, "data");
    const mappings = await mappingsTo(join(directory, "other"));
    await restoreInto(world().storage, destination, { backup, tablespaces: { mappings } });
    const path = await world().cluster.value("SELECT pg_relation_filepath('near')");
    return snapshot(destination).get(path)?.includes(text) === true;
  }
});

/** A file in pg_wal waits for the archiver. */
const WAITING = "SELECT count(*) > 0 FROM pg_ls_archive_statusdir() WHERE name LIKE '%.ready'";
