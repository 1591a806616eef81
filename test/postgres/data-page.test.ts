import assert from "node:assert/strict";
import { test } from "node:test";
import { fc } from "../support/property.ts";
import { TruncatedError } from "../../src/errors.ts";
import {
  DataPageChecksum,
  isNewDataPage,
  isPlausibleDataPage,
  pageChecksum,
  parseDataPageHeader,
} from "../../src/postgres/data-page.ts";
import { parseLsn } from "../../src/postgres/lsn.ts";
import { postgresBytes, postgresFacts } from "../support/postgres-fixtures.ts";
import { type Major, MAJORS } from "../support/postgres-programs.ts";

const PAGE_BYTES = 8192;

function pagesOf(major: Major) {
  const bytes = postgresBytes(major, "data-pages");
  return postgresFacts(major).pages.map(({ file, block }, index) => ({
    what: `${file} block ${block}`,
    block,
    page: bytes.slice(index * PAGE_BYTES, (index + 1) * PAGE_BYTES),
  }));
}

for (const major of MAJORS) {
  test(`pages of PostgreSQL ${major} hold the checksum of their content and block`, () => {
    const checksum = new DataPageChecksum();
    const bytes = postgresBytes(major, "data-pages");
    const view = new DataView(bytes.buffer);
    for (const [index, { what, block, page }] of pagesOf(major).entries()) {
      const stored = parseDataPageHeader(page).checksum;
      assert.equal(checksum.compute(view, index * PAGE_BYTES, block), stored, what);
      assert.equal(pageChecksum(page, block), stored, what);
      assert.ok(checksum.matches(view, index * PAGE_BYTES, block), what);
      assert.ok(!checksum.matches(view, index * PAGE_BYTES, block + 131_072), what);
    }
  });

  test(`page headers of PostgreSQL ${major}`, () => {
    const { control } = postgresFacts(major);
    const end = parseLsn(control.checkpoint.checkpoint_lsn);
    for (const { what, page } of pagesOf(major)) {
      const header = parseDataPageHeader(page);
      assert.equal(header.pageBytes, PAGE_BYTES, what);
      assert.equal(header.layoutVersion, 4, what);
      assert.ok(header.lsn > 0n && header.lsn < end, what);
      const view = new DataView(page.buffer);
      assert.ok(!isNewDataPage(view, 0), what);
      assert.ok(isPlausibleDataPage(view, 0, PAGE_BYTES), what);
      assert.ok(!isPlausibleDataPage(view, 0, 16_384), what);
    }
  });
}

test("each flipped bit of a page but some 1 of 65535 changes its checksum", () => {
  const [first] = pagesOf(15);
  if (first === undefined) throw new Error("no page");
  const { page, block } = first;
  const view = new DataView(page.buffer);
  const checksum = new DataPageChecksum();
  const stored = checksum.compute(view, 0, block);
  fc.assert(
    fc.property(fc.nat(PAGE_BYTES * 8 - 1), (bit) => {
      const at = Math.trunc(bit / 8);
      const before = page[at] ?? 0;
      page[at] = before ^ (1 << (bit % 8));
      const changed = checksum.compute(view, 0, block);
      page[at] = before;
      assert.equal(changed === stored, at === 8 || at === 9, `bit ${bit}`);
    }),
    { numRuns: 2000, seed: 1 },
  );
});

test("a checksum depends on the block, and is never 0", () => {
  const zeros = new Uint8Array(PAGE_BYTES);
  const sums = Array.from({ length: 70_000 }, (_, block) => block * 61_223).map((block) =>
    pageChecksum(zeros, block >>> 0),
  );
  assert.ok(sums.every((sum) => sum >= 1 && sum <= 65_535));
  assert.ok(new Set(sums).size > 30_000);
});

test("pages of other sizes are summed over their own size", () => {
  for (const pageBytes of [1024, 2048, 4096, 16_384, 32_768]) {
    const page = Uint8Array.from({ length: pageBytes }, (_, i) => i * 31);
    const sum = pageChecksum(page, 3);
    page[pageBytes - 1] = (page[pageBytes - 1] ?? 0) ^ 1;
    assert.notEqual(pageChecksum(page, 3), sum, String(pageBytes));
  }
});

test("a page of zeros is new", () => {
  const view = new DataView(new ArrayBuffer(PAGE_BYTES));
  assert.ok(isNewDataPage(view, 0));
  assert.ok(!isPlausibleDataPage(view, 0, PAGE_BYTES));
});

const damages = [
  { what: "an unknown flag", offset: 10, value: 0x0008 },
  { what: "free space that begins in the header", offset: 12, value: 23 },
  { what: "free space that ends before it begins", offset: 14, value: 24 },
  { what: "free space behind the special part", offset: 14, value: 8193 },
  { what: "a special part that is not aligned", offset: 16, value: 8191 },
  { what: "a special part behind the page", offset: 16, value: 8200 },
  { what: "another size", offset: 18, value: 0x4004 },
  { what: "another layout", offset: 18, value: 0x2005 },
];

for (const { what, offset, value } of damages) {
  test(`a page is not plausible with ${what}`, () => {
    const [first] = pagesOf(15);
    if (first === undefined) throw new Error("no page");
    const view = new DataView(first.page.buffer);
    assert.ok(isPlausibleDataPage(view, 0, PAGE_BYTES));
    view.setUint16(offset, value, true);
    assert.ok(!isPlausibleDataPage(view, 0, PAGE_BYTES));
  });
}

test("a cut-off header is refused", () => {
  assert.throws(
    () => parseDataPageHeader(new Uint8Array(23)),
    new TruncatedError("a data page header needs 24 bytes, got 23"),
  );
});
