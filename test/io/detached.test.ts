import assert from "node:assert/strict";
import { execFileSync } from "node:child_process";
import { existsSync, readFileSync } from "node:fs";
import { writeFile } from "node:fs/promises";
import { constants, getPriority } from "node:os";
import { join } from "node:path";
import { test } from "node:test";
import { type DetachedUse, startDetached } from "../../src/io/detached.ts";
import { scratchDirectory } from "../support/scratch-directory.ts";

const LOWEST = constants.priority.PRIORITY_LOW;
const GROUP_FILE = "/proc/self/autogroup";
const TELL = `read -r line < gate; nice; cat ${GROUP_FILE} 2>&1`;

interface Ending {
  readonly output: string;
  readonly endCount: number;
}

/** Begun only when `startDetached` has returned, if it reads the gate first. */
async function ending(words: readonly string[], use: DetachedUse = {}): Promise<Ending> {
  using directory = scratchDirectory();
  const outputPath = join(directory.path, "output");
  const gate = join(directory.path, "gate");
  execFileSync("mkfifo", [gate]);
  const ended = Promise.withResolvers<void>();
  let endCount = 0;
  const onEnd = (): void => {
    endCount += 1;
    ended.resolve();
  };
  startDetached(words, {
    workingDirectory: directory.path,
    environment: { PATH: process.env["PATH"] },
    outputPath,
    use: { ...use, onEnd },
  });
  // A process of ours that ends does not keep us running.
  const alive = setInterval(() => {}, 1000);
  if (words.includes(TELL)) await writeFile(gate, "go\n");
  await ended.promise.finally(() => clearInterval(alive));
  return { output: readFileSync(outputPath, "utf8"), endCount };
}

test("in the background a process and its session's group have the lowest priority", async () => {
  const { output } = await ending(["sh", "-c", TELL], { isBackground: true });
  const [own, group = ""] = output.split("\n");
  assert.equal(own, String(LOWEST));
  if (existsSync(GROUP_FILE)) assert.match(group, new RegExp(` nice ${LOWEST}$`));
});

test("another one keeps ours", async () => {
  const { output, endCount } = await ending(["sh", "-c", TELL]);
  assert.equal(output.split("\n")[0], String(getPriority()));
  assert.equal(endCount, 1);
});

test("who can't be started has ended", async () => {
  assert.deepEqual(await ending(["/nowhere/walnut"]), { output: "", endCount: 1 });
});
