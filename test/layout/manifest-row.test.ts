import assert from "node:assert/strict";
import { test } from "node:test";
import { fc } from "../support/property.ts";
import {
  formatManifestLine,
  type ManifestFile,
  type ManifestUnchanged,
} from "../../src/layout/manifest.ts";
import { parseRow } from "../../src/layout/manifest-row.ts";

const DIGITS = 16;

const file: ManifestFile = {
  kind: "file",
  name: "/base/5/1259",
  sizeBytes: 8192,
  mode: 0o600,
  mtimeNs: 1787335211482915337n,
  hash: "0123456789abcdef",
  part: "part_001.tar.zst",
  offsetBytes: 512,
};
const increment: ManifestFile = { ...file, fullBytes: 81920, corruptPages: 3 };
const unchanged: ManifestUnchanged = {
  kind: "unchanged",
  name: "/base/5/größe",
  sizeBytes: 0,
  mode: 0o7777,
  mtimeNs: -1n,
  hash: "0123456789abcdef",
};
const rows = [
  file,
  increment,
  { ...increment, fullBytes: undefined },
  unchanged,
  { ...unchanged, hash: undefined },
];

function withoutAbsent(row: object): object {
  return Object.fromEntries(Object.entries(row).filter(([, value]) => value !== undefined));
}

test("the usual lines are read as they were written", () => {
  for (const row of rows) {
    assert.deepEqual(parseRow(formatManifestLine(row).trimEnd(), DIGITS), withoutAbsent(row));
  }
});

test("all modes are read, and what is no mode is not", () => {
  for (let mode = 0; mode <= 0o7777 + 99; mode += 1) {
    const row = parseRow(formatManifestLine({ ...file, mode }).trimEnd(), DIGITS);
    assert.equal(row?.mode, mode <= 0o7777 ? mode : undefined);
  }
});

test("a line is only read if it is written as we write it", () => {
  const texts = rows.map((row) => formatManifestLine(row).trimEnd());
  fc.assert(
    fc.property(
      fc.constantFrom(...texts),
      fc.nat(300),
      fc.nat(3),
      fc.constantFrom(...Array.from('019-\\",:{}ae \n\u2028\u007fé'), "\\u0041", '"full":1,', "e1"),
      (text, at, removed, inserted) => {
        const changed = text.slice(0, at) + inserted + text.slice(at + removed);
        const row = parseRow(changed, DIGITS);
        if (row !== undefined) assert.equal(formatManifestLine(row), `${changed}\n`);
      },
    ),
    { numRuns: 1000 },
  );
});

test("a hash of the other length is left to who can tell what is wrong", () => {
  for (const row of rows) {
    if (row.hash === undefined) continue;
    assert.equal(parseRow(formatManifestLine(row).trimEnd(), 64), undefined);
  }
});
