import assert from "node:assert/strict";
import { test } from "node:test";
import { OperationError } from "../../src/errors.ts";
import { readWhole, tarArchive, tarEnd, tarEntry, paxEntry } from "../support/tar-archive.ts";

const bad: readonly { what: string; archive: Buffer; message: RegExp }[] = [
  {
    what: "empty",
    archive: Buffer.alloc(0),
    message: /^tar archive ends at 0 without its end mark$/,
  },
  {
    what: "no end mark",
    archive: tarEntry({ name: "a" }),
    message: /^tar archive ends at 512 without its end mark$/,
  },
  {
    what: "half an end mark",
    archive: Buffer.concat([tarEntry({ name: "a" }), Buffer.alloc(512)]),
    message: /^tar archive ends at 1024 without its end mark$/,
  },
  {
    what: "one zero block inside",
    archive: Buffer.concat([Buffer.alloc(512), tarArchive({ name: "a" })]),
    message: /^tar archive has one zero block before 512 where two end it$/,
  },
  {
    what: "bytes behind the end",
    archive: Buffer.concat([tarArchive({ name: "a" }), Buffer.alloc(512), Buffer.from("x")]),
    message: /^tar archive has bytes other than zero after its end, near 20\d\d$/,
  },
  {
    what: "cut in a header",
    archive: tarEntry({ name: "a" }).subarray(0, 200),
    message: /^tar archive ends at byte 200, at least 312 too early$/,
  },
  {
    what: "cut in a content",
    archive: tarEntry({ name: "a", content: "x".repeat(1000) }).subarray(0, 1000),
    message: /^tar archive ends at 1000, 512 bytes before the end of a member's content$/,
  },
  {
    what: "cut in the padding",
    archive: tarEntry({ name: "a", content: "x" }).subarray(0, 600),
    message: /^tar archive ends at byte 600, at least 424 too early$/,
  },
  {
    what: "checksum",
    archive: tarArchive({ name: "a", checksumOff: 1 }),
    message: /^tar header at 0 has the checksum \d+, its bytes \d+$/,
  },
  {
    what: "magic",
    archive: tarArchive({ name: "a", magic: "ustar\u000001" }),
    message: /^tar header at 0 has the magic "ustar\\u000001"$/,
  },
  {
    what: "no magic",
    archive: tarArchive({ name: "a", magic: "\0\0\0\0\0\0\0\0" }),
    message: /^tar header at 0 has the magic /,
  },
  {
    what: "typeflag",
    archive: tarArchive({ name: "a", typeflag: "S" }),
    message: /^tar header at 0 has the unknown type "S"$/,
  },
  {
    what: "size without digits",
    archive: tarArchive({ name: "a", size: "0000000000x\0" }),
    message: /^tar header at 0 has the size "0000000000x\\u0000"$/,
  },
  {
    what: "negative size",
    archive: tarArchive({ name: "a", size: Buffer.alloc(12, 0xff) }),
    message: /^tar header at 0 has the size /,
  },
  {
    what: "size past 2^53",
    archive: tarArchive({ name: "a", size: Buffer.from([0x80, 0, 0, 0, 1, 0, 0, 0, 0, 0, 0, 0]) }),
    message: /^tar header at 0 has the size /,
  },
  {
    what: "unknown binary mark",
    archive: tarArchive({ name: "a", size: Buffer.from([0x81, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0]) }),
    message: /^tar header at 0 has the size /,
  },
  {
    what: "directory with content",
    archive: tarArchive({ name: "a", typeflag: "5", content: "x" }),
    message: /^tar header at 0 gives the directory "a" 1 bytes$/,
  },
  {
    what: "name that is not UTF-8",
    archive: (() => {
      const entry = tarEntry({ name: "aé" });
      entry[1] = 0xff;
      entry[2] = 0xff;
      const sum = entry.subarray(0, 512).reduce((total, byte) => total + byte, 0);
      const stored = entry.subarray(148, 156).reduce((total, byte) => total + byte, 0);
      entry.write(`${(sum - stored + 8 * 32).toString(8).padStart(6, "0")}\0 `, 148, "latin1");
      return Buffer.concat([entry, tarEnd()]);
    })(),
    message: /^tar header at 0 has a name that is not UTF-8$/,
  },
  {
    what: "padding",
    archive: tarArchive({ name: "a", content: "x", padding: 1 }),
    message: /^tar archive has bytes other than zero in the padding at 513$/,
  },
  {
    what: "extension without entry",
    archive: tarArchive(paxEntry({ path: "a" })),
    message: /^tar header at 0 extends a member that does not follow$/,
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
