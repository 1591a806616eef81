import assert from "node:assert/strict";
import { spawn } from "node:child_process";
import { once } from "node:events";
import { mkdir, rename } from "node:fs/promises";
import { join } from "node:path";
import { test } from "node:test";
import { systemClock } from "../../src/io/clock.ts";
import { silentLog } from "../../src/io/log.ts";
import { DirectoryStorage } from "../../src/storage/directory.ts";
import { catchUp, type MirrorPair } from "../../src/storage/mirror-catch-up.ts";
import { compareStores, type Difference } from "../../src/storage/mirror-compare.ts";
import { mirrorQueue } from "../support/mirror.ts";
import { scratchDirectory } from "../support/scratch-directory.ts";

const ROUNDS = process.env["WALNUT_LONG"] === undefined ? 3 : 60;
const PROGRAM = join(import.meta.dirname, "..", "support", "mirror-program.ts");

test("writers that are killed leave notes of all that the mirror lacks", async () => {
  using scratch = scratchDirectory();
  const [primary, mirror, queue] = ["primary", "mirror", "queue"].map((name) =>
    join(scratch.path, name),
  );
  assert.ok(primary !== undefined && mirror !== undefined && queue !== undefined);
  for (const path of [primary, mirror]) await mkdir(path);
  const { signal } = new AbortController();
  const acknowledged: string[] = [];
  for (let round = 1; round <= ROUNDS; round++) {
    // Away from the beginning in some rounds, in the middle of its writing in others.
    const isAway = round % 2 === 1;
    if (isAway) await rename(mirror, `${mirror}.away`);
    acknowledged.push(...(await runAndKill([primary, mirror, queue, String(round)], 10 + round)));
    if (isAway) await rename(`${mirror}.away`, mirror);

    const pair: MirrorPair = {
      primary: new DirectoryStorage(primary, systemClock),
      mirror: new DirectoryStorage(mirror, systemClock),
    };
    const clock = { ...systemClock, now: () => Date.now() + 61_000 };
    const options = { clock, log: silentLog, signal };
    const { failure } = await catchUp(pair, mirrorQueue(queue), options);
    assert.equal(failure, undefined);
    const comparison = { isContentRead: true, signal };
    const found: readonly Difference[] = await Array.fromAsync(
      compareStores(pair, mirrorQueue(queue), comparison),
    );
    assert.deepEqual(found, []);
    assert.equal((await mirrorQueue(queue).status()).notes, 0);
    for (const key of acknowledged) await pair.mirror.stat(key, { signal });
  }
  assert.ok(acknowledged.length >= ROUNDS);
});

/** Kills it after so many acknowledgements, and gives all that it told. */
async function runAndKill(words: readonly string[], count: number): Promise<readonly string[]> {
  const child = spawn(process.execPath, ["run", PROGRAM, ...words], {
    stdio: ["ignore", "pipe", "inherit"],
  });
  let output = "";
  child.stdout.setEncoding("utf8");
  child.stdout.on("data", (text: string) => {
    output += text;
    if (output.split("\n").length > count) child.kill("SIGKILL");
  });
  await once(child, "close");
  assert.equal(child.signalCode, "SIGKILL");
  return output.split("\n").slice(0, -1);
}
