import { test } from "node:test";
import assert from "node:assert/strict";
import { execFileSync } from "node:child_process";
import { join } from "node:path";

const MIB = 1024 * 1024;

/**
 * Compression and decompression together, in one process. The limits leave room for what the
 * machine does differently; ours are 30 to 70 MiB, and do not grow with the content.
 */
const subjects = [
  { extension: "zst", mebibytes: 256, limitBytes: 140 * MIB },
  { extension: "lz4", mebibytes: 256, limitBytes: 100 * MIB },
  { extension: "br", mebibytes: 128, limitBytes: 140 * MIB },
  { extension: "", mebibytes: 256, limitBytes: 30 * MIB },
];

for (const { extension, mebibytes, limitBytes } of subjects) {
  test(`${mebibytes} MiB through "${extension}" and back need little memory`, () => {
    const program = join(import.meta.dirname, "stream-load.ts");
    const words = [program, extension, String(mebibytes), "2"];
    const output: unknown = JSON.parse(
      execFileSync(process.execPath, words, { encoding: "utf8", stdio: ["ignore", "pipe", 2] }),
    );
    assert(typeof output === "object" && output !== null);
    assert("outputBytes" in output && "growthBytes" in output);
    assert.equal(output.outputBytes, mebibytes * MIB);
    const growthMebibytes = Math.round(Number(output.growthBytes) / MIB);
    assert.equal(Number(output.growthBytes) < limitBytes, true, `grew by ${growthMebibytes} MiB`);
  });
}
