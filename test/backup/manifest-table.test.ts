import assert from "node:assert/strict";
import { test } from "node:test";
import { fc } from "../support/property.ts";
import { type ListedFile, ManifestFiles, UnchangedFiles } from "../../src/backup/manifest-table.ts";
import { PathTable } from "../../src/backup/path-table.ts";
import type { ManifestHash } from "../../src/layout/manifest.ts";

const HASHES: readonly (readonly [hash: ManifestHash, digits: number])[] = [
  ["xxh64", 16],
  ["sha256", 64],
];
/** Few, so that the backups of a chain have them in common. */
const paths = fc.constantFrom("", "base/1/2", "base/1/3", "PG_VERSION", "pg_tblspc/1/ä");

function contents(digits: number) {
  return {
    sizeBytes: fc.oneof(fc.nat(9), fc.maxSafeNat()),
    mode: fc.constantFrom(0, 0o600, 0o640, 0o7777),
    mtimeNs: fc.bigInt({ min: -(2n ** 63n), max: 2n ** 63n - 1n }),
    hash: fc.string({
      unit: fc.nat(15).map((digit) => digit.toString(16)),
      minLength: digits,
      maxLength: digits,
    }),
  };
}

for (const [hash, digits] of HASHES) {
  test(`files of a manifest come back as they were listed: ${hash}`, () => {
    const file = fc.record(
      {
        ...contents(digits),
        part: fc.constantFrom("part_001.tar.zst", "copy_1.tar.lz4"),
        offsetBytes: fc.maxSafeNat(),
        fullBytes: fc.oneof(fc.constant(0), fc.maxSafeNat()),
        corruptPages: fc.nat(2 ** 20),
      },
      {
        noNullPrototype: true,
        requiredKeys: ["sizeBytes", "mode", "mtimeNs", "hash", "part", "offsetBytes"],
      },
    );
    fc.assert(
      fc.property(
        fc.uniqueArray(fc.tuple(paths, file), { selector: ([path]) => path }),
        (listed) => {
          const table = new PathTable();
          table.add("another backup's");
          const files = new ManifestFiles(table, hash);
          for (const [path, one] of listed) files.set(path, one);
          assert.equal(files.size, listed.length);
          assert.deepEqual([...files], listed);
          assert.deepEqual(
            [...files.keys()],
            listed.map(([path]) => path),
          );
          for (const [path, one] of listed) {
            assert.deepEqual(files.get(path), one);
            assert.equal(files.partOfId(table.find(path)), one.part);
            assert.equal(files.corruptPagesOfId(table.find(path)), one.corruptPages);
          }
          assert.equal(files.has("another backup's"), false);
          assert.equal(files.get("another backup's"), undefined);
        },
      ),
    );
  });

  test(`files come back, whatever the increment above says of them: ${hash}`, () => {
    const few = fc.array(fc.record(contents(digits), { noNullPrototype: true }), {
      minLength: 1,
      maxLength: 2,
    });
    const listings = few.chain((contentsOfAll) => {
      const listing = fc.dictionary(paths, fc.constantFrom(...contentsOfAll), {
        noNullPrototype: true,
      });
      return fc.tuple(listing, listing, listing);
    });
    const rest = { part: "part_001.tar.zst", offsetBytes: 512 };
    fc.assert(
      fc.property(listings, fc.nat(9), ([top, middle, bottom], fullBytes) => {
        const table = new PathTable();
        const newest = new UnchangedFiles(table, hash);
        for (const [path, one] of Object.entries(top)) newest.set(path, one);
        const above = new UnchangedFiles(table, hash, newest);
        for (const [path, one] of Object.entries(middle)) above.set(path, one);
        const files = new ManifestFiles(table, hash, above);
        const listed = new Map<string, ListedFile>();
        for (const [path, one] of Object.entries(bottom)) {
          const file = { ...one, ...rest, ...(path === "PG_VERSION" ? { fullBytes } : {}) };
          listed.set(path, file);
          assert.equal(files.set(path, file), true);
          assert.equal(files.set(path, file), false);
        }
        assert.deepEqual(new Map(files), listed);
        for (const path of ["", "base/1/2", "base/1/3", "PG_VERSION", "never"]) {
          const [file, wanted] = [listed.get(path), middle[path]];
          assert.deepEqual(files.get(path), file);
          const id = table.find(path);
          assert.equal(files.hasId(id), file !== undefined);
          assert.equal(above.modeOfId(id), wanted?.mode);
          const isSame =
            file !== undefined &&
            file.fullBytes === undefined &&
            file.sizeBytes === wanted?.sizeBytes &&
            file.hash === wanted.hash;
          assert.equal(files.isSameContent(id, above), isSame);
          if (file === undefined) continue;
          assert.equal(files.storedSizeOfId(id), file.sizeBytes);
          assert.equal(files.sizeOfId(id), file.fullBytes ?? file.sizeBytes);
          assert.equal(files.corruptPagesOfId(id), undefined);
        }
      }),
    );
  });

  test(`unchanged files come back, whatever the increments above say: ${hash}`, () => {
    const file = fc.record(contents(digits), {
      noNullPrototype: true,
      requiredKeys: ["sizeBytes", "mode", "mtimeNs"],
    });
    const few = fc.array(file, { minLength: 1, maxLength: 2 });
    const chain = few.chain((contentsOfAll) =>
      fc.array(fc.dictionary(paths, fc.constantFrom(...contentsOfAll), { noNullPrototype: true }), {
        maxLength: 4,
      }),
    );
    fc.assert(
      fc.property(chain, (backups) => {
        const table = new PathTable();
        let above: UnchangedFiles | undefined;
        const tables: UnchangedFiles[] = [];
        for (const listed of backups) {
          above = new UnchangedFiles(table, hash, above);
          for (const [path, one] of Object.entries(listed)) above.set(path, one);
          tables.push(above);
        }
        for (const [index, listed] of backups.entries()) {
          const found = tables[index];
          assert.deepEqual(new Map(found), new Map(Object.entries(listed)));
          assert.equal(found?.size, Object.keys(listed).length);
          for (const path of ["", "base/1/2", "base/1/3", "PG_VERSION", "never"]) {
            assert.deepEqual(found.get(path), listed[path]);
            assert.equal(found.has(path), path in listed);
          }
        }
      }),
    );
  });
}
