import { test } from "node:test";
import assert from "node:assert/strict";
import type { CompressionMethod } from "../../src/codec/codec.ts";
import { codecOf } from "../../src/codec/table.ts";
import { readAll } from "../../src/io/bytes.ts";
import { inChunks, sampleContent } from "../support/content.ts";
import { needsTool, runTool } from "../support/tools.ts";

interface Interop {
  readonly method: CompressionMethod;
  readonly tool: string;
  /** Each makes a file of another kind; SIZE stands for the number of bytes. */
  readonly compressWords: readonly (readonly string[])[];
  readonly decompressWords: readonly string[];
  /** Checks a file, where the tool can. */
  readonly testWords?: readonly string[];
}

const interops: readonly Interop[] = [
  {
    method: "zstd",
    tool: "zstd",
    compressWords: [
      ["-1"],
      ["-12", "--long=27"],
      ["--no-check"],
      ["-T2", "-B1000000"],
      ["--stream-size=SIZE", "-3"],
    ],
    decompressWords: ["-d"],
    testWords: ["-t"],
  },
  {
    method: "lz4",
    tool: "lz4",
    compressWords: [
      ["-1"],
      ["-6", "-BD"],
      ["-B4"],
      ["-B5", "-BD", "-BX"],
      ["-B6", "--no-frame-crc"],
      ["--content-size"],
      ["-l"],
    ],
    decompressWords: ["-d"],
    testWords: ["-t"],
  },
  {
    method: "brotli",
    tool: "brotli",
    compressWords: [
      ["-q", "3"],
      ["-q", "9", "-w", "24"],
      ["-q", "0"],
    ],
    decompressWords: ["-d"],
  },
  {
    method: "lzma",
    tool: "xz",
    compressWords: [
      ["--format=lzma", "-0"],
      ["--format=lzma", "-2"],
      ["--format=lzma", "--lzma1=lc=0,lp=4,pb=4,dict=4KiB"],
      ["--format=lzma", "--lzma1=lc=4,lp=0,pb=0,dict=64MiB"],
    ],
    decompressWords: ["-d", "--format=lzma"],
    testWords: ["-t", "--format=lzma"],
  },
  {
    method: "gzip",
    tool: "gzip",
    compressWords: [["-1"], ["-9"]],
    decompressWords: ["-d"],
  },
];

const options = { jobs: 2, signal: new AbortController().signal };
const content = sampleContent(4_500_000);
const contents = [0, 1, 100_000, content.length].map((size) => content.subarray(0, size));

for (const { method, tool, ...words } of interops) {
  if (!needsTool(`${method} with the program ${tool}`, tool)) continue;
  const codec = codecOf(method);

  for (const compressWords of words.compressWords) {
    test(`what ${tool} ${compressWords.join(" ")} writes is read`, async () => {
      for (const original of contents) {
        const size = String(original.length);
        const wordsOfSize = compressWords.map((word) => word.replace("SIZE", size));
        const stored = await runTool(tool, ["-c", ...wordsOfSize], original);
        const back = await readAll(codec.decompress(inChunks(stored, 300_000), options));
        assert.equal(back.equals(original), true, `${original.length} bytes`);
      }
    });
  }

  if (method === "gzip") continue;
  test(`what we write as ${method} is read by ${tool}`, async () => {
    for (const original of contents) {
      const stored = await readAll(codec.compress(inChunks(original, 1_000_000), options));
      const back = await runTool(tool, ["-c", ...words.decompressWords], stored);
      assert.equal(back.equals(original), true, `${original.length} bytes`);
      if (words.testWords !== undefined) await runTool(tool, words.testWords, stored);
    }
  });

  if (!codec.hasContentChecksum) continue;
  test(`${tool} finds a changed bit in what we write as ${method}`, async () => {
    const stored = await readAll(
      codec.compress(inChunks(content.subarray(0, 50_000), 999), options),
    );
    for (const at of [stored.length >> 1, stored.length - 3, stored.length - 1]) {
      const changed = Buffer.from(stored);
      changed[at] = (changed[at] ?? 0) ^ 4;
      await assert.rejects(runTool(tool, ["-c", ...words.decompressWords], changed));
    }
  });
}
