import assert from "node:assert/strict";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { test } from "node:test";
import type { ByteStream } from "../../src/io/bytes.ts";
import { openStorage } from "../../src/storage/open.ts";
import { startChildServer } from "../support/child-server.ts";
import { s3Config } from "../support/s3-config.ts";

const signal = new AbortController().signal;
const MIB = 1024 * 1024;

async function* generated(sizeMiB: number): ByteStream {
  const chunk = Buffer.alloc(MIB, 7);
  for (let index = 0; index < sizeMiB; index++) {
    chunk.writeUInt32LE(index);
    yield chunk;
  }
}

async function withSink<T>(work: (endpoint: string) => Promise<T>): Promise<T> {
  const program = join(import.meta.dirname, "..", "support", "s3-sink-program.ts");
  const sink = startChildServer(process.execPath, [program], { cwd: tmpdir() });
  try {
    return await work(`http://127.0.0.1:${await sink.firstLine()}`);
  } finally {
    await sink.stop();
  }
}

async function open(endpoint: string) {
  const target = { endpoint, bucket: "b", accessKeyId: "a", secretAccessKey: "s" };
  const options = { signal, requestTimeoutMs: 30_000, uploadConcurrency: 16 };
  return await openStorage(s3Config(target), options);
}

/** How far the resident memory rises above where it stood, sampled while `work` runs. */
async function peakGrowthMiB(work: () => Promise<void>): Promise<number> {
  const before = process.memoryUsage().rss;
  let peak = before;
  const timer = setInterval(() => (peak = Math.max(peak, process.memoryUsage().rss)), 20);
  try {
    await work();
  } finally {
    clearInterval(timer);
  }
  return (peak - before) / MIB;
}

test("an upload of 1 GiB of unknown length takes little memory", async () => {
  const grownMiB = await withSink(async (endpoint) => {
    const storage = await open(endpoint);
    await storage.put("warm", { isReopenable: false, open: () => generated(1) }, { signal });
    const body = { isReopenable: false, open: () => generated(1024) };
    return await peakGrowthMiB(() => storage.put("large", body, { signal }));
  });
  assert.ok(grownMiB < 150, `${grownMiB.toFixed(0)} MiB`);
});

test("sixteen uploads at once share the memory for parts", async () => {
  const grownMiB = await withSink(async (endpoint) => {
    const storage = await open(endpoint);
    const put = async (_: unknown, index: number) =>
      await storage.put(
        `k${index}`,
        { isReopenable: false, open: () => generated(64) },
        { signal },
      );
    return await peakGrowthMiB(async () => {
      await Promise.all(Array.from({ length: 16 }, put));
    });
  });
  assert.ok(grownMiB < 220, `${grownMiB.toFixed(0)} MiB`);
});
