/**
 * usage: stepwise-restore-program.ts DIRECTORY NUMBER STRIDE
 *
 * Kills the restore of the scenario of this number, from 0 on, at each of its steps, and again at
 * every STRIDE-th of what goes on. Prints a line: its name and how many kills there were; ends with
 * an error at the first destination that does not become what it should.
 */
import assert from "node:assert/strict";
import { existsSync, mkdirSync, rmSync } from "node:fs";
import { createHash } from "node:crypto";
import { join } from "node:path";
import { hookFiles, runUntilStep } from "./stepwise-files.ts";

hookFiles();
const { makeScenarios } = await import("./restore-scenarios.ts");
const { snapshot } = await import("./restoring.ts");

const [root = "", numberText = "", strideText = ""] = process.argv.slice(2);
const [number, stride] = [Number(numberText), Number(strideText)];

/** All that is there. The marker in a location may stay when the data directory is whole. */
function stateOf(directory: string): readonly string[] {
  return [...snapshot(directory)]
    .filter(([path]) => !path.endsWith("walnut_restore.json"))
    .map(([path, what]) => `${path} ${createHash("sha256").update(what).digest("hex")}`);
}

for (const { name, prepare, restore } of (await makeScenarios(root)).slice(number, number + 1)) {
  const directory = join(root, "here");
  const begin = async (): Promise<void> => {
    rmSync(directory, { recursive: true, force: true });
    mkdirSync(directory);
    await prepare(directory);
  };
  const requireGoesOn = async (step: number, whole: ReturnType<typeof stateOf>): Promise<void> => {
    const isWhole = existsSync(join(directory, "data/global/pg_control"));
    const last = await runUntilStep(Number.POSITIVE_INFINITY, () => restore(directory));
    const text = `${name}, killed at step ${step}`;
    if (last.kind === "failed" && !isWhole) throw new Error(text, { cause: last.error });
    assert.deepEqual(stateOf(directory), whole, text);
  };

  await begin();
  const first = await runUntilStep(Number.POSITIVE_INFINITY, () => restore(directory));
  if (first.kind !== "ended") throw new Error(name, { cause: first });
  const whole = stateOf(directory);
  let kills = 0;
  for (let step = 1; step <= first.steps; step += 1) {
    await begin();
    const end = await runUntilStep(step, () => restore(directory));
    // Parts come in any order: a run may need a step less.
    if (end.kind === "failed") throw new Error(`${name}, step ${step}`, { cause: end.error });
    kills += end.kind === "killed" ? 1 : 0;
    await requireGoesOn(step, whole);
  }
  for (let step = 1; step <= first.steps; step += stride) {
    await begin();
    await runUntilStep(Math.ceil((first.steps * 2) / 3), () => restore(directory));
    const end = await runUntilStep(step, () => restore(directory));
    if (end.kind === "failed") throw new Error(`${name}, second ${step}`, { cause: end.error });
    kills += end.kind === "killed" ? 1 : 0;
    await requireGoesOn(step, whole);
  }
  process.stdout.write(`${name}: ${kills} kills in ${first.steps} steps\n`);
}
// What was killed waits for ever.
process.exit(0);
