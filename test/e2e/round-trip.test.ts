import { test } from "node:test";
import assert from "node:assert/strict";
import { lstat, readFile, readlink } from "node:fs/promises";
import { join } from "node:path";
import { MAJORS, type Major, initCluster, restoreCluster } from "../support/postgres.ts";
import { install } from "../support/repository.ts";
import { availableS3Servers, startS3Server } from "../support/s3-server.ts";
import { leaveOut } from "../support/left-out.ts";
import { checkHeaps, checkPageChecksums } from "../support/soundness.ts";

interface Shape {
  readonly major: Major;
  readonly segmentMiB: number;
  readonly method: "zstd" | "lz4" | "brotli" | "lzma" | "none";
}

/** One row a release; segment sizes and codecs are spread over them. */
const shapes: readonly Shape[] = MAJORS.map((major, index) => ({
  major,
  segmentMiB: major === 15 ? 64 : 1,
  method: (["zstd", "lz4", "brotli", "none", "zstd", "lzma"] as const)[index] ?? "zstd",
}));

/** Two segments instead of dozens, and no gigabytes of zeros. */
const LARGE_SEGMENTS = { min_wal_size: "2GB", max_wal_size: "3GB", wal_init_zero: "off" };

const SCHEMA = [
  "create role reporting login",
  'create database "second base"',
  "create table plain (id bigint primary key, body text)",
  "insert into plain select i, repeat('row ' || i, 20) from generate_series(1, 5000) i",
  "create index on plain (body)",
  "create table wide (id int primary key, body text)",
  "alter table wide alter column body set storage external",
  "insert into wide select i, repeat(md5(i::text), 300) from generate_series(1, 40) i",
  "create unlogged table scratch (id int)",
  "insert into scratch select generate_series(1, 1000)",
  "create table far (id int primary key) tablespace distant",
  "insert into far select generate_series(1, 3000)",
  "create sequence numbers start 100",
  "select nextval('numbers')",
  'create table "odd name; --" ("col umn" text)',
  `insert into "odd name; --" values ('ü € 漢')`,
  "create materialized view summary as select count(*) from plain",
];

const CHANGES = [
  "insert into plain select i, 'later ' || i from generate_series(5001, 6000) i",
  "delete from plain where id % 7 = 0",
  "update far set id = id + 10000 where id < 500",
  "create table younger as select * from plain where id < 100",
  "drop table wide",
  // Not nextval: recovery leaves a sequence up to 32 values ahead, by design.
  "select setval('numbers', 500)",
  "truncate scratch",
];

/** Without where the tablespaces lie, which the restore changes, and each dump's random key. */
function comparable(dump: string | undefined): string | undefined {
  return dump
    ?.replaceAll(/^(CREATE TABLESPACE .*) LOCATION '.*';$/gm, "$1;")
    .replaceAll(/^(\\(?:un)?restrict) .*$/gm, "$1");
}

async function roundTrip(
  { major, segmentMiB, method }: Shape,
  settings: (directory: string) => Readonly<Record<string, string>>,
): Promise<void> {
  await using cluster = await initCluster({
    major,
    segmentMiB,
    dataDirectoryName: "data of the main cluster",
    settings: { archive_mode: "on", ...(segmentMiB >= 1024 ? LARGE_SEGMENTS : {}) },
  });
  const walDirectory = await cluster.makeDirectory("wal elsewhere");
  await cluster.moveWal(walDirectory);
  const walnut = await install(cluster, {
    WALG_COMPRESSION_METHOD: method,
    ...settings(await cluster.makeDirectory("repository")),
  });
  await cluster.configure({ archive_command: walnut.archiveCommand });
  await cluster.start();

  const location = await cluster.makeDirectory("distant space");
  await cluster.query(`create tablespace distant location '${location}'`);
  for (const sql of SCHEMA) await cluster.query(sql);
  await cluster.query("create table other (id int)", "second base");
  await walnut.mustRun("backup-push", cluster.dataDirectory);
  for (const sql of CHANGES) await cluster.query(sql);
  await cluster.switchWal();
  await cluster.waitForArchiver();
  const dumped = cluster.dumpAll();
  const contents = await cluster.contents();

  const target = join(cluster.directory, "restored data");
  const mapped = join(cluster.directory, "mapped space");
  await walnut.mustRun(
    "backup-fetch",
    target,
    "LATEST",
    "--tablespace-mapping",
    `${location}=${mapped}`,
  );
  assert.ok(
    (await lstat(join(target, "pg_wal"))).isDirectory(),
    "pg_wal is a directory of its own",
  );
  const oid = await cluster.value("select oid from pg_tablespace where spcname = 'distant'");
  assert.equal(await readlink(join(target, "pg_tblspc", oid)), mapped);
  const map = await readFile(join(target, "tablespace_map"), "utf8");
  assert.ok(map.includes(mapped) && !map.includes(location), `never the live tablespace: ${map}`);

  await using restored = await restoreCluster(target, {
    major,
    signal: "recovery",
    restoreCommand: walnut.restoreCommand,
  });
  assert.equal(restored.outcome, "promoted", restored.log());
  assert.equal(await restored.contents(), contents);
  assert.equal(comparable(restored.dumpAll()), comparable(dumped));
  await restored.query("insert into scratch values (1)");
  await checkHeaps(restored);
  await restored.stop();
  await checkPageChecksums(restored, [mapped]);
}

for (const shape of shapes) {
  const { major, segmentMiB, method } = shape;
  test(`round trip on PostgreSQL ${major}: ${segmentMiB} MiB segments, ${method}`, async () => {
    await roundTrip(shape, (directory) => ({ WALG_FILE_PREFIX: directory }));
  });
}

const isLong = process.env["WALNUT_LONG"] === "1";
if (isLong) {
  test("round trip with segments of 1 GiB (P34)", async () => {
    await roundTrip({ major: 17, segmentMiB: 1024, method: "zstd" }, (directory) => ({
      WALG_FILE_PREFIX: directory,
    }));
  });
}

const servers = await availableS3Servers();
if (servers.length === 0) leaveOut("round trip on S3", "no S3 server on this machine");
// Each passes the contract suite; a long run goes the whole way on all of them.
for (const kind of isLong ? servers : servers.slice(0, 1)) {
  test(`round trip on S3 (${kind})`, async () => {
    const server = await startS3Server(kind);
    try {
      await roundTrip({ major: 17, segmentMiB: 16, method: "zstd" }, () => ({
        WALG_S3_PREFIX: `s3://${server.bucket}/cluster one`,
        AWS_ENDPOINT: server.endpoint,
        AWS_REGION: "us-east-1",
        AWS_S3_FORCE_PATH_STYLE: "true",
        AWS_ACCESS_KEY_ID: server.accessKeyId,
        AWS_SECRET_ACCESS_KEY: server.secretAccessKey,
      }));
    } finally {
      await server.stop();
    }
  });
}
