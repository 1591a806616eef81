import assert from "node:assert/strict";
import { existsSync, mkdirSync, readFileSync, symlinkSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { test } from "node:test";
import { parsePathMask } from "../../src/backup/path-mask.ts";
import { sentinelKey } from "../../src/layout/keys.ts";
import type { CompressionMethod } from "../../src/codec/codec.ts";
import { incrementBytes } from "../support/increment-bytes.ts";
import { MemoryStorage } from "../support/memory-storage.ts";
import { collectingLog, restoreInto, snapshot } from "../support/restoring.ts";
import { scratchDirectory } from "../support/scratch-directory.ts";
import {
  putSyntheticBackup,
  specialEntries,
  SYNTHETIC_NAME,
  type SyntheticEntry,
} from "../support/synthetic-backup.ts";

const page = (fill: number, count = 1): Buffer => Buffer.alloc(count * 8192, fill);

const cluster: readonly SyntheticEntry[] = [
  { kind: "directory", path: "", mode: 0o700 },
  { kind: "file", path: "PG_VERSION", content: Buffer.from("15\n") },
  { kind: "directory", path: "base" },
  { kind: "directory", path: "base/5", mode: 0o750 },
  { kind: "file", path: "base/5/1259", content: page(1, 300), mode: 0o640 },
  { kind: "file", path: "base/5/empty", content: Buffer.alloc(0) },
  { kind: "file", path: "base/5/name with blank ä", content: Buffer.from("x") },
  { kind: "directory", path: "global" },
  { kind: "file", path: "global/1262", content: page(2) },
  ...specialEntries(),
];

const tablespace: readonly SyntheticEntry[] = [
  { kind: "directory", path: "pg_tblspc" },
  { kind: "directory", path: "pg_tblspc/16385/PG_15_1" },
  { kind: "file", path: "pg_tblspc/16385/PG_15_1/5/16400", content: page(3) },
];

/** Where the tablespace was, in a scratch directory. */
function specOf(location: string) {
  return {
    basePrefix: "/recorded",
    tablespaces: [{ name: "16385", location, link: "pg_tblspc/16385" }],
  };
}

for (const style of ["walnut", "walg", "bare"] as const) {
  for (const method of ["zstd", "lz4", "brotli", "none"] satisfies CompressionMethod[]) {
    test(`what was in the data directory is there again: ${style}, ${method}`, async () => {
      using scratch = scratchDirectory();
      const storage = new MemoryStorage();
      await putSyntheticBackup(storage, { entries: cluster, style, method });
      const destination = join(scratch.path, "deep", "down", "data");
      const report = await restoreInto(storage, destination, { fsync: true });
      const found = snapshot(destination);
      for (const entry of cluster) {
        const actual = found.get(entry.path);
        const mode = ("mode" in entry ? entry.mode : undefined) ?? 0;
        if (entry.kind === "file") {
          const wanted = (mode || 0o600).toString(8).padStart(4, "0");
          assert.equal(actual, `file ${wanted} ${entry.content.toString("latin1")}`, entry.path);
        } else {
          const wanted = (mode || 0o700).toString(8).padStart(4, "0");
          assert.equal(actual, `directory ${wanted}`, entry.path);
        }
      }
      for (const path of ["pg_wal", "pg_notify", "pg_replslot", "pg_tblspc", "pg_twophase"]) {
        assert.equal(found.get(path), "directory 0700", path);
      }
      assert.equal(existsSync(join(destination, "global/pg_control.walnut")), false);
      assert.equal(report.writtenBytes, 301 * 8192 + 4);
      assert.equal(report.keptBytes, 0);
      assert.equal(report.isStartable, true);
    });
  }
}

test("a data directory gets a mode that the server takes", async () => {
  for (const [recorded, wanted] of [
    [0o755, "0700"],
    [0o750, "0750"],
    [0o700, "0700"],
  ] as const) {
    using scratch = scratchDirectory();
    const storage = new MemoryStorage();
    const root: SyntheticEntry = { kind: "directory", path: "", mode: recorded };
    await putSyntheticBackup(storage, { entries: [root, ...cluster.slice(1)] });
    const destination = join(scratch.path, "data");
    await restoreInto(storage, destination);
    assert.equal(snapshot(destination).get(""), `directory ${wanted}`);
  }
});

test("a backup without an entry for the data directory becomes private", async () => {
  using scratch = scratchDirectory();
  const storage = new MemoryStorage();
  await putSyntheticBackup(storage, { entries: cluster.slice(1), style: "bare" });
  mkdirSync(join(scratch.path, "data"), { mode: 0o755 });
  await restoreInto(storage, join(scratch.path, "data"));
  assert.equal(snapshot(join(scratch.path, "data")).get(""), "directory 0700");
});

test("tablespaces go to their recorded places, links into the destination", async () => {
  using scratch = scratchDirectory();
  const storage = new MemoryStorage();
  const location = join(scratch.path, "ts", "one");
  const map = `16385 ${location}\n`;
  const entries = [...cluster.slice(0, -3), ...tablespace, ...specialEntries(map)];
  await putSyntheticBackup(storage, { entries, sentinel: { spec: specOf(location) } });
  const destination = join(scratch.path, "data");
  await restoreInto(storage, destination);
  const found = snapshot(destination);
  assert.equal(found.get("pg_tblspc/16385"), `link ${location}`);
  assert.equal(found.get("tablespace_map"), `file 0600 ${map}`);
  assert.deepEqual(
    [...snapshot(location)].map(([path, text]) => [path, text.slice(0, 14)]),
    [
      ["", "directory 0700"],
      ["PG_15_1", "directory 0700"],
      ["PG_15_1/5", "directory 0700"],
      ["PG_15_1/5/16400", "file 0600 \u0003\u0003\u0003\u0003"],
    ],
  );
});

test("mapped tablespaces leave the recorded place alone, and tablespace_map follows (E20)", async () => {
  using scratch = scratchDirectory();
  const storage = new MemoryStorage();
  const live = join(scratch.path, "live");
  mkdirSync(live);
  writeFileSync(join(live, "in use"), "x");
  const before = snapshot(live);
  const entries = [...cluster.slice(0, -3), ...tablespace, ...specialEntries(`16385 ${live}\n`)];
  await putSyntheticBackup(storage, { entries, sentinel: { spec: specOf(live) } });
  const destination = join(scratch.path, "data");
  await assert.rejects(restoreInto(storage, destination), {
    name: "RefusedError",
    message: `location ${live} of tablespace 16385 is not empty`,
  });
  assert.equal(existsSync(destination), false);

  const location = join(scratch.path, "new");
  const mappings = [{ from: live, to: location }];
  await restoreInto(storage, destination, { tablespaces: { mappings } });
  const found = snapshot(destination);
  assert.equal(found.get("tablespace_map"), `file 0600 16385 ${location}\n`);
  assert.equal(found.get("pg_tblspc/16385"), `link ${location}`);
  assert.equal(existsSync(join(location, "PG_15_1/5/16400")), true);
  assert.equal(existsSync(join(location, "walnut_restore.json")), false);
  assert.deepEqual(snapshot(live), before);
});

test("a restore spec gives the places and leaves no tablespace_map", async () => {
  using scratch = scratchDirectory();
  const storage = new MemoryStorage();
  const entries = [...cluster.slice(0, -3), ...tablespace, ...specialEntries("16385 /recorded\n")];
  await putSyntheticBackup(storage, { entries, sentinel: { spec: specOf("/recorded") } });
  const destination = join(scratch.path, "data");
  const location = join(scratch.path, "new");
  await restoreInto(storage, destination, {
    tablespaces: { mappings: [], spec: specOf(location) },
  });
  assert.equal(existsSync(join(destination, "tablespace_map")), false);
  assert.equal(snapshot(destination).get("pg_tblspc/16385"), `link ${location}`);
});

test("links of our backups keep their targets", async () => {
  using scratch = scratchDirectory();
  const storage = new MemoryStorage();
  const wal = join(scratch.path, "wal");
  const links: SyntheticEntry[] = [
    { kind: "link", path: "postgresql.conf", target: "/etc/postgresql/postgresql.conf" },
    { kind: "link", path: "pg_wal", target: wal },
  ];
  await putSyntheticBackup(storage, { entries: [...cluster, ...links] });
  await restoreInto(storage, join(scratch.path, "first"));
  const first = snapshot(join(scratch.path, "first"));
  assert.equal(first.get("postgresql.conf"), "link /etc/postgresql/postgresql.conf");
  assert.equal(first.get("pg_wal"), `link ${wal}`);
  assert.equal(snapshot(wal).get(""), "directory 0700");

  writeFileSync(join(wal, "000000010000000000000001"), "");
  const log = collectingLog();
  await restoreInto(storage, join(scratch.path, "second"), { log });
  assert.equal(snapshot(join(scratch.path, "second")).get("pg_wal"), "directory 0700");
  assert.match(
    log.lines.join("\n"),
    /warning: pg_wal was a link to a place that is not empty here/,
  );
});

test("links of WAL-G, whose targets nobody knows, are left out and named", async () => {
  using scratch = scratchDirectory();
  const storage = new MemoryStorage();
  const link: SyntheticEntry = { kind: "link", path: "conf.d/a.conf", target: "a.conf" };
  await putSyntheticBackup(storage, { entries: [...cluster, link], style: "walg" });
  const log = collectingLog();
  await restoreInto(storage, join(scratch.path, "data"), { log });
  assert.equal(existsSync(join(scratch.path, "data/conf.d/a.conf")), false);
  assert.deepEqual(log.lines, [
    "warning: WAL-G does not store where symbolic links lead: these are left out, make them " +
      'yourself {"links":"conf.d/a.conf"}',
  ]);
});

test("a chain gives the newest state; zero pages and dropped files included", async () => {
  using scratch = scratchDirectory();
  const storage = new MemoryStorage();
  const dropped: SyntheticEntry = { kind: "file", path: "base/5/dropped", content: page(8) };
  const droppedDirectory: SyntheticEntry = { kind: "directory", path: "pg_tblspc/16399" };
  const full = [...cluster, dropped, droppedDirectory];
  await putSyntheticBackup(storage, { entries: full, style: "walg" });
  const name = "base_000000010000000000000004_D_000000010000000000000002";
  const increment = incrementBytes(302 * 8192, [
    [0, page(0)],
    [301, page(9)],
  ]);
  const entries = cluster.map((entry): SyntheticEntry =>
    entry.path === "base/5/1259" ? { kind: "file", path: entry.path, content: increment } : entry,
  );
  await putSyntheticBackup(storage, {
    name,
    entries,
    style: "walg",
    sentinel: { base: { name: SYNTHETIC_NAME, fullName: SYNTHETIC_NAME, stepCount: 1 } },
    states: new Map([
      ["base/5/1259", "incremented"],
      ["global/1262", "skipped"],
    ]),
  });
  const destination = join(scratch.path, "data");
  await restoreInto(storage, destination, { backup: name });
  const relation = readFileSync(join(destination, "base/5/1259"));
  assert.ok(relation.equals(Buffer.concat([page(0), page(1, 299), page(0), page(9)])));
  assert.ok(readFileSync(join(destination, "global/1262")).equals(page(2)));
  assert.equal(existsSync(join(destination, "base/5/dropped")), false);
  assert.equal(existsSync(join(destination, "pg_tblspc/16399")), false);
});

test("a chain whose base is gone is refused before anything is written", async () => {
  using scratch = scratchDirectory();
  const storage = new MemoryStorage();
  await putSyntheticBackup(storage, {
    entries: cluster,
    style: "walg",
    sentinel: { base: { name: "base_000000010000000000000001" } },
  });
  await assert.rejects(restoreInto(storage, join(scratch.path, "data")), {
    name: "DamagedError",
    message: `base base_000000010000000000000001 of backup ${SYNTHETIC_NAME} is missing in memory://test`,
  });
  assert.equal(existsSync(join(scratch.path, "data")), false);
});

test("a mask restores what it matches, and nothing that starts", async () => {
  using scratch = scratchDirectory();
  const storage = new MemoryStorage();
  await putSyntheticBackup(storage, { entries: cluster });
  const destination = join(scratch.path, "data");
  const mask = parsePathMask("/base/5/*");
  const report = await restoreInto(storage, destination, { mask });
  assert.equal(report.isStartable, false);
  const files = [...snapshot(destination)].filter(([, text]) => text.startsWith("file"));
  assert.deepEqual(
    files.map(([path]) => path),
    ["base/5/1259", "base/5/empty", "base/5/name with blank ä"],
  );
});

const unusable: readonly { what: string; make: (path: string) => void; message: RegExp }[] = [
  {
    what: "a file in it",
    make: (path) => writeFileSync(join(path, "x"), ""),
    message: /^destination .* is not empty$/,
  },
  {
    what: "a directory in it",
    make: (path) => mkdirSync(join(path, "lost+found")),
    message: /^destination .* is not empty$/,
  },
  {
    what: "a server",
    make: (path) => writeFileSync(join(path, "postmaster.pid"), ""),
    message: /^a server uses .*: it holds postmaster\.pid$/,
  },
  {
    what: "a control file, even beside a marker",
    make: (path) => {
      mkdirSync(join(path, "global"));
      writeFileSync(join(path, "global/pg_control"), "");
      writeFileSync(join(path, "global/pg_control.walnut"), "");
    },
    message: /^destination .* is not empty$/,
  },
  {
    what: "a marker that is none",
    make: (path) => {
      mkdirSync(join(path, "global"));
      writeFileSync(join(path, "global/pg_control.walnut"), "x");
    },
    message: /pg_control\.walnut is no marker of ours: /,
  },
  {
    what: "a link where global should be",
    make: (path) => {
      mkdirSync(`${path}-other`);
      symlinkSync(`${path}-other`, join(path, "global"));
    },
    message: /^destination .* is not empty$/,
  },
];

for (const { what, make, message } of unusable) {
  test(`refuses a destination with ${what}, and changes nothing`, async () => {
    using scratch = scratchDirectory();
    const storage = new MemoryStorage();
    await putSyntheticBackup(storage, { entries: cluster });
    const destination = join(scratch.path, "data");
    mkdirSync(destination);
    make(destination);
    const before = snapshot(destination);
    await assert.rejects(restoreInto(storage, destination), (error: Error) => {
      assert.equal(error.name, "RefusedError");
      assert.match(error.message, message);
      return true;
    });
    assert.deepEqual(snapshot(destination), before);
  });
}

test("refuses a destination that is a file", async () => {
  using scratch = scratchDirectory();
  const storage = new MemoryStorage();
  await putSyntheticBackup(storage, { entries: cluster });
  const destination = join(scratch.path, "data");
  writeFileSync(destination, "x");
  await assert.rejects(restoreInto(storage, destination), {
    name: "RefusedError",
    message: `${destination} is not a directory`,
  });
});

test("a destination behind a link is the directory that it leads to", async () => {
  using scratch = scratchDirectory();
  const storage = new MemoryStorage();
  await putSyntheticBackup(storage, { entries: cluster });
  mkdirSync(join(scratch.path, "real"));
  symlinkSync("real", join(scratch.path, "alias"));
  const report = await restoreInto(storage, join(scratch.path, "alias"));
  assert.equal(report.destination, join(scratch.path, "real"));
  assert.equal(existsSync(join(scratch.path, "real/global/pg_control")), true);
});

test("a backup that nobody made is not found", async () => {
  using scratch = scratchDirectory();
  const storage = new MemoryStorage();
  await assert.rejects(restoreInto(storage, join(scratch.path, "data")), {
    name: "ObjectNotFoundError",
    message: `object ${sentinelKey(SYNTHETIC_NAME)} does not exist in memory://test`,
  });
});
