/**
 * `npm test`: builds the executable, runs every suite that this machine can run, and says which
 * were left out and why. Words after `--` are patterns of test files; `--long` adds long rounds.
 *
 * What is random follows one fixed seed, so that a red run speaks of the change and not of luck.
 * Long rounds look for what nobody thought of: a new seed each time. WALNUT_SEED sets either.
 */
import { spawn } from "node:child_process";
import { chmodSync, existsSync, mkdirSync, mkdtempSync, readFileSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { dirname, join } from "node:path";

const root = dirname(import.meta.dirname);
const isLong = process.argv.includes("--long");
const isCi = process.env["CI"] === "true";
const patterns = process.argv.slice(2).filter((word) => !word.startsWith("--"));

const FIXED_SEED = "20261122";

const LEFT_OUT_FILE = "left-out";
const CLUSTERS_FOLDER = "clusters";

/** Set by a user for other programs, these would reach ours: tests decide what they see. */
const foreign = /^(AWS_|WALG_|WALE_|WALNUT_|PG[A-Z]|HTTPS?_PROXY|ALL_PROXY|NO_PROXY|BUN_)/i;

function cleanEnvironment(scratch: string): NodeJS.ProcessEnv {
  const kept = Object.entries(process.env).filter(([name]) => !foreign.test(name));
  const seed = process.env["WALNUT_SEED"] ?? (isLong ? undefined : FIXED_SEED);
  return {
    ...Object.fromEntries(kept),
    WALNUT_LEFT_OUT: join(scratch, LEFT_OUT_FILE),
    WALNUT_CLUSTER_TEMPLATES: join(scratch, CLUSTERS_FOLDER),
    WALNUT_BINARY: process.env["WALNUT_BINARY"] ?? join(root, "dist", "walnut"),
    ...(isLong ? { WALNUT_LONG: "1" } : {}),
    ...(seed === undefined ? {} : { WALNUT_SEED: seed }),
  };
}

interface Run {
  readonly code: number;
  readonly output: string;
}

function run(words: readonly string[], env: NodeJS.ProcessEnv): Promise<Run> {
  return new Promise((resolve, reject) => {
    const child = spawn(process.execPath, words, {
      cwd: root,
      env,
      stdio: ["ignore", "pipe", "pipe"],
    });
    let output = "";
    for (const stream of [child.stdout, child.stderr]) {
      stream.on("data", (chunk: Buffer) => {
        output += chunk.toString();
        process.stdout.write(chunk);
      });
    }
    child.on("error", reject);
    child.on("close", (code) => resolve({ code: code ?? 1, output }));
  });
}

function leftOut(file: string): { suite: string; reason: string }[] {
  if (!existsSync(file)) return [];
  const rows = new Map<string, { suite: string; reason: string }>();
  for (const line of readFileSync(file, "utf8").split("\n")) {
    if (line !== "") rows.set(line, JSON.parse(line));
  }
  return [...rows.values()];
}

/** Reads the runner's closing lines (" 12 pass"): the JUnit report counts the same tests. */
function count(output: string, word: string): number {
  const [, number] = new RegExp(`^\\s*(\\d+) ${word}$`, "m").exec(output) ?? [];
  return Number(number ?? 0);
}

const scratch = mkdtempSync(join(tmpdir(), "walnut-test-"));
try {
  // PostgreSQL's user copies data directories out of it.
  chmodSync(scratch, 0o755);
  mkdirSync(join(scratch, CLUSTERS_FOLDER));
  const env = cleanEnvironment(scratch);
  const build =
    process.env["WALNUT_BINARY"] === undefined ? await run(["scripts/build.ts"], env) : undefined;
  if (build !== undefined && build.code !== 0) process.exit(build.code);

  const timeoutMs = isLong ? 3_600_000 : 300_000;
  const files = patterns.length > 0 ? patterns : ["test"];
  const tests = await run(
    ["test", `--timeout=${timeoutMs}`, "--parallel=2", "--only-failures", ...files],
    env,
  );
  const skipped = leftOut(join(scratch, LEFT_OUT_FILE));
  for (const { suite, reason } of skipped) console.log(`left out: ${suite}: ${reason}`);
  if (skipped.length === 0) console.log("no suite was left out");

  const failed = count(tests.output, "fail") + (isCi ? skipped.length : 0);
  const isCrash = tests.code !== 0 && failed === 0;
  console.log(
    `${count(tests.output, "pass")} passed, ${isCrash ? 1 : failed} failed, ` +
      `${count(tests.output, "skip") + skipped.length} skipped`,
  );
  process.exitCode = tests.code !== 0 || failed > 0 ? 1 : 0;
} finally {
  rmSync(scratch, { recursive: true, force: true });
}
