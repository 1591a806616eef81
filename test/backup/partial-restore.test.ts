import assert from "node:assert/strict";
import { existsSync } from "node:fs";
import { join } from "node:path";
import { describe, test } from "node:test";
import { parseRestoreOnly, planPartialRestore } from "../../src/backup/partial-restore.ts";
import { backupFetch } from "../../src/commands/backup-fetch.ts";
import { bytesSource } from "../../src/io/bytes.ts";
import { filesMetadataKey, sentinelKey } from "../../src/layout/keys.ts";
import { formatSentinel } from "../../src/layout/sentinel.ts";
import { type BackupWorld, startBackupWorld } from "../support/backup-world.ts";
import { runCommand } from "../support/command-run.ts";
import { MemoryStorage } from "../support/memory-storage.ts";
import { type RestoredCluster, restoreCluster } from "../support/postgres.ts";
import { chownTree } from "../support/server-user.ts";

const signal = AbortSignal.timeout(600_000);
const NAME = "base_000000010000000000000002";

/** Of a backup as WAL-G makes it: nothing tells which index is whose. */
const walgs = {
  postgres: { oid: 5, tables_new: { "public.in_postgres": { oid: 20000, relfilenode: 20000 } } },
  first: {
    oid: 16400,
    tables_new: {
      "pg_catalog.pg_class": { oid: 1259, relfilenode: 17259 },
      "pg_catalog.pg_type": { oid: 1247, relfilenode: 1247 },
      "public.wide": { oid: 16401, relfilenode: 26401 },
      "public.wide_pkey": { oid: 16405, relfilenode: 26405 },
      "pg_toast.pg_toast_16401": { oid: 16402, relfilenode: 26402 },
      "pg_toast.pg_toast_16401_index": { oid: 16403, relfilenode: 26403 },
      "other.wide": { oid: 16410, relfilenode: 26410 },
      "other.w(1+)": { oid: 16411, relfilenode: 26411 },
      "public.parent": {
        oid: 16420,
        relfilenode: 0,
        subtables: { "public.leaf": { oid: 16421, relfilenode: 26421 } },
      },
    },
  },
  second: { oid: 16500, tables_new: { "public.wide": { oid: 16501, relfilenode: 16501 } } },
  unread: { oid: 16600, tables_new: {} },
};

async function planOf(choices: string, databases: object | undefined = walgs) {
  const storage = new MemoryStorage();
  const metadata = JSON.stringify({ Files: {}, DatabasesByNames: databases });
  const sentinel = formatSentinel({ isFilesMetadataDisabled: false, isPermanent: false });
  for (const [key, text] of [
    [sentinelKey(NAME), sentinel],
    [filesMetadataKey(NAME), metadata],
  ] as const) {
    await storage.put(key, bytesSource(Buffer.from(text)), { signal });
  }
  return await planPartialRestore(storage, NAME, parseRestoreOnly(choices), { signal });
}

const PATHS = [
  "base/16400/26401",
  "base/16400/26402.1",
  "base/16400/26403_fsm",
  "base/16400/26405",
  "base/16400/26410",
  "base/16400/26411",
  "base/16400/26421",
  "pg_tblspc/17000/PG_16_202307071/16500/16501_vm",
];

/** Whatever is chosen, without these no server starts, or no catalog can be read. */
const ALWAYS = [
  "PG_VERSION",
  "backup_label",
  "tablespace_map",
  "global/pg_control",
  "global/1262",
  "global/26000",
  "pg_xact/0000",
  "base/5/20000",
  "base/16400/PG_VERSION",
  "base/16400/pg_filenode.map",
  "base/16400/1247",
  "base/16400/17259",
  "base/16600/26600",
  "base/99999/26601",
];

const chosen: readonly (readonly [choices: string, wanted: readonly number[], reduced?: string])[] =
  [
    ["first", [0, 1, 2, 3, 4, 5, 6]],
    ["second", [7]],
    ["postgres", []],
    ["fi*,second", [0, 1, 2, 3, 4, 5, 6, 7]],
    ["first/wide", [0, 1, 2], "first"],
    ["first/public.wide", [0, 1, 2], "first"],
    ["first/other/wide", [4], "first"],
    ["first/other.*", [4, 5], "first"],
    ["first/other/w(1+)", [5], "first"],
    ["first/parent", [6], "first"],
    ["first/leaf, second", [6, 7], "first"],
    ["*/wide", [0, 1, 2, 7], "first,second"],
    ["first,first/wide", [0, 1, 2, 3, 4, 5, 6]],
  ];

for (const [choices, wanted, reduced = ""] of chosen) {
  test(`what --restore-only=${choices} takes`, async () => {
    const plan = await planOf(choices);
    const found = PATHS.flatMap((path, index) => (plan.isWanted(path) ? [index] : []));
    assert.deepEqual(found, wanted);
    assert.deepEqual(
      ALWAYS.filter((path) => !plan.isWanted(path)),
      [],
    );
    assert.equal(plan.reduced.join(","), reduced);
    assert.deepEqual(plan.unlisted, ["unread"]);
    const isFirstLeft = !/first|fi\*|\*\//.test(choices);
    assert.equal(plan.leftOut.includes("first"), isFirstLeft);
    assert.equal(
      plan.hasIndexes,
      !/wide/.test(reduced === "" ? "" : choices) || choices.includes("other"),
    );
  });
}

const refused: readonly (readonly [choices: string, message: RegExp, databases?: object])[] = [
  ["third", /^no database of backup base_\w+ is "third"$/],
  ["first,First", /^no database of backup base_\w+ is "First"$/],
  ["f.rst", /^no database of backup base_\w+ is "f\.rst"$/],
  ["irs", /^no database of backup base_\w+ is "irs"$/],
  ["first/none", /^no table of backup base_\w+ is "first\/none"$/],
  ["second/wide,first/wid", /^no table of backup base_\w+ is "first\/wid"$/],
  ["first", /^backup base_\w+ does not list its databases and tables$/, {}],
];

for (const [choices, message, databases] of refused) {
  test(`refuses --restore-only=${choices}${databases === undefined ? "" : " of nothing"}`, async () => {
    await assert.rejects(planOf(choices, databases), { name: "RefusedError", message });
  });
}

describe("a chain of a real server", () => {
  test("chosen databases and tables are whole, the others can be dropped", async () => {
    await using world = await startBackupWorld({ major: 17, settings: { autovacuum: "off" } });
    const { cluster } = world;
    await fill(world);
    const increments = { maxSteps: 9, origin: "latest", ways: ["page-scan"] } as const;
    await world.push({ increments });
    for (const database of ["first", "second", "third"]) await change(world, database);
    const { name, baseName } = await world.push({ increments });
    assert.ok(baseName !== undefined);
    // Replay meets relations of which nothing was restored.
    for (const database of ["first", "second", "third"]) {
      await cluster.query("UPDATE wide SET id = id + 1000 WHERE id > 100", database);
    }
    await cluster.query("INSERT INTO narrow VALUES (1)", "first");
    await cluster.switchWal();
    await cluster.waitForArchiver();

    const destination = join(cluster.directory, "partial");
    const space = join(cluster.directory, "partial space");
    const oid = await cluster.value("SELECT oid FROM pg_tablespace WHERE spcname = 'far'");
    const { log } = await runCommand(
      backupFetch,
      world.storage,
      [
        destination,
        name,
        "--restore-only=first/wide,second",
        `--tablespace-mapping=${oid}=${space}`,
      ],
      { fsync: false },
    );
    assert.match(log.join("\n"), /warning: left out: .*"databases":"third"/);
    assert.match(log.join("\n"), /warning: restored in part: .*"databases":"first"/);
    assert.doesNotMatch(log.join("\n"), /REINDEX/);
    const absent = await cluster.value("SELECT pg_relation_filepath('near')", "third");
    assert.equal(existsSync(join(destination, absent)), false);

    await chownTree(space, cluster.user);
    const wanted = await stateOf(world.cluster);
    await using restored = await restoreCluster(destination, {
      major: 17,
      signal: "recovery",
      restoreCommand: `cp "${world.repository}/wal_005/%f" "%p"`,
    });
    assert.equal(restored.outcome, "promoted", restored.log());
    assert.deepEqual(await stateOf(restored), wanted);
    await assertLeftOut(restored);
  });
});

/** The third one has catalogs with file names that a user's table could have. */
async function fill({ cluster }: BackupWorld): Promise<void> {
  const location = await cluster.makeDirectory("far");
  await cluster.query(`CREATE TABLESPACE far LOCATION '${location}'`);
  for (const name of ["first", "second", "third"]) {
    await cluster.query(`CREATE DATABASE ${name}`);
    await cluster.query(
      `CREATE TABLE wide (id int PRIMARY KEY, t text) TABLESPACE far;
       ALTER TABLE wide ALTER COLUMN t SET STORAGE EXTERNAL;
       INSERT INTO wide SELECT g, repeat('${name}', 100 + g * 20) FROM generate_series(1, 200) g;
       CREATE TABLE near AS SELECT g AS id, repeat('n', 50) AS t FROM generate_series(1, 500) g;
       CREATE TABLE narrow (id int)`,
      name,
    );
    await cluster.query("VACUUM FULL pg_class", name);
    await cluster.query("VACUUM FULL pg_type", name);
  }
}

async function change({ cluster }: BackupWorld, database: string): Promise<void> {
  await cluster.query("UPDATE wide SET t = t || 'changed' WHERE id % 9 = 0", database);
  await cluster.query("VACUUM FULL pg_attribute", database);
  await cluster.query("CREATE TABLE later AS SELECT 1 AS id", database);
}

/** Of what was chosen: rows and TOAST. */
async function stateOf(cluster: BackupWorld["cluster"]): Promise<readonly string[]> {
  const digest = "SELECT count(*) || md5(string_agg(md5(t), '' ORDER BY id)) FROM wide";
  return [
    await cluster.value(digest, "first"),
    await cluster.value(digest, "second"),
    await cluster.value("SELECT count(*) FROM near", "second"),
    await cluster.value("SELECT id FROM later", "second"),
  ];
}

async function assertLeftOut(restored: RestoredCluster): Promise<void> {
  for (const database of ["postgres", "template1", "first", "second", "third"]) {
    assert.notEqual(await restored.value("SELECT count(*) FROM pg_attribute", database), "0");
  }
  await assert.rejects(restored.query("SELECT count(*) FROM near", "third"), /could not open file/);
  await assert.rejects(restored.query("SELECT count(*) FROM near", "first"), /could not open file/);
  for (const database of ["first", "second"]) {
    await restored.query("CREATE EXTENSION amcheck", database);
    await restored.query("SELECT bt_index_check('wide_pkey', true)", database);
  }
  await restored.query("DROP DATABASE third");
  await restored.query("CREATE DATABASE third");
  await restored.query("CREATE TABLE wide AS SELECT 1 AS id", "third");
  await restored.query("CHECKPOINT");
}
