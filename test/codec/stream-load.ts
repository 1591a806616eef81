// A program for memory.test.ts: streams content through a codec and back, and prints what it took.
//   stream-load.ts <extension> <MiB> <jobs>
import { readFileSync } from "node:fs";
import { codecByExtension } from "../../src/codec/table.ts";
import { type ByteStream, CHUNK_BYTES } from "../../src/io/bytes.ts";
import { sampleContent } from "../support/content.ts";

const [extension = "", mebibytes, jobs] = process.argv.slice(2);
const codec = codecByExtension(extension);
if (codec === undefined) throw new Error(`no codec for ${extension}`);
const options = { jobs: Number(jobs), signal: new AbortController().signal };
const sample = sampleContent(8 * CHUNK_BYTES);

async function* content(): ByteStream {
  for (let count = 0; count < Number(mebibytes); count += 1) {
    const at = (count % 8) * CHUNK_BYTES;
    yield sample.subarray(at, at + CHUNK_BYTES);
  }
}

/** Of this program alone: what getrusage tells begins with the size of the parent. */
function peakBytes(): number {
  const [, kibibytes] =
    /^VmHWM:\s+(\d+) kB$/m.exec(readFileSync("/proc/self/status", "utf8")) ?? [];
  return Number(kibibytes) * 1024;
}

const before = process.memoryUsage.rss();
const startedAt = performance.now();
let outputBytes = 0;
for await (const chunk of codec.decompress(codec.compress(content(), options), options)) {
  outputBytes += chunk.length;
}
process.stdout.write(
  JSON.stringify({
    outputBytes,
    growthBytes: peakBytes() - before,
    elapsedMs: performance.now() - startedAt,
  }),
);
