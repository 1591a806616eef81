/** Segments that are longer than usual (initdb --wal-segsize), in whatever pieces they come. */
import assert from "node:assert/strict";
import { randomBytes } from "node:crypto";
import { mkdir, readFile } from "node:fs/promises";
import { join } from "node:path";
import { test } from "node:test";
import { fetchWal } from "../../src/archive/fetch.ts";
import { codecOf } from "../../src/codec/table.ts";
import { type ByteStream, readAll } from "../../src/io/bytes.ts";
import { silentLog } from "../../src/io/log.ts";
import { overlay } from "../../src/storage/overlay.ts";
import { writeWal } from "../support/wal-writer.ts";
import { METHODS, openWorkbench } from "./workbench.ts";

const MIB = 1024 * 1024;
const data = randomBytes(MIB);
const { segments } = writeWal({
  segmentBytes: 32 * MIB,
  records: Array.from({ length: 33 }, () => ({ dataBytes: MIB, data })),
});
const [segment] = segments;
if (segment === undefined) throw new Error("no segment");
const { name, bytes } = segment;

for (const method of METHODS.filter((one) => one !== "lzma")) {
  test(`a segment of 32 MiB, ${method}`, async () => {
    await using bench = await openWorkbench();
    const { extension } = codecOf(method);
    const key = `wal_005/${name}${extension === "" ? "" : `.${extension}`}`;
    await bench.put(key, await bench.compress(method, bytes));
    const store = overlay(bench.memory, {
      get: (key, options) => inPieces(bench.memory.get(key, options), 700_001),
    });
    await mkdir(join(bench.directory, "pg_wal"));
    const destination = join(bench.directory, "pg_wal", "RECOVERYXLOG");
    const { signal } = bench;
    const limits = { codecJobs: 2, timeoutMs: 60_000, log: silentLog, signal };
    const cacheDirectory = join(bench.directory, "cache");
    await fetchWal(store, name, destination, { ...limits, cacheDirectory });
    assert.ok((await readFile(destination)).equals(bytes));
  });
}

/** As they come over a line: nothing about their length fits anything. */
async function* inPieces(content: ByteStream, pieceBytes: number): ByteStream {
  const whole = await readAll(content);
  for (let at = 0; at < whole.length; at += pieceBytes) yield whole.subarray(at, at + pieceBytes);
}
