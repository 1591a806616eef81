import assert from "node:assert/strict";
import { spawn } from "node:child_process";
import { once } from "node:events";
import { join } from "node:path";
import { text } from "node:stream/consumers";
import { test } from "node:test";
import { scratchDirectory } from "../support/scratch-directory.ts";

const isLong = process.env["WALNUT_LONG"] === "1";
const PROGRAM = join(import.meta.dirname, "../support/stepwise-restore-program.ts");
/** Of test/support/restore-scenarios.ts; each takes 10 to 30 s with every step. */
const SCENARIOS = isLong
  ? ["into no directory", "of WAL-G's", "a chain", "over a data directory"]
  : ["into no directory"];
const STRIDE = isLong ? 1 : 11;

for (const [number, name] of SCENARIOS.entries()) {
  test(`a restore ${name} goes on wherever it was killed: at every step that changes a file system`, async () => {
    using scratch = scratchDirectory();
    const words = [PROGRAM, scratch.path, String(number), String(STRIDE)];
    const child = spawn(process.execPath, words, { stdio: ["ignore", "pipe", "pipe"] });
    const output = Promise.all([text(child.stdout), text(child.stderr)]);
    await once(child, "close");
    const [lines, complaint] = await output;
    assert.equal(child.exitCode, 0, complaint.slice(0, 2000));
    const found = /: (\d+) kills in (\d+) steps/.exec(lines);
    const [kills, steps] = [Number(found?.[1]), Number(found?.[2])];
    assert.ok(lines.includes(name) && steps > 20 && kills >= steps - 2, lines);
  });
}
