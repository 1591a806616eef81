import assert from "node:assert/strict";
import { test } from "node:test";
import { OperationError } from "../../src/errors.ts";
import { paxEntry, readWhole, tarArchive } from "../support/tar-archive.ts";

const badPax = (content: string): Buffer =>
  tarArchive({ name: "PaxHeaders/0", typeflag: "x", content }, { name: "a" });

const bad: readonly { what: string; archive: Buffer; message: RegExp }[] = [
  {
    what: "endless extension",
    archive: tarArchive({ name: "x", typeflag: "x", size: "77777777777\0" }),
    message: /^tar header at 0 announces 8589934591 bytes of extended header, more than 1048576$/,
  },
  {
    what: "NUL in a long name",
    archive: tarArchive({ name: "L", typeflag: "L", content: "a\0b\0" }, { name: "a" }),
    message: /^tar header at 0 has a long name with a NUL inside$/,
  },
  {
    what: "global name",
    archive: tarArchive(paxEntry({ path: "a" }, "g"), { name: "a" }),
    message: /^tar header at 0 sets a name, size or time for all members$/,
  },
  {
    what: "PAX length without digits",
    archive: badPax("x path=a\n"),
    message: /^extended tar header at 0 has a record at 0 without a right length$/,
  },
  {
    what: "PAX length past the end",
    archive: badPax("99 path=a\n"),
    message: /^extended tar header at 0 has a record at 0 without a right length$/,
  },
  {
    what: "PAX length of nothing",
    archive: badPax("0 "),
    message: /^extended tar header at 0 has a record at 0 without a right length$/,
  },
  {
    what: "PAX record without end",
    archive: badPax("10 path=ab"),
    message: /^extended tar header at 0 has a record at 0 without a right length$/,
  },
  {
    what: "PAX record without key",
    archive: badPax("8 =abcd\n"),
    message: /^extended tar header at 0 has the record "=abcd"$/,
  },
  {
    what: "PAX name with NUL",
    archive: tarArchive(paxEntry({ path: "a\0b" }), { name: "a" }),
    message: /^extended tar header at 0 has the name "a\\u0000b"$/,
  },
  {
    what: "empty PAX name",
    archive: tarArchive(paxEntry({ path: "" }), { name: "a" }),
    message: /^extended tar header at 0 has the name ""$/,
  },
  {
    what: "PAX size",
    archive: tarArchive(paxEntry({ size: "-1" }), { name: "a" }),
    message: /^extended tar header at 0 has the size "-1"$/,
  },
  {
    what: "PAX time",
    archive: tarArchive(paxEntry({ mtime: "now" }), { name: "a" }),
    message: /^extended tar header at 0 has the time "now"$/,
  },
  {
    what: "sparse file",
    archive: tarArchive(paxEntry({ "GNU.sparse.major": "1" }), { name: "a" }),
    message: /^extended tar header at 0 has a sparse file$/,
  },
];

for (const { what, archive, message } of bad) {
  test(`refuses an archive: ${what}`, async () => {
    for (const chunkBytes of [100, 100_000]) {
      await assert.rejects(readWhole(archive, { chunkBytes }), (error) => {
        assert.ok(error instanceof OperationError, String(error));
        assert.match(error.message, message);
        return true;
      });
    }
  });
}
