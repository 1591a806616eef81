import assert from "node:assert/strict";
import { spawnSync } from "node:child_process";
import { mkdirSync, mkdtempSync, rmSync, symlinkSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { after, test } from "node:test";
import { fc } from "../support/property.ts";
import { OperationError } from "../../src/errors.ts";
import { readAll } from "../../src/io/bytes.ts";
import { readTar, type TarEntry } from "../../src/tar/read.ts";
import {
  inChunks,
  namesOf,
  paxEntry,
  readWhole,
  tarArchive,
  tarEnd,
  tarEntry,
} from "../support/tar-archive.ts";

test("gives name, kind, mode, size, time, content and where they stand", async () => {
  const archive = tarArchive(
    { name: "/", typeflag: "5", mode: 0o700 },
    { name: "/PG_VERSION", content: "15\n", mode: 0o100640 },
    { name: "/pg_wal", typeflag: "2", linkName: "/mnt/wal" },
  );
  for (const chunkBytes of [1, 7, 512, 513, 100_000]) {
    assert.deepEqual(await readWhole(archive, { chunkBytes }), [
      {
        kind: "directory",
        name: "/",
        linkName: "",
        mode: 0o700,
        sizeBytes: 0,
        modifiedAtSeconds: 1_700_000_000,
        headerStart: 0,
        contentStart: 512,
        content: "",
      },
      {
        kind: "file",
        name: "/PG_VERSION",
        linkName: "",
        mode: 0o640,
        sizeBytes: 3,
        modifiedAtSeconds: 1_700_000_000,
        headerStart: 512,
        contentStart: 1024,
        content: "15\n",
      },
      {
        kind: "symlink",
        name: "/pg_wal",
        linkName: "/mnt/wal",
        mode: 0o600,
        sizeBytes: 0,
        modifiedAtSeconds: 1_700_000_000,
        headerStart: 1536,
        contentStart: 2048,
        content: "",
      },
    ]);
  }
});

test("what is not read of a content is skipped", async () => {
  const archive = tarArchive({ name: "a", content: "x".repeat(3000) }, { name: "b" });
  const names: string[] = [];
  for await (const entry of readTar(inChunks(archive, 100))) {
    names.push(entry.name);
    if (entry.name === "a") {
      for await (const chunk of entry.content()) {
        assert.equal(chunk[0], 0x78);
        break;
      }
    }
  }
  assert.deepEqual(names, ["a", "b"]);
});

test("a content is read once, and not after its turn", async () => {
  const archive = tarArchive({ name: "a", content: "xyz" }, { name: "b" });
  const entries: TarEntry[] = [];
  for await (const entry of readTar(inChunks(archive, 512))) {
    if (entry.name === "a") {
      entry.content();
      assert.throws(() => entry.content(), /only once/);
    }
    entries.push(entry);
  }
  const late: TarEntry[] = [];
  for await (const entry of readTar(inChunks(archive, 512))) late.push(entry);
  await assert.rejects(async () => {
    for (const entry of late) await readAll(entry.content());
  }, /too late|only once/);
});

test("the input is closed when the reader stops early", async () => {
  let isClosed = false;
  async function* input(): AsyncGenerator<Uint8Array> {
    try {
      for (;;) yield tarEntry({ name: "again" });
    } finally {
      isClosed = true;
    }
  }
  for await (const entry of readTar(input())) {
    assert.equal(entry.name, "again");
    break;
  }
  assert.equal(isClosed, true);
});

const longName = `dir/${"n".repeat(300)}/ä`;
const good: readonly { what: string; archive: Buffer; names: string[] }[] = [
  { what: "prefix", archive: tarArchive({ name: "c", prefix: "a/b" }), names: ["a/b/c"] },
  {
    what: "name of 100 bytes",
    archive: tarArchive({ name: "n".repeat(100) }),
    names: ["n".repeat(100)],
  },
  { what: "UTF-8 name", archive: tarArchive({ name: "größe" }), names: ["größe"] },
  {
    what: "PAX path",
    archive: tarArchive(paxEntry({ path: longName, mtime: "1.5" }), { name: "short" }),
    names: [longName],
  },
  {
    what: "GNU long name",
    archive: tarArchive(
      { name: "././@LongLink", typeflag: "L", content: `${longName}\0`, magic: "ustar  \0" },
      { name: "short", magic: "ustar  \0" },
    ),
    names: [longName],
  },
  { what: "old directory", archive: tarArchive({ name: "d/", typeflag: "\0" }), names: ["d"] },
  { what: "no entry", archive: tarEnd(), names: [] },
  {
    what: "a global header without names",
    archive: tarArchive(paxEntry({ comment: "x" }, "g"), { name: "a" }),
    names: ["a"],
  },
  {
    what: "many zeros behind the end",
    archive: Buffer.concat([tarArchive({ name: "a" }), Buffer.alloc(10_000)]),
    names: ["a"],
  },
];

for (const { what, archive, names } of good) {
  test(`reads an archive: ${what}`, async () => {
    assert.deepEqual(await namesOf(archive), names);
  });
}

test("PAX link path, size and time go before the header's", async () => {
  const [entry, link] = await readWhole(
    tarArchive(
      paxEntry({ size: "5", mtime: "-1.25" }),
      { name: "a", content: "12345", size: "00000000000\0" },
      paxEntry({ linkpath: longName }),
      { name: "l", typeflag: "2", linkName: "x" },
    ),
  );
  assert.equal(entry?.content, "12345");
  assert.equal(entry.modifiedAtSeconds, -1.25);
  assert.equal(link?.linkName, longName);
});

test("numbers may be binary", async () => {
  const size = Buffer.alloc(12);
  size[0] = 0x80;
  size[11] = 5;
  const time = Buffer.alloc(12, 0xff);
  const [entry] = await readWhole(tarArchive({ name: "a", content: "12345", size, time }));
  assert.equal(entry?.content, "12345");
  assert.equal(entry.modifiedAtSeconds, -1);
});

test("a missing end is accepted where it is expected, and only between entries", async () => {
  const options = { isTrailerOptional: true };
  const entry = tarEntry({ name: "a", content: "x".repeat(700) });
  assert.deepEqual(await namesOf(entry, options), ["a"]);
  assert.deepEqual(await namesOf(entry.subarray(0, 512 + 700), options), ["a"]);
  assert.deepEqual(await namesOf(Buffer.alloc(0), options), []);
  assert.deepEqual(await namesOf(Buffer.concat([entry, Buffer.alloc(512)]), options), ["a"]);
  for (const length of [1, 511, 513, 1211, 1213, 1535]) {
    await assert.rejects(namesOf(entry.subarray(0, length), options), { name: "TruncatedError" });
  }
  const dangling = tarEntry(paxEntry({ path: "a" }));
  await assert.rejects(namesOf(dangling, options), { name: "TruncatedError" });
});

const directory = mkdtempSync(join(tmpdir(), "walnut-tar-"));
after(() => rmSync(directory, { recursive: true }));

function gnuTar(format: string): Buffer {
  const tree = mkdtempSync(join(directory, format));
  const deep = join(tree, "base", "d".repeat(60), "e".repeat(60));
  mkdirSync(deep, { recursive: true });
  writeFileSync(join(deep, "größe"), "x".repeat(3000));
  writeFileSync(join(tree, "PG_VERSION"), "15\n");
  symlinkSync("/somewhere/else", join(tree, "link"));
  const result = spawnSync("tar", ["-C", tree, "-cf", "-", `--format=${format}`, "."], {
    maxBuffer: 1 << 20,
  });
  assert.equal(result.status, 0, result.stderr.toString());
  return result.stdout;
}

for (const format of ["ustar", "gnu", "pax"]) {
  test(`reads what GNU tar writes: ${format}`, async () => {
    const entries = await readWhole(gnuTar(format));
    const found = new Map(entries.map((entry) => [entry.name, entry]));
    assert.equal(found.get("./PG_VERSION")?.content, "15\n");
    assert.equal(found.get("./link")?.linkName, "/somewhere/else");
    const deep = found.get(`./base/${"d".repeat(60)}/${"e".repeat(60)}/größe`);
    assert.equal(deep?.content.length, 3000);
  });

  test(`a changed or cut archive of GNU tar is read or refused, never more: ${format}`, async () => {
    const archive = gnuTar(format);
    await fc.assert(
      fc.asyncProperty(
        fc.array(fc.tuple(fc.nat(archive.length - 1), fc.nat(255)), { maxLength: 4 }),
        fc.nat(archive.length),
        fc.boolean(),
        async (changes, length, isTrailerOptional) => {
          const changed = Buffer.from(archive);
          for (const [at, value] of changes) changed[at] = value;
          try {
            await readWhole(changed.subarray(0, length), { isTrailerOptional });
          } catch (error) {
            if (!(error instanceof OperationError)) throw error;
          }
        },
      ),
      { numRuns: 300 },
    );
  });

  test(`no bit of a header can change what is read: ${format}`, async () => {
    const archive = gnuTar(format);
    const entries = await readWhole(archive);
    let refusedCount = 0;
    for (let bit = 0; bit < 8 * 512; bit += 1) {
      const changed = Buffer.from(archive);
      changed[bit >> 3] = (changed[bit >> 3] ?? 0) ^ (1 << (bit & 7));
      try {
        // A "0" of the checksum may become a blank, which means the same.
        assert.deepEqual(await readWhole(changed), entries, `bit ${bit}`);
      } catch (error) {
        if (!(error instanceof OperationError)) throw error;
        refusedCount += 1;
      }
    }
    assert.ok(refusedCount > 8 * 500, `${refusedCount} refused`);
  });
}
