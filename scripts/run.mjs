// Runs a script of ours on the pinned Bun, after installing what package-lock.json names.
// Plain JavaScript for Node 20 and later: the only thing that a new machine must have.
import { spawn, spawnSync } from "node:child_process";
import { createHash } from "node:crypto";
import { existsSync, mkdirSync, readFileSync, writeFileSync } from "node:fs";
import { dirname, join } from "node:path";
import { fileURLToPath } from "node:url";

const root = dirname(dirname(fileURLToPath(import.meta.url)));
const stamp = join(root, "node_modules", ".walnut-lock");
const wanted = createHash("sha256")
  .update(readFileSync(join(root, "package-lock.json")))
  .digest("hex");

if (!existsSync(stamp) || readFileSync(stamp, "utf8") !== wanted) {
  process.stderr.write("installing the packages of package-lock.json ...\n");
  // No install scripts: nothing that we use needs them, and none of them may run on our machines.
  // Not `npm ci`: it refuses a lock that lacks other platforms' packages which a registry lacks.
  const words = ["install", "--ignore-scripts", "--no-audit", "--no-fund", "--loglevel=error"];
  const install = spawnSync("npm", words, { cwd: root, stdio: ["ignore", "ignore", "inherit"] });
  if (install.status !== 0) process.exit(install.status ?? 1);
  mkdirSync(dirname(stamp), { recursive: true });
  writeFileSync(stamp, wanted);
}

const [script, ...words] = process.argv.slice(2);
const bun = join(
  root,
  "node_modules",
  "@oven",
  `bun-linux-${process.arch === "arm64" ? "aarch64" : "x64"}`,
  "bin",
  "bun",
);
const child = spawn(bun, [join(root, script), ...words], { stdio: "inherit", cwd: root });
for (const signal of ["SIGINT", "SIGTERM", "SIGHUP"]) process.on(signal, () => child.kill(signal));
child.on("exit", (code, signal) => process.exit(signal === null ? code : 1));
child.on("error", (error) => {
  process.stderr.write(`${error.message}\n`);
  process.exit(1);
});
