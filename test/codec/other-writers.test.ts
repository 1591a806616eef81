import { test } from "node:test";
import assert from "node:assert/strict";
import { createHash } from "node:crypto";
import { readFileSync } from "node:fs";
import { join } from "node:path";
import { codecByExtension } from "../../src/codec/table.ts";
import { readAll } from "../../src/io/bytes.ts";
import { inChunks } from "../support/content.ts";

const folder = join(import.meta.dirname, "..", "fixtures", "codec");

/** SHA-256 of what the tools zstd, lz4, brotli and xz make of the files. */
const files = [
  {
    name: "000000010000000000000003.br",
    sizeBytes: 16777216,
    sha256: "9bc44424914c3fa2ae40b324c5f6113e60ac5a144f3de920966a2e341236622a",
  },
  {
    name: "000000010000000000000003.lz4",
    sizeBytes: 16777216,
    sha256: "0804c86818f912ba703299d1acb873fd4e7a2d984202254864b69fbc85306a4c",
  },
  {
    name: "000000010000000000000003.zst",
    sizeBytes: 16777216,
    sha256: "8d20cef21b51100f8c9e072c09263ed2916cd955dfe9895b9a396eaef8e27696",
  },
  {
    name: "pg_control.tar.br",
    sizeBytes: 9728,
    sha256: "fd2b0b679e0b771ea5ad4bd9f6436b9d1fcd44e25355f7f20d526f57f43e0336",
  },
  {
    name: "pg_control.tar.lz4",
    sizeBytes: 9728,
    sha256: "fdd2b3e873889df925255ba9a5452849eecfab1dcc4ad6f010796dd44becdca9",
  },
  {
    name: "pg_control.tar.zst",
    sizeBytes: 9728,
    sha256: "10e6cdac6e7f0713e937efb5ab265af5e08862daba32409b1f2c9dc6bf0a9fef",
  },
  {
    name: "numbers.lzma",
    sizeBytes: 13893,
    sha256: "2e57c67a8bbe706a08d6638ec67da02b67b3743ae7d35948cbcf8d1f45cae0a5",
  },
];

for (const { name, sizeBytes, sha256 } of files) {
  const codec = codecByExtension(name.slice(name.lastIndexOf(".") + 1));
  const bytes = readFileSync(join(folder, name));
  const options = { jobs: 2, signal: new AbortController().signal };

  test(`${name} is read`, async () => {
    assert(codec !== undefined);
    for (const chunkBytes of [bytes.length, 1000, 61]) {
      const content = await readAll(codec.decompress(inChunks(bytes, chunkBytes), options));
      assert.equal(content.length, sizeBytes);
      assert.equal(createHash("sha256").update(content).digest("hex"), sha256);
    }
  });

  test(`${name} cut off is refused`, async () => {
    assert(codec !== undefined);
    const cuts = [0, 1, 5, 13, 14, 100, bytes.length - 5, bytes.length - 4, bytes.length - 1];
    for (const cut of cuts) {
      const input = inChunks(bytes.subarray(0, cut), 4096);
      await assert.rejects(readAll(codec.decompress(input, options)), { name: "TruncatedError" });
    }
  });
}
