import assert from "node:assert/strict";
import { existsSync, readdirSync } from "node:fs";
import { mkdir, readFile, writeFile } from "node:fs/promises";
import { join } from "node:path";
import { test } from "node:test";
import { LineServer } from "../../src/archive/line-server.ts";
import { sweepPrefetched } from "../../src/archive/prefetch-client.ts";
import { putReadySegment } from "../../src/archive/ready-segment.ts";
import { prefetchLines } from "../../src/archive/prefetch-protocol.ts";
import { spoolDirectory } from "../../src/archive/spool-directory.ts";
import { writeWal } from "../support/wal-writer.ts";
import { openWorkbench } from "./workbench.ts";

const [segment] = writeWal({ records: [{ dataBytes: 100 }] }).segments;
const { name = "", bytes = Buffer.of() } = segment ?? {};
const OTHER = "000000010000000000000009";

for (const isOnWalFileSystem of [true, false]) {
  const how = isOnWalFileSystem ? "renamed" : "copied";
  test(`a ready segment is ${how} if it is whole, else nothing is`, async () => {
    await using bench = await openWorkbench();
    const path = await bench.file("ready", bytes);
    const destination = join(bench.directory, "pg_wal", "RECOVERYXLOG");
    await mkdir(join(bench.directory, "pg_wal"));
    const put = (wanted: string, from = path) =>
      putReadySegment({ name: wanted, path: from }, destination, { ...bench, isOnWalFileSystem });

    await assert.rejects(put(OTHER), { name: "FormatError", message: /its name stands for/ });
    await writeFile(path, bytes.subarray(0, 5000));
    await assert.rejects(put(name), { name: "FormatError", message: /has 5000 bytes$/ });
    await assert.rejects(put(name, `${path}-`), { name: "LocalFileError" });
    assert.ok(!existsSync(destination));

    await writeFile(path, bytes);
    await put(name);
    assert.ok((await readFile(destination)).equals(bytes));
    assert.ok(!existsSync(path));
  });
}

test("what a killed prefetcher left is swept, not what a living one has", async () => {
  await using bench = await openWorkbench();
  const data = join(bench.directory, "data");
  await mkdir(join(data, "pg_wal"), { recursive: true });
  const spool = await spoolDirectory({ dataDirectory: data, cacheDirectory: "/none" });
  const sweep = () => sweepPrefetched(spool, { ...bench, timeoutMs: 5000 });
  await bench.file(`data.walnut/prefetch/run-1/${name}`, bytes);
  const living = await LineServer.listen(
    spool.prefetchSocket,
    prefetchLines((_, answer) => answer({ kind: "declined", reason: "any" })),
  );
  assert.equal(await sweep(), false);
  assert.deepEqual(readdirSync(spool.prefetch), ["run-1"]);
  await living?.[Symbol.asyncDispose]();
  assert.equal(await sweep(), true);
  assert.deepEqual(readdirSync(spool.prefetch), []);
});
