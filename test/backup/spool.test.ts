import assert from "node:assert/strict";
import { mkdtempSync, readdirSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterEach, beforeEach, test } from "node:test";
import { fc } from "../support/property.ts";
import { DocumentsSpool } from "../../src/backup/documents-spool.ts";
import { GroupedSpool, Spool } from "../../src/backup/spool.ts";
import { readAll } from "../../src/io/bytes.ts";
import { parseFilesMetadata } from "../../src/layout/files-metadata.ts";

const place = { root: "" };

beforeEach(() => {
  place.root = mkdtempSync(join(tmpdir(), "walnut-spool-"));
});
afterEach(() => rmSync(place.root, { recursive: true }));

const textOf = fc
  .tuple(fc.string({ unit: "grapheme" }), fc.constantFrom(1, 1, 1, 500, 40_000))
  .map(([text, times]) => text.repeat(times).slice(0, 400_000));

test("text is read back, also twice and while more comes", async () => {
  await fc.assert(
    fc.asyncProperty(fc.array(textOf, { maxLength: 8 }), textOf, async (texts, more) => {
      using spool = new Spool(place.root);
      for (const text of texts) spool.append(text);
      const before = Buffer.from(texts.join(""));
      assert.deepEqual(await readAll(spool.read()), before);
      spool.append(more);
      const after = Buffer.concat([before, Buffer.from(more)]);
      assert.deepEqual(await readAll(spool.read()), after);
      const end = Math.floor(after.length / 2);
      assert.deepEqual(await readAll(spool.read(3, end)), after.subarray(3, Math.max(3, end)));
    }),
    { numRuns: 50 },
  );
});

test("no file is left behind, not even while it is used", () => {
  using spool = new Spool(join(place.root, "made", "by", "us"));
  spool.append("x".repeat(1_000_000));
  assert.deepEqual(readdirSync(join(place.root, "made", "by", "us")), []);
});

test("a directory that can't be made is an error with its name", () => {
  assert.throws(() => new Spool("/dev/null/x"), {
    name: "LocalFileError",
    message: /^cannot write temporary file in \/dev\/null\/x: /,
  });
});

test("groups that grow at the same time are read one after the other", async () => {
  const step = fc.record({
    group: fc.constantFrom("a", "b", "c"),
    text: fc.oneof(fc.string({ minLength: 1 }), fc.constant("long".repeat(20_000))),
  });
  await fc.assert(
    fc.asyncProperty(fc.array(step, { maxLength: 30 }), async (steps) => {
      using spool = new GroupedSpool(place.root);
      for (const { group, text } of steps) spool.append(group, text);
      for (const group of ["a", "b", "c"]) {
        const texts = steps.filter((one) => one.group === group).map(({ text }) => text);
        assert.equal((await readAll(spool.read(group))).toString(), texts.join(","));
      }
    }),
    { numRuns: 50 },
  );
});

test("files_metadata.json holds files, parts and databases", async () => {
  using documents = new DocumentsSpool({ directory: place.root, hasFilesMetadata: true });
  const entry = { mode: 0o600, mtimeNs: 1_700_000_000_123_456_789n, uid: 1, gid: 1 };
  const stored = { sizeBytes: 1, hash: "0".repeat(16), offsetBytes: 512 };
  documents.addOther({ kind: "directory", name: "/", ...entry }, "part_002.tar");
  const file = { kind: "file" as const, name: "/a", path: "/a", sizeBytes: 1, ...entry };
  documents.addFile(file, { ...stored, part: "part_001.tar" });
  documents.addFile({ ...file, name: "/b" }, { ...stored, part: "part_002.tar" });
  documents.addPartName("backup_label.tar", "tablespace_map");
  documents.addPartName("backup_label.tar", "backup_label");
  documents.addDatabaseText('"d":{"oid":5,"tables_new":{', true);
  documents.addDatabaseText("}}", false);
  documents.addDatabaseText('"e":{"oid":6,"tables_new":{}}', true);
  const bytes = await readAll(documents.filesMetadata());
  const text = (async function* () {
    yield bytes;
  })();
  const items = await Array.fromAsync(parseFilesMetadata("base", text));
  assert.deepEqual(
    items.map((item) => {
      if (item.kind === "member") return `${item.part}: ${item.name}`;
      return item.kind === "file" ? `${item.name} ${item.mtimeNs}` : item.kind;
    }),
    [
      "/ 1700000000123456789",
      "/a 1700000000123456789",
      "/b 1700000000123456789",
      "backup_label.tar: tablespace_map",
      "backup_label.tar: backup_label",
      "part_001.tar: /a",
      "part_002.tar: /",
      "part_002.tar: /b",
      "database",
      "database",
    ],
  );
  assert.equal(documents.fileCount, 2);
  assert.equal(documents.contentBytes, 2);
});

test("without files metadata only the manifest is collected", async () => {
  using documents = new DocumentsSpool({ directory: place.root, hasFilesMetadata: false });
  const entry = { mode: 0o600, mtimeNs: 1n, uid: 1, gid: 1 };
  documents.addOther({ kind: "directory", name: "/", ...entry }, "part_001.tar");
  documents.addPartName("backup_label.tar", "backup_label");
  assert.equal((await readAll(documents.filesMetadata())).toString(), "{}");
});
