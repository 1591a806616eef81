import assert from "node:assert/strict";
import { test } from "node:test";
import {
  type CatchUpEntry,
  formatEntry,
  formatFailure,
  formatListedFile,
  formatStart,
  formatSummary,
  parseEntry,
  parseFailure,
  parseListedFiles,
  parseStart,
  parseSummary,
  requireSameSummary,
} from "../../src/backup/catch-up-messages.ts";

const ENTRIES: readonly CatchUpEntry[] = [
  { kind: "same", path: "base/5/1259" },
  { kind: "directory", path: "", mode: 0o700 },
  { kind: "file", path: "global/1262", mode: 0o600, sizeBytes: 8192 },
  { kind: "pages", path: 'base/5/"\u00fc\n', mode: 0o640, sizeBytes: 0 },
];
for (const entry of ENTRIES) {
  test(`the entry ${JSON.stringify(entry)} comes out as it went in`, () => {
    const isRoot = entry.path === "";
    const sent = isRoot ? { ...entry, path: "." } : entry;
    assert.deepEqual(parseEntry(formatEntry(sent)), entry);
  });
}

for (const [text, message] of [
  ["", /JSON/],
  ["[]", /not a JSON object/],
  ["{}", /of no known kind/],
  ['{"link":"x","mode":1}', /of no known kind/],
  ['{"file":"x","mode":384}', /size/],
  ['{"file":"x","mode":384,"size":-1}', /size is negative: -1/],
  ['{"file":"x","mode":384,"size":1.5}', /size/],
  ['{"file":"x","mode":4096,"size":1}', /no permission bits: 4096/],
  ['{"file":"x","mode":-1,"size":1}', /negative/],
  ['{"file":"../x","mode":384,"size":1}', /holds "\.\."/],
  ['{"file":"base/../../x","mode":384,"size":1}', /holds "\.\."/],
  ['{"file":".","mode":384,"size":1}', /makes a file of the data directory/],
  ['{"file":"","mode":384,"size":1}', /empty name/],
  ['{"file":"a\\u0000b","mode":384,"size":1}', /NUL/],
  ['{"pages":"global/pg_control.walnut","mode":384,"size":1}', /our own marker/],
  ['{"file":1,"mode":384,"size":1}', /file/],
] as const) {
  test(`the entry ${text} is refused`, () => {
    assert.throws(() => parseEntry(Buffer.from(text)), {
      name: /FormatError|TruncatedError/,
      message,
    });
  });
}

test("a start comes out as it went in, and a wrong one does not", () => {
  const tablespaces = [{ oid: "16384", location: "/a space", growthBytes: 5 }];
  const start = { totalBytes: 2 ** 50, growthBytes: 7, tablespaces };
  assert.deepEqual(parseStart(formatStart(start)), start);
  for (const text of [
    '{"total":1,"growth":1}',
    '{"total":1,"growth":1,"tablespaces":{}}',
    '{"total":1,"growth":1,"tablespaces":[1]}',
    '{"total":1,"growth":1,"tablespaces":[{"oid":"../x","location":"/a","growth":0}]}',
    '{"total":1,"growth":-1,"tablespaces":[]}',
  ]) {
    assert.throws(() => parseStart(Buffer.from(text)), { name: "FormatError" }, text);
  }
});

test("ends that differ in anything find out", () => {
  const summary = { entryCount: 3, dataBytes: 10, digest: "0123456789abcdef" };
  const other = parseSummary(formatSummary(summary));
  requireSameSummary(summary, other);
  for (const change of [{ entryCount: 4 }, { dataBytes: 11 }, { digest: "0123456789abcdee" }]) {
    assert.throws(() => requireSameSummary({ ...summary, ...change }, other), {
      name: "FormatError",
      message: /^the two ends differ in (entryCount|dataBytes|digest): /,
    });
  }
});

test("an end says why it gives up, and the other one says it on", () => {
  const error = parseFailure(formatFailure("no space", "Make room."));
  assert.deepEqual([error.message, error.hint], ["the other end says: no space", "Make room."]);
  assert.equal(parseFailure(formatFailure("no space", undefined)).hint, undefined);
});

test("a list of files comes out as it went in, and a wrong line does not", () => {
  const files = [
    { path: "base/5/1259", sizeBytes: 8192 },
    { path: "pg_tblspc/16384/PG_17 x/5/2", sizeBytes: 0 },
  ];
  const lines = files.map(formatListedFile).join("");
  assert.deepEqual([...parseListedFiles(lines)], files);
  for (const text of ["1 a", "1\n", "x a\n", "01 a\n", "-1 a\n", "1 ../a\n", "1 a\n\n", "\n"]) {
    assert.throws(() => [...parseListedFiles(text)], { name: "FormatError" }, text);
  }
});
