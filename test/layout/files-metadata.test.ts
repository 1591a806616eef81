import assert from "node:assert/strict";
import { test } from "node:test";
import { fc } from "../support/property.ts";
import {
  type FilesMetadataItem,
  formatDatabaseBegin,
  formatDatabaseEnd,
  formatFileDescription,
  formatFilesMetadata,
  formatRelation,
  parseEmbeddedFilesMetadata,
  parseFilesMetadata,
} from "../../src/layout/files-metadata.ts";
import { parseJson } from "../../src/layout/json.ts";

const backup = "base_000000010000000000000003";

async function* pieces(text: string, size = 7): AsyncGenerator<Uint8Array> {
  const bytes = Buffer.from(text);
  for (let at = 0; at < bytes.length; at += size) yield bytes.subarray(at, at + size);
}

async function parse(text: string): Promise<FilesMetadataItem[]> {
  return await Array.fromAsync(parseFilesMetadata(backup, pieces(text)));
}

async function format(files: string, parts: string, databases: string): Promise<string> {
  const text = { files: pieces(files), parts: pieces(parts), databases: pieces(databases) };
  const written = await Array.fromAsync(formatFilesMetadata(text));
  return Buffer.concat(written).toString();
}

const example =
  '{"Files":{' +
  '"/base/13/2619":{"IsIncremented":false,"IsSkipped":false,' +
  '"MTime":"2026-08-21T20:00:11.482915337+02:00","UpdatesCount":0},' +
  '"/base/13/1259":{"IsIncremented":true,"IsSkipped":false,"MTime":"2026-08-21T20:00:58.000120001+02:00",' +
  '"CorruptBlocks":{"CorruptBlocksCount":2,"SomeCorruptBlocks":[4,9]},"UpdatesCount":17},' +
  '"/base":{"IsIncremented":false,"IsSkipped":true,"MTime":"2026-08-19T06:00:00Z","UpdatesCount":0}},' +
  '"TarFileSets":{"part_001.tar.lz4":["/","/base"],"backup_label.tar.lz4":["tablespace_map","backup_label"]},' +
  '"DatabasesByNames":{"shop":{"oid":16390,"tables_new":{"public.orders":{"oid":16391,"relfilenode":0,' +
  '"subtables":{"public.orders_2026":{"oid":16400,"relfilenode":16400}}}}}}}';

const items: FilesMetadataItem[] = [
  {
    kind: "file",
    name: "/base/13/2619",
    isIncremented: false,
    isSkipped: false,
    mtimeNs: 1787335211482915337n,
    corruptBlocks: undefined,
    updatesCount: 0n,
  },
  {
    kind: "file",
    name: "/base/13/1259",
    isIncremented: true,
    isSkipped: false,
    mtimeNs: 1787335258000120001n,
    corruptBlocks: { count: 2, blockNumbers: [4, 9] },
    updatesCount: 17n,
  },
  {
    kind: "file",
    name: "/base",
    isIncremented: false,
    isSkipped: true,
    mtimeNs: 1787119200000000000n,
    corruptBlocks: undefined,
    updatesCount: 0n,
  },
  { kind: "member", part: "part_001.tar.lz4", name: "/" },
  { kind: "member", part: "part_001.tar.lz4", name: "/base" },
  { kind: "member", part: "backup_label.tar.lz4", name: "tablespace_map" },
  { kind: "member", part: "backup_label.tar.lz4", name: "backup_label" },
  { kind: "database", name: "shop", oid: 16390 },
  {
    kind: "relation",
    database: "shop",
    relation: {
      name: "public.orders",
      oid: 16391,
      relfilenode: 0,
      descendants: [
        { name: "public.orders_2026", oid: 16400, relfilenode: 16400, descendants: [] },
      ],
    },
  },
];

test("each entry is told with its place", async () => {
  assert.deepEqual(await parse(example), items);
});

test("a version 1 sentinel's own members are told alike", () => {
  assert.deepEqual([...parseEmbeddedFilesMetadata(backup, parseJson(example))], items);
});

test("entries are written as WAL-G writes them", async () => {
  const files = items
    .filter((item) => item.kind === "file")
    .map((file) => formatFileDescription(file, file.name === "/base" ? 0 : 120));
  const parts =
    '"part_001.tar.lz4":["/","/base"],"backup_label.tar.lz4":["tablespace_map","backup_label"]';
  const relations = items.flatMap((item) => (item.kind === "relation" ? [item.relation] : []));
  const databases =
    formatDatabaseBegin("shop", 16390) +
    relations.map((relation) => formatRelation(relation)).join(",") +
    formatDatabaseEnd();
  assert.equal(await format(files.join(","), parts, databases), example);
});

test("groups without members are left out", async () => {
  assert.equal(await format("", "", ""), "{}");
  assert.equal(await format("", '"a":[]', ""), '{"TarFileSets":{"a":[]}}');
  assert.equal(await format("", "", '"d":{}'), '{"DatabasesByNames":{"d":{}}}');
  assert.equal(
    await format('"f":{}', "", '"d":{}'),
    '{"Files":{"f":{}},"DatabasesByNames":{"d":{}}}',
  );
  for (const text of ["{}", '{"Files":null,"TarFileSets":null,"DatabasesByNames":null}']) {
    assert.deepEqual(await parse(text), []);
  }
});

test("a set of names may be null, and old and unknown members are passed over", async () => {
  const text =
    '{"TarFileSets":{"part_001.tar":null},"Future":[{"x":1}],' +
    '"DatabasesByNames":{"d":{"oid":1,"tables":{"public.t":7},"tables_new":null}}}';
  assert.deepEqual(await parse(text), [{ kind: "database", name: "d", oid: 1 }]);
});

const wrong = [
  ['{"Files":{"/a":1}}', /^\/a in files_metadata.json of base_\w+ is not a JSON object$/],
  ['{"Files":{"/a":{}}}', /has no MTime$/],
  ['{"Files":{"/a":{"MTime":"x"}}}', /not a time in RFC 3339/],
  ['{"Files":{"/a":{"MTime":"2020-01-01T00:00:00Z","IsSkipped":1}}}', /IsSkipped .* true or false/],
  ['{"TarFileSets":{"p":[1]}}', /has an entry that is no string$/],
  ['{"DatabasesByNames":{"d":{"oid":"1"}}}', /oid of .* is not an integer/],
  ['{"DatabasesByNames":{"d":{"tables_new":{"t":[]}}}}', /relation t is not a JSON object/],
  ['{"Files":{', /ends too early/],
  ['{"Files":{}', /ends too early/],
  ['{"Files":{}}x', /text after the end/],
] as const;

for (const [text, message] of wrong) {
  test(`refuses ${text}`, async () => {
    await assert.rejects(parse(text), (error: unknown) => {
      assert.ok(error instanceof Error);
      assert.match(error.name, /^(FormatError|TruncatedError)$/);
      assert.match(error.message, message);
      return true;
    });
  });
}

test("every description is read back", async () => {
  const fileOf = fc.record({
    name: fc.string({ unit: "grapheme", minLength: 1 }).filter((name) => name.isWellFormed()),
    isIncremented: fc.boolean(),
    isSkipped: fc.boolean(),
    mtimeNs: fc.bigInt({ min: 0n, max: 4n * 10n ** 18n }),
    corruptBlocks: fc.option(
      fc.record(
        { count: fc.nat(), blockNumbers: fc.array(fc.nat(), { maxLength: 3 }) },
        { noNullPrototype: true },
      ),
      { nil: undefined },
    ),
    updatesCount: fc.bigInt({ min: 0n, max: 2n ** 64n - 1n }),
  });
  await fc.assert(
    fc.asyncProperty(fileOf, fc.integer({ min: -720, max: 720 }), async (file, offset) => {
      const text = await format(formatFileDescription(file, offset), "", "");
      assert.deepEqual(await parse(text), [{ kind: "file", ...file }]);
    }),
  );
});
