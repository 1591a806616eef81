import assert from "node:assert/strict";
import { spawnSync } from "node:child_process";
import {
  chmodSync,
  mkdirSync,
  mkdtempSync,
  readdirSync,
  realpathSync,
  rmSync,
  symlinkSync,
  unlinkSync,
  writeFileSync,
} from "node:fs";
import { tmpdir } from "node:os";
import { dirname, join } from "node:path";
import { afterEach, beforeEach, test } from "node:test";
import { DataDirectoryWalk, type Walked } from "../../src/backup/walk.ts";

const VERSION_DIRECTORY = "PG_17_202406281";
const place = { root: "", data: "" };
const notices: string[] = [];

beforeEach(() => {
  place.root = realpathSync(mkdtempSync(join(tmpdir(), "walnut-walk-")));
  place.data = join(place.root, "data");
  mkdirSync(place.data, { mode: 0o700 });
  notices.length = 0;
});
afterEach(() => rmSync(place.root, { recursive: true }));

function file(path: string, content = "x"): void {
  const full = join(place.root, path);
  mkdirSync(dirname(full), { recursive: true });
  writeFileSync(full, content);
}

function walk(change: object = {}): DataDirectoryWalk {
  return new DataDirectoryWalk({
    dataDirectory: place.data,
    majorVersion: 17,
    tablespaceDirectory: VERSION_DIRECTORY,
    onNotice: (text, path) => notices.push(`${text}: ${path.slice(place.root.length)}`),
    ...change,
  });
}

function describe(entry: Walked): string {
  if (entry.kind === "link") return `${entry.name} -> ${entry.target}`;
  return entry.kind === "directory" ? `${entry.name}/` : entry.name;
}

function names(change: object = {}): string[] {
  return [...walk(change)].map(describe);
}

test("directories and files come by name, each directory before what is in it", () => {
  for (const path of ["base/5/2619", "base/5/1259", "base/13/1", "global/1262", "PG_VERSION"]) {
    file(`data/${path}`);
  }
  assert.deepEqual(names(), [
    "//",
    "/PG_VERSION",
    "/base/",
    "/base/13/",
    "/base/13/1",
    "/base/5/",
    "/base/5/1259",
    "/base/5/2619",
    "/global/",
    "/global/1262",
  ]);
});

test("sizes, modes, owners and times are those of the file, exact to the nanosecond", () => {
  file("data/base/5/1259", "12345");
  chmodSync(join(place.data, "base/5/1259"), 0o640);
  const when = "2026-11-21 01:02:03.123456789 UTC";
  const touched = spawnSync("touch", ["-d", when, join(place.data, "base/5/1259")]);
  assert.equal(touched.status, 0);
  const found = [...walk()].find((entry) => entry.name === "/base/5/1259");
  assert.equal(found?.kind === "file" && found.sizeBytes, 5);
  assert.equal(found?.mode, 0o640);
  assert.equal(found?.mtimeNs, BigInt(Date.UTC(2026, 10, 21, 1, 2, 3)) * 1_000_000n + 123456789n);
  assert.equal(found?.uid, process.getuid?.());
});

test("what is excluded leaves no trace, or an empty directory", () => {
  for (const path of [
    "pg_wal/000000010000000000000001",
    "pg_wal/archive_status/000000010000000000000001.ready",
    "pg_replslot/slot/state",
    "pg_stat_tmp/global.stat",
    "log/server.log",
    "base/pgsql_tmp/pgsql_tmp1.0",
    "base/5/pg_internal.init.77",
    "base/5/16384",
    "base/5/16384_init",
    "base/5/16384_fsm",
    "base/5/t7_16500",
    "base/5/16385",
    "postmaster.pid",
    "backup_label",
    "global/pg_control",
    "global/pg_control.walnut",
  ]) {
    file(`data/${path}`);
  }
  assert.deepEqual(names(), [
    "//",
    "/base/",
    "/base/5/",
    "/base/5/16384_init",
    "/base/5/16385",
    "/global/",
    "/log/",
    "/pg_replslot/",
    "/pg_stat_tmp/",
    "/pg_wal/",
    "/pg_wal/archive_status/",
    "/pg_wal/summaries/",
  ]);
  assert.deepEqual(names({ majorVersion: 16 }).slice(-2), ["/pg_wal/", "/pg_wal/archive_status/"]);
});

test("linked pg_wal and log become empty directories", () => {
  file("wal/000000010000000000000001");
  file("logs/a.log");
  symlinkSync(join(place.root, "wal"), join(place.data, "pg_wal"));
  symlinkSync(join(place.root, "logs"), join(place.data, "log"));
  chmodSync(join(place.root, "wal"), 0o711);
  const entries = [...walk()];
  assert.deepEqual(entries.map(describe), [
    "//",
    "/log/",
    "/pg_wal/",
    "/pg_wal/archive_status/",
    "/pg_wal/summaries/",
  ]);
  assert.equal(entries.find(({ name }) => name === "/pg_wal")?.mode, 0o711);
});

test("a linked settings file keeps its target, linked data is stored", () => {
  file("etc/postgresql.conf");
  file("etc/conf.d/a.conf");
  file("disk/5/1259", "123");
  file("disk/xact/0000");
  file("disk/one", "1");
  mkdirSync(join(place.data, "base"));
  symlinkSync("../etc/postgresql.conf", join(place.data, "postgresql.conf"));
  symlinkSync(join(place.root, "etc/conf.d"), join(place.data, "conf.d"));
  symlinkSync(join(place.root, "disk/5"), join(place.data, "base/5"));
  symlinkSync(join(place.root, "disk/xact"), join(place.data, "pg_xact"));
  symlinkSync(join(place.root, "disk/one"), join(place.data, "base/6"));
  symlinkSync("nowhere", join(place.data, "dangling"));
  const entries = [...walk()];
  assert.deepEqual(entries.map(describe), [
    "//",
    "/base/",
    "/base/5/",
    "/base/5/1259",
    "/base/6",
    "/conf.d/",
    "/conf.d/a.conf",
    "/dangling -> nowhere",
    "/pg_xact/",
    "/pg_xact/0000",
    "/postgresql.conf -> ../etc/postgresql.conf",
  ]);
  for (const entry of entries) {
    if (entry.kind === "file") assert.equal(entry.path, realpathSync(entry.path));
  }
  assert.deepEqual(notices, [
    "a linked directory is stored as a directory: /data/base/5",
    "a linked file is stored as a file: /data/base/6",
    "a linked directory is stored as a directory: /data/conf.d",
    "a symbolic link leads nowhere; it is stored as it is: /data/dangling",
    "a linked directory is stored as a directory: /data/pg_xact",
    "a symbolic link is stored, not the file that it leads to: /data/postgresql.conf",
  ]);
});

test("links in a circle end", () => {
  mkdirSync(join(place.root, "out/deep"), { recursive: true });
  symlinkSync(place.data, join(place.data, "self"));
  symlinkSync(place.root, join(place.data, "up"));
  symlinkSync(join(place.root, "out"), join(place.data, "out"));
  symlinkSync("../..", join(place.root, "out/deep/back"));
  symlinkSync("..", join(place.root, "out/deep/parent"));
  symlinkSync("loop", join(place.data, "loop"));
  assert.deepEqual(names(), [
    "//",
    "/loop -> loop",
    "/out/",
    "/out/deep/",
    "/out/deep/back -> ../..",
    "/out/deep/parent -> ..",
    `/self -> ${place.data}`,
    `/up -> ${place.root}`,
  ]);
});

test("a tablespace is walked at its place, only the server's own directory in it", () => {
  file(`space/${VERSION_DIRECTORY}/5/16400`);
  file(`space/${VERSION_DIRECTORY}/5/16401_init`);
  file(`space/${VERSION_DIRECTORY}/5/16401`);
  file("space/PG_13_202007201/5/1");
  mkdirSync(join(place.root, "space/lost+found"), { mode: 0o000 });
  mkdirSync(join(place.data, "pg_tblspc"));
  symlinkSync(`${join(place.root, "space")}//`, join(place.data, "pg_tblspc/16390"));
  const walked = walk();
  assert.deepEqual([...walked].map(describe), [
    "//",
    "/pg_tblspc/",
    `/pg_tblspc/16390/${VERSION_DIRECTORY}/`,
    `/pg_tblspc/16390/${VERSION_DIRECTORY}/5/`,
    `/pg_tblspc/16390/${VERSION_DIRECTORY}/5/16400`,
    `/pg_tblspc/16390/${VERSION_DIRECTORY}/5/16401_init`,
  ]);
  assert.deepEqual(walked.tablespaces, [
    { name: "16390", location: join(place.root, "space"), link: "pg_tblspc/16390" },
  ]);
});

test("a tablespace within the data directory is part of the tree", () => {
  file(`data/pg_tblspc/16390/${VERSION_DIRECTORY}/5/16400`);
  const walked = walk();
  assert.deepEqual([...walked].map(describe), [
    "//",
    "/pg_tblspc/",
    "/pg_tblspc/16390/",
    `/pg_tblspc/16390/${VERSION_DIRECTORY}/`,
    `/pg_tblspc/16390/${VERSION_DIRECTORY}/5/`,
    `/pg_tblspc/16390/${VERSION_DIRECTORY}/5/16400`,
  ]);
  assert.deepEqual(walked.tablespaces, []);
});

test("a location in the data directory is walked once, as a tablespace", () => {
  file(`data/space/${VERSION_DIRECTORY}/5/16400`);
  mkdirSync(join(place.data, "pg_tblspc"));
  symlinkSync(join(place.data, "space"), join(place.data, "pg_tblspc/16390"));
  assert.deepEqual(names(), [
    "//",
    "/pg_tblspc/",
    `/pg_tblspc/16390/${VERSION_DIRECTORY}/`,
    `/pg_tblspc/16390/${VERSION_DIRECTORY}/5/`,
    `/pg_tblspc/16390/${VERSION_DIRECTORY}/5/16400`,
    "/space/",
  ]);
});

test("statistics that are kept in a directory of their own are left out", () => {
  file("data/my stats/global.stat");
  assert.deepEqual(names({ statsDirectory: "my stats" }), ["//", "/my stats/"]);
  assert.deepEqual(names(), ["//", "/my stats/", "/my stats/global.stat"]);
});

test("a tablespace that is not mounted is an error, one that was dropped is not", () => {
  mkdirSync(join(place.data, "pg_tblspc"));
  const link = join(place.data, "pg_tblspc/16390");
  symlinkSync(join(place.root, "absent"), link);
  assert.throws(() => names(), {
    name: "LocalFileError",
    message: `tablespace 16390 has no directory ${link}/${VERSION_DIRECTORY}`,
  });
  const walked = walk()[Symbol.iterator]();
  walked.next();
  walked.next();
  unlinkSync(link);
  assert.equal(walked.next().done, true);
});

test("a tablespace that is being dropped, its link last, is passed over", () => {
  mkdirSync(join(place.data, "pg_tblspc"));
  file("data/postgresql.conf");
  const link = join(place.data, "pg_tblspc/16390");
  symlinkSync(place.root, link);
  const seen: string[] = [];
  for (const entry of walk()) {
    seen.push(describe(entry));
    if (entry.name === "/postgresql.conf") unlinkSync(link);
  }
  assert.deepEqual(seen, ["//", "/pg_tblspc/", "/postgresql.conf"]);
});

test("what disappears while we are on our way is passed over", () => {
  for (const path of ["base/5/1", "base/5/2", "base/6/1", "base/7/1"]) file(`data/${path}`);
  const seen: string[] = [];
  for (const entry of walk()) {
    seen.push(describe(entry));
    if (entry.name === "/base/5/1") unlinkSync(join(place.data, "base/5/2"));
    if (entry.name === "/base/5") rmSync(join(place.data, "base/6"), { recursive: true });
    if (entry.name === "/base/7") rmSync(join(place.data, "base/7"), { recursive: true });
  }
  assert.deepEqual(seen, ["//", "/base/", "/base/5/", "/base/5/1", "/base/7/"]);
});

test("special files are left out with a notice", () => {
  assert.equal(spawnSync("mkfifo", [join(place.data, "pipe")]).status, 0);
  file("data/PG_VERSION");
  assert.deepEqual(names(), ["//", "/PG_VERSION"]);
  assert.deepEqual(notices, ["a special file is left out: /data/pipe"]);
});

test("names with blanks and other characters come as they are, others are an error", () => {
  file("data/my notes é 文.txt");
  assert.deepEqual(names(), ["//", "/my notes é 文.txt"]);
  file("data/\ufffd");
  assert.deepEqual(names(), ["//", "/my notes é 文.txt", "/\ufffd"]);
  writeFileSync(Buffer.concat([Buffer.from(`${place.data}/bad`), Buffer.from([0xff, 0x0a])]), "");
  assert.throws(() => names(), {
    name: "LocalFileError",
    message: `${place.data} holds a name that is not UTF-8: bad\\xff\\x0a`,
  });
});

test("the size of the catalog counts everything that was visited", () => {
  file("data/PG_VERSION", "17\n");
  file("data/postmaster.pid", "12345");
  file("data/pg_wal/000000010000000000000001", "not counted");
  file("data/global/pg_control", "1234567");
  const walked = walk();
  const directories = [...walked].filter(({ kind }) => kind === "directory").length;
  assert.equal(directories, 5, "root, global, pg_wal with two more that we make");
  const plain = 3 + 5 + 7;
  assert.ok(walked.catalogBytes >= plain);
  assert.equal(walked.catalogBytes - plain, sizeOfDirectories("global", "pg_wal"));
});

function sizeOfDirectories(...paths: string[]): number {
  return paths.reduce((sum, path) => sum + directorySize(join(place.data, path)), 0);
}

function directorySize(path: string): number {
  assert.ok(readdirSync(path).length > 0);
  const result = spawnSync("stat", ["-c", "%s", path], { encoding: "utf8" });
  return Number(result.stdout);
}

test("a data directory that is not there is an error", () => {
  assert.throws(() => names({ dataDirectory: join(place.root, "absent") }), {
    name: "LocalFileError",
    message: `${place.root}/absent does not exist`,
  });
});
