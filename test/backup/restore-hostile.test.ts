import assert from "node:assert/strict";
import { existsSync, mkdirSync, readFileSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { test } from "node:test";
import { bytesSource } from "../../src/io/bytes.ts";
import { labelKey, partKey } from "../../src/layout/keys.ts";
import { MemoryStorage } from "../support/memory-storage.ts";
import { collectingLog, restoreInto, snapshot } from "../support/restoring.ts";
import { scratchDirectory } from "../support/scratch-directory.ts";
import {
  putSyntheticBackup,
  specialEntries,
  SYNTHETIC_NAME,
  type SyntheticEntry,
} from "../support/synthetic-backup.ts";
import { type HandMadeEntry, paxEntry, tarArchive } from "../support/tar-archive.ts";

const cluster: readonly SyntheticEntry[] = [
  { kind: "directory", path: "" },
  { kind: "file", path: "PG_VERSION", content: Buffer.from("15\n") },
  ...specialEntries(),
];

interface Hostile {
  readonly what: string;
  /** Entries of one more part, "OUT" stands for a directory outside. */
  readonly entries: readonly HandMadeEntry[];
  /** Entries of yet another part. */
  readonly others?: readonly HandMadeEntry[];
  readonly message: RegExp;
}

const PART = "part part_008\\.tar of backup base_000000010000000000000002 is refused";

const table: readonly Hostile[] = [
  {
    what: "..",
    entries: [{ name: "../escaped", content: "x" }],
    message: new RegExp(`^entry "\\.\\./escaped" of ${PART}: its name holds "\\.\\."$`),
  },
  {
    what: ".. in the middle",
    entries: [{ name: "base/../../escaped", content: "x" }],
    message: /its name holds "\.\."$/,
  },
  {
    what: ".. of a directory",
    entries: [{ name: "../escaped", typeflag: "5" }],
    message: /its name holds "\.\."$/,
  },
  {
    what: "no name",
    entries: [{ name: "", content: "x" }],
    message: new RegExp(`^entry "" of ${PART}: it has an empty name$`),
  },
  {
    what: "NUL in a PAX name",
    entries: [paxEntry({ path: "a\0b" }), { name: "a" }],
    message: /has the name "a\\u0000b"$/,
  },
  {
    what: "our own marker",
    entries: [{ name: "/global/pg_control.walnut", content: "x" }],
    message: /its name is that of our own marker$/,
  },
  {
    what: "a link that leaves",
    entries: [{ name: "/out", typeflag: "2", linkName: "OUT" }],
    message: /^entry "\/out" of .* it is a symbolic link that leaves the data directory: \//,
  },
  {
    what: "a link that leaves by ..",
    entries: [{ name: "/a/out", typeflag: "2", linkName: "../../outside" }],
    message: /it is a symbolic link that leaves the data directory: \.\.\/\.\.\/outside$/,
  },
  {
    what: "a file through a link",
    entries: [
      { name: "/base", typeflag: "5" },
      { name: "/link", typeflag: "2", linkName: "base" },
      { name: "/link/file", content: "x" },
    ],
    message: /^entry "link" of backup .* is refused: its path .*\/data\/link is taken|\(EEXIST\)$/,
  },
  {
    what: "a file through a link in another part",
    entries: [{ name: "/link", typeflag: "2", linkName: "base" }],
    others: [{ name: "/link/file", content: "x" }],
    message: /^entry "link" of backup .* \(EEXIST\)$/,
  },
  {
    what: "a link through a link",
    entries: [
      { name: "/link", typeflag: "2", linkName: "base" },
      { name: "/link/second", typeflag: "2", linkName: "x" },
    ],
    message: /^entry "link\/second" of backup .* is refused: it lies behind a symbolic link$/,
  },
  {
    what: "a link where the data directory is",
    entries: [{ name: "/", typeflag: "2", linkName: "base" }],
    message: /the data directory itself is a symlink$/,
  },
  {
    what: "a link where pg_tblspc is",
    entries: [{ name: "/pg_tblspc", typeflag: "2", linkName: "base" }],
    message: /^entry "pg_tblspc" of backup .* \(EEXIST\)$/,
  },
  {
    what: "a hard link that leaves",
    entries: [{ name: "/hard", typeflag: "1", linkName: "../outside" }],
    message: /^entry "\/hard" of .* its name holds "\.\."$/,
  },
  {
    what: "a hard link behind a link",
    entries: [
      { name: "/link", typeflag: "2", linkName: "base" },
      { name: "/hard", typeflag: "1", linkName: "link/x" },
    ],
    message: /^entry "link\/x" of backup .* is refused: it lies behind a symbolic link$/,
  },
  {
    what: "a hard link to nothing",
    entries: [{ name: "/hard", typeflag: "1", linkName: "/nothing" }],
    message: /ENOENT/,
  },
  {
    what: "a hard link to pg_control",
    entries: [{ name: "/hard", typeflag: "1", linkName: "/global/pg_control" }],
    message: /it is a hard link to global\/pg_control, which is held back$/,
  },
  {
    what: "a character device",
    entries: [{ name: "/dev", typeflag: "3" }],
    message: new RegExp(`^entry "/dev" of ${PART}: it is a character-device, which no data`),
  },
  {
    what: "a block device",
    entries: [{ name: "/dev", typeflag: "4" }],
    message: /it is a block-device, which no data directory holds$/,
  },
  {
    what: "a pipe",
    entries: [{ name: "/pipe", typeflag: "6" }],
    message: /it is a fifo, which no data directory holds$/,
  },
  {
    what: "a file below a file",
    entries: [
      { name: "/file", content: "x" },
      { name: "/file/below", content: "x" },
    ],
    message:
      /^entry "\/file\/below" of .* is taken by another entry or can't be \(E(EXIST|NOTDIR)\)$/,
  },
  {
    what: "a file where a directory is",
    entries: [
      { name: "/dir", typeflag: "5" },
      { name: "/dir", content: "x" },
    ],
    message: /^entry "\/dir" of .* is taken by another entry or can't be \(EISDIR\)$/,
  },
  {
    what: "one file twice",
    entries: [
      { name: "/file", content: "x" },
      { name: "file", content: "y" },
    ],
    message: /^entry "file" of .* the part holds this entry twice$/,
  },
  {
    what: "one file in two parts",
    entries: [{ name: "/file", content: "x" }],
    others: [{ name: "/file", content: "y" }],
    message: /^entry "\/file" of .* part part_00[89]\.tar holds this entry, too$/,
  },
  {
    what: "a name that no file system takes",
    entries: [paxEntry({ path: "n".repeat(300) }), { name: "n", content: "x" }],
    message: /can't be \(ENAMETOOLONG\)$/,
  },
];

async function addPart(
  storage: MemoryStorage,
  index: number,
  entries: readonly HandMadeEntry[],
): Promise<void> {
  const bytes = tarArchive(...entries);
  const signal = AbortSignal.timeout(120_000);
  await storage.put(partKey(SYNTHETIC_NAME, index, ""), bytesSource(bytes), { signal });
}

for (const { what, entries, others, message } of table) {
  test(`refuses ${what}; nothing outside changes and no server could start`, async () => {
    using scratch = scratchDirectory();
    const outside = join(scratch.path, "outside");
    mkdirSync(outside);
    writeFileSync(join(outside, "file"), "untouched");
    const storage = new MemoryStorage();
    await putSyntheticBackup(storage, { entries: cluster, style: "bare" });
    const hostile = entries.map((entry) => ({
      ...entry,
      ...(entry.linkName === "OUT" ? { linkName: outside } : {}),
    }));
    await addPart(storage, 8, hostile);
    if (others !== undefined) await addPart(storage, 9, others);
    const destination = join(scratch.path, "data");
    await assert.rejects(restoreInto(storage, destination), (error: Error) => {
      assert.match(error.message, message);
      return true;
    });
    assert.equal(existsSync(join(destination, "global/pg_control")), false);
    assert.deepEqual([...snapshot(outside).keys()], ["", "file"]);
    assert.equal(snapshot(outside).get("file")?.endsWith("untouched"), true);
    assert.equal(existsSync(join(scratch.path, "escaped")), false);

    // What it left must not stand in the way of a good backup.
    const good = new MemoryStorage();
    await putSyntheticBackup(good, { entries: cluster });
    await restoreInto(good, destination);
    assert.equal(existsSync(join(destination, "global/pg_control")), true);
    assert.equal(existsSync(join(destination, "link")), false);
    assert.equal(snapshot(outside).get("file")?.endsWith("untouched"), true);
  });
}

test("absolute names are harmless: they are below the destination", async () => {
  using scratch = scratchDirectory();
  const storage = new MemoryStorage();
  await putSyntheticBackup(storage, { entries: cluster, style: "bare" });
  const outside = join(scratch.path, "outside");
  await addPart(storage, 8, [{ name: outside, content: "x" }]);
  const destination = join(scratch.path, "data");
  await restoreInto(storage, destination);
  assert.equal(existsSync(outside), false);
  assert.equal(readFileSync(join(destination, outside), "utf8"), "x");
});

test("stale labels and control files in an ordinary part do not count", async () => {
  using scratch = scratchDirectory();
  const storage = new MemoryStorage();
  await putSyntheticBackup(storage, { entries: cluster, style: "bare" });
  await addPart(storage, 8, [
    { name: "/backup_label", content: "stale" },
    { name: "/tablespace_map", content: "16385 /live\n" },
    { name: "/global/pg_control", content: "stale" },
  ]);
  await restoreInto(storage, join(scratch.path, "data"));
  const found = snapshot(join(scratch.path, "data"));
  for (const entry of specialEntries()) {
    assert.ok(entry.kind === "file");
    assert.equal(found.get(entry.path), `file 0600 ${entry.content.toString("latin1")}`);
  }
});

test("hard links within the backup are made", async () => {
  using scratch = scratchDirectory();
  const storage = new MemoryStorage();
  await putSyntheticBackup(storage, { entries: cluster, style: "bare" });
  await addPart(storage, 8, [{ name: "/hard", typeflag: "1", linkName: "/PG_VERSION" }]);
  await restoreInto(storage, join(scratch.path, "data"));
  assert.equal(snapshot(join(scratch.path, "data")).get("hard"), "file 0600 15\n");
});

test("our manifest allows nothing that it does not list", async () => {
  const additions: readonly (readonly [HandMadeEntry, RegExp])[] = [
    [{ name: "/extra", content: "x" }, /the manifest lists no such file$/],
    [{ name: "/extra", typeflag: "5" }, /the manifest lists no such directory$/],
    [{ name: "/extra", typeflag: "2", linkName: "x" }, /the manifest lists no such symbolic link$/],
    [{ name: "/extra", typeflag: "1", linkName: "x" }, /the manifest lists no hard links$/],
  ];
  for (const [addition, message] of additions) {
    using scratch = scratchDirectory();
    const storage = new MemoryStorage();
    await putSyntheticBackup(storage, { entries: cluster, method: "none", partCount: 1 });
    const key = partKey(SYNTHETIC_NAME, 1, "");
    const bytes = storage.bytesOf(key);
    assert.ok(bytes !== undefined);
    const changed = Buffer.concat([bytes.subarray(0, -1024), tarArchive(addition)]);
    await storage.put(key, bytesSource(changed), { signal: AbortSignal.timeout(120_000) });
    await assert.rejects(restoreInto(storage, join(scratch.path, "data")), (error: Error) => {
      assert.equal(error.name, "DamagedError");
      assert.match(error.message, message);
      return true;
    });
  }
});

test("parts for pg_control and labels hold nothing else", async () => {
  using scratch = scratchDirectory();
  const storage = new MemoryStorage();
  await putSyntheticBackup(storage, { entries: cluster, style: "bare", method: "none" });
  const bytes = tarArchive(
    { name: "backup_label", content: "x" },
    { name: "tablespace_map" },
    { name: "/base/5/1259", content: "x" },
  );
  const key = labelKey(SYNTHETIC_NAME, "");
  await storage.put(key, bytesSource(bytes), { signal: AbortSignal.timeout(120_000) });
  await assert.rejects(restoreInto(storage, join(scratch.path, "data")), {
    message:
      `entry "/base/5/1259" of part backup_label.tar of backup ${SYNTHETIC_NAME} is refused: ` +
      "it does not belong into this part",
  });
  assert.equal(existsSync(join(scratch.path, "data")), false);
});

test("a tablespace's link in the archive is ours to make", async () => {
  using scratch = scratchDirectory();
  const storage = new MemoryStorage();
  const location = join(scratch.path, "ts");
  const spec = {
    basePrefix: "/x",
    tablespaces: [{ name: "16385", location, link: "pg_tblspc/16385" }],
  };
  await putSyntheticBackup(storage, { entries: cluster, style: "bare", sentinel: { spec } });
  await addPart(storage, 8, [
    { name: "/pg_tblspc/16385", typeflag: "2", linkName: "/etc" },
    { name: "/pg_tblspc/16385/PG_15_1/5/1", content: "x" },
    { name: "/pg_tblspc/16385/walnut_restore.json", content: "stale" },
  ]);
  const log = collectingLog();
  await restoreInto(storage, join(scratch.path, "data"), { log });
  assert.equal(snapshot(join(scratch.path, "data")).get("pg_tblspc/16385"), `link ${location}`);
  assert.deepEqual([...snapshot(location).keys()], ["", "PG_15_1", "PG_15_1/5", "PG_15_1/5/1"]);
});
