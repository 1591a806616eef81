import assert from "node:assert/strict";
import { spawn } from "node:child_process";
import { once } from "node:events";
import { join } from "node:path";
import { text } from "node:stream/consumers";
import { test } from "node:test";
import { scratchDirectory } from "../support/scratch-directory.ts";

const isLong = process.env["WALNUT_LONG"] === "1";
const PROGRAM = join(import.meta.dirname, "../support/stepwise-restore-program.ts");

test("a restore goes on wherever it was killed: at every step that changes a file system", async () => {
  using scratch = scratchDirectory();
  const [count, stride] = isLong ? [4, 1] : [1, 11];
  const words = [PROGRAM, scratch.path, String(count), String(stride)];
  const child = spawn(process.execPath, words, { stdio: ["ignore", "pipe", "pipe"] });
  const output = Promise.all([text(child.stdout), text(child.stderr)]);
  await once(child, "close");
  const [lines, complaint] = await output;
  assert.equal(child.exitCode, 0, complaint.slice(0, 2000));
  const found = [...lines.matchAll(/: (\d+) kills in (\d+) steps/g)];
  assert.equal(found.length, count, lines);
  for (const [line, kills, steps] of found) {
    assert.ok(Number(steps) > 20 && Number(kills) >= Number(steps) - 2, line);
  }
});
