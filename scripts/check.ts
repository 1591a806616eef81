/** `npm run check`: format, lint, types, dead code and the rules of the tree, all at once. */
import { spawn } from "node:child_process";
import { dirname, join } from "node:path";

const root = dirname(import.meta.dirname);
const bin = (name: string) => join(root, "node_modules", ".bin", name);

const checks: readonly { name: string; command: string; words: readonly string[] }[] = [
  { name: "format", command: bin("oxfmt"), words: ["--check", "src", "test", "scripts"] },
  {
    name: "lint",
    command: bin("oxlint"),
    words: ["--type-aware", "--deny-warnings", "src", "test", "scripts"],
  },
  { name: "types", command: bin("tsc"), words: ["-p", "."] },
  { name: "dead code", command: bin("knip"), words: ["--no-progress"] },
  {
    name: "tidy",
    command: process.execPath,
    words: ["test", "./test/tidy.test.ts", "./test/docs.test.ts"],
  },
  { name: "docs", command: process.execPath, words: ["scripts/docs.ts", "--check"] },
];

interface Outcome {
  readonly name: string;
  readonly output: string;
  readonly isGood: boolean;
  readonly seconds: string;
}

async function run({ name, command, words }: (typeof checks)[number]): Promise<Outcome> {
  const startedAt = performance.now();
  const child = spawn(command, words, { cwd: root, stdio: ["ignore", "pipe", "pipe"] });
  let output = "";
  child.stdout.on("data", (chunk: Buffer) => (output += chunk.toString()));
  child.stderr.on("data", (chunk: Buffer) => (output += chunk.toString()));
  const code = await new Promise<number | null>((resolve, reject) => {
    child.on("error", reject);
    child.on("close", resolve);
  });
  const seconds = ((performance.now() - startedAt) / 1000).toFixed(1);
  return { name, output, isGood: code === 0, seconds };
}

const outcomes = await Promise.all(checks.map(run));
for (const { name, output, isGood, seconds } of outcomes) {
  console.log(`${isGood ? "ok  " : "FAIL"}  ${name} (${seconds} s)`);
  if (!isGood) console.log(output);
}
if (outcomes.some(({ isGood }) => !isGood)) process.exitCode = 1;
