import assert from "node:assert/strict";
import { open, utimes, writeFile } from "node:fs/promises";
import { join } from "node:path";
import { afterEach, beforeEach, test } from "node:test";
import { WalPacker } from "../../src/archive/wal-packer.ts";
import { codecOf } from "../../src/codec/table.ts";
import { readAll } from "../../src/io/bytes.ts";
import { openWorkbench, type Workbench } from "./workbench.ts";

const SIZE = 16 * 1024 * 1024;
const content = Buffer.alloc(SIZE, "a segment of PostgreSQL ");

let bench: Workbench;
beforeEach(async () => {
  bench = await openWorkbench();
});
afterEach(() => bench[Symbol.asyncDispose]());

for (const method of ["zstd", "none"] as const) {
  test(`${method}: a file is packed whole, and not at all when it is written to meanwhile`, async () => {
    const path = join(bench.directory, "000000010000000000000001");
    await writeFile(path, content);
    // The file system's clock moves in steps.
    await utimes(path, 1, 1);
    const codec = codecOf(method);
    const packer = new WalPacker({ codec, jobs: 1 });
    const kind = "segment" as const;
    const local = { name: "x", path, kind, sizeBytes: SIZE, systemId: 1n };
    const body = packer.pack(local, undefined, bench);
    const packed = await readAll(codec.decompress(body.open(), { jobs: 1, signal: bench.signal }));
    assert.ok(packed.equals(content));

    const taken = async (): Promise<number> => {
      let chunks = 0;
      for await (const _ of body.open()) {
        chunks += 1;
        if (chunks > 1) continue;
        await using handle = await open(path, "r+");
        await handle.write(Buffer.from("the next segment"), 0, 16, SIZE - 16);
      }
      return chunks;
    };
    await assert.rejects(taken(), { name: "LocalFileError", message: /written to while/ });
  });
}
