import assert from "node:assert/strict";
import { rmSync, writeFileSync } from "node:fs";
import { readFile, writeFile } from "node:fs/promises";
import { join } from "node:path";
import { after, before, test } from "node:test";
import { readControlFile } from "../../src/backup/control-file.ts";
import {
  requireCheckpoint,
  requireDataDirectory,
  statsDirectoryOf,
  tablespaceDirectoryOf,
} from "../../src/backup/preflight.ts";
import { connectPostgres } from "../../src/connection/connect.ts";
import { readServerFacts, type ServerFacts } from "../../src/connection/server-facts.ts";
import { systemClock } from "../../src/io/clock.ts";
import { lsn } from "../../src/postgres/lsn.ts";
import { type Cluster, initCluster, startCluster } from "../support/postgres.ts";

const signal = AbortSignal.timeout(120_000);
const world = { clock: systemClock, signal };
const all: { cluster?: Cluster; facts?: ServerFacts } = {};

function parts(): { readonly cluster: Cluster; readonly facts: ServerFacts } {
  const { cluster, facts } = all;
  if (cluster === undefined || facts === undefined) throw new Error("no cluster");
  return { cluster, facts };
}

before(async () => {
  const cluster = await startCluster({ major: 14, segmentMiB: 1 });
  all.cluster = cluster;
  const settings = {
    host: "127.0.0.1",
    port: cluster.port,
    user: "postgres",
    database: "postgres",
    applicationName: "walnut-test",
  };
  await using session = await connectPostgres(settings, { signal });
  all.facts = await readServerFacts(session, { signal });
});
after(async () => await all.cluster?.[Symbol.asyncDispose]());

test("the server's own directory is right", async () => {
  const { cluster, facts } = parts();
  const directory = await requireDataDirectory(cluster.dataDirectory, facts, world);
  assert.equal(directory, facts.dataDirectory);
});

test("files of a server that is not in production are refused", async () => {
  const { facts } = parts();
  await using standby = await initCluster({ major: 14 });
  const { control } = await readControlFile(standby.dataDirectory, world);
  const { dataDirectory } = standby;
  const claimed = { ...facts, dataDirectory, systemId: control.systemId };
  await assert.rejects(requireDataDirectory(dataDirectory, claimed, world), (error: unknown) => {
    assert.ok(error instanceof Error && "hint" in error);
    assert.equal(error.name, "RefusedError");
    assert.match(
      error.message,
      /data is of a server that is shut down, but the server that we talk/,
    );
    assert.match(String(error.hint), /host of a standby/);
    return true;
  });
});

const others = [
  ["another cluster", { systemId: 7n }, /holds cluster \d{19} of PostgreSQL 14, but .* cluster 7 /],
  ["another release", { majorVersion: 15 }, /of PostgreSQL 14, but .* of PostgreSQL 15$/],
] as const;

for (const [what, change, message] of others) {
  test(`files of ${what} are refused`, async () => {
    const { cluster, facts } = parts();
    const checked = requireDataDirectory(cluster.dataDirectory, { ...facts, ...change }, world);
    await assert.rejects(checked, { name: "RefusedError", message });
  });
}

test("a directory without a readable PG_VERSION is refused", async () => {
  const { cluster, facts } = parts();
  const version = join(cluster.dataDirectory, "PG_VERSION");
  const message = `${facts.dataDirectory} is no data directory: it has no readable PG_VERSION`;
  for (const change of [() => writeFileSync(version, "fourteen\n"), () => rmSync(version)]) {
    change();
    const checked = requireDataDirectory(cluster.dataDirectory, facts, world);
    await assert.rejects(checked, { name: "RefusedError", message });
  }
  await writeFile(version, "14\n");
});

test("a control file without the checkpoint of our start is refused", async () => {
  const { cluster, facts } = parts();
  const { control } = await readControlFile(facts.dataDirectory, world);
  const segment = "000000010000000000000001";
  await requireCheckpoint(cluster.dataDirectory, { startLsn: control.redoLsn, segment }, world);
  const startLsn = lsn(control.redoLsn + 8n);
  await assert.rejects(requireCheckpoint(cluster.dataDirectory, { startLsn, segment }, world), {
    name: "RefusedError",
    message: /^the files in .*data are not the server's: its last checkpoint began at 0\//,
  });
});

test("a control file that is being written is read again, a damaged one is an error", async () => {
  await using other = await initCluster({ major: 14 });
  const path = join(other.dataDirectory, "global/pg_control");
  const whole = await readFile(path);
  const torn = Buffer.from(whole);
  torn.fill(0, 40, 48);
  await writeFile(path, torn);
  const sleeps: number[] = [];
  const clock = {
    ...systemClock,
    async sleep(ms: number) {
      sleeps.push(ms);
      if (sleeps.length === 3) await writeFile(path, whole);
    },
  };
  const { bytes } = await readControlFile(other.dataDirectory, { clock, signal });
  assert.deepEqual(bytes, whole);
  assert.equal(sleeps.length, 3);

  await writeFile(path, torn);
  const instant = { ...systemClock, sleep: async () => {} };
  await assert.rejects(readControlFile(other.dataDirectory, { clock: instant, signal }), {
    name: "LocalFileError",
    message: /global\/pg_control can't be read: pg_control has a wrong CRC/,
  });
});

test("directories are named as the server names them", () => {
  const { facts } = parts();
  assert.equal(tablespaceDirectoryOf(facts), "PG_14_202107181");
  const of = (statsDirectory: string | undefined) =>
    statsDirectoryOf({ ...facts, statsDirectory }, "/data");
  assert.equal(of(undefined), undefined);
  assert.equal(of("pg_stat_tmp"), "pg_stat_tmp");
  assert.equal(of("stats/"), "stats");
  assert.equal(of("/data/stats"), "stats");
  assert.equal(of("/run/stats"), undefined);
  assert.equal(of("/data"), undefined);
});
