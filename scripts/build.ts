/**
 * Makes dist/walnut: one executable file with everything inside.
 *
 *   npm run build                          for this machine, on Bun
 *   npm run build -- --target linux-arm64  for another one (linux-x64, linux-x64-musl, ...)
 *   npm run build -- --runtime node        dist/walnut-node, the same program on Node.js
 */
import { execFileSync } from "node:child_process";
import { chmodSync, mkdirSync, readFileSync, readdirSync, statSync, writeFileSync } from "node:fs";
import { dirname, join } from "node:path";
import { parseArgs } from "node:util";
import { buildForNode } from "./build-node.ts";
import { hostTargetName, packageDirectory, type Target, targets } from "./targets.ts";

/** What we use of Bun's bundler; its own types would replace Node's in all of the project. */
interface Bundler {
  build(options: {
    entrypoints: string[];
    minify: boolean;
    bytecode: boolean;
    format: "esm";
    splitting: boolean;
    target: "bun";
    external: string[];
    define: Record<string, string>;
    plugins: {
      name: string;
      setup(build: {
        onResolve(filter: { filter: RegExp }, resolve: () => { path: string }): void;
      }): void;
    }[];
    compile: {
      target: string;
      outfile: string;
      executablePath: string;
      autoloadDotenv: boolean;
      autoloadBunfig: boolean;
    };
  }): Promise<{ success: boolean; logs: unknown[] }>;
}
declare const Bun: Bundler;

const root = dirname(import.meta.dirname);

/**
 * Variables by which whoever sets the environment makes any Bun executable run other code. We look
 * for none of them; the name is made unusable in the copy of Bun that the executable is made from.
 */
const NEUTRALISED_VARIABLES = ["BUN_OPTIONS", "BUN_BE_BUN", "BUN_INSPECT"];

function neutralisedBun(target: Target): string {
  const bytes = readFileSync(join(packageDirectory(root, target.bunPackage), "bin", "bun"));
  for (const name of NEUTRALISED_VARIABLES) {
    let at = bytes.indexOf(name);
    if (at < 0) throw new Error(`${target.bunPackage} does not mention ${name}: look again`);
    for (; at >= 0; at = bytes.indexOf(name, at)) bytes[at] = 0x01;
  }
  const path = join(root, ".cache", `bun-${target.name}`);
  mkdirSync(dirname(path), { recursive: true });
  writeFileSync(path, bytes, { mode: 0o755 });
  return path;
}

/**
 * The addons themselves, in the place of the packages that choose one: their loaders try every
 * platform at start.
 */
function addonFiles(target: Target): ReadonlyMap<string, string> {
  const packages = [
    ["lz4-napi", target.lz4Package],
    ["@node-rs/crc32", target.crc32Package],
  ] as const;
  return new Map(packages.map(([name, platform]) => [name, addonOf(platform)]));
}

function addonOf(platformPackage: string): string {
  const directory = packageDirectory(root, platformPackage);
  const addon = readdirSync(directory).find((file) => file.endsWith(".node"));
  if (addon === undefined) throw new Error(`${platformPackage} holds no addon`);
  return join(directory, addon);
}

function buildVersion(): { version: string; commit: string } {
  const { version }: { version: string } = JSON.parse(
    readFileSync(join(root, "package.json"), "utf8"),
  );
  try {
    const commit = execFileSync("git", ["rev-parse", "--short=12", "HEAD"], {
      cwd: root,
      encoding: "utf8",
      stdio: ["ignore", "pipe", "ignore"],
    });
    return { version, commit: commit.trim() };
  } catch {
    return { version, commit: "unknown" };
  }
}

async function buildForBun(target: Target, outfile: string): Promise<void> {
  const addons = addonFiles(target);
  const result = await Bun.build({
    entrypoints: [join(root, "src", "main.ts")],
    minify: true,
    bytecode: true,
    // Split, so that a command reads its own parts only: 2 ms of every call.
    format: "esm",
    splitting: true,
    target: "bun",
    external: ["cpu-features", "pg-native"],
    // Bun takes "development" unless told, and OpenPGP.js then writes its debugging to stderr.
    define: {
      WALNUT_BUILD: JSON.stringify(buildVersion()),
      "process.env.NODE_ENV": JSON.stringify("production"),
    },
    plugins: [
      {
        name: "one platform's addons",
        setup(build) {
          for (const [name, path] of addons) {
            build.onResolve({ filter: new RegExp(`^${name}$`) }, () => ({ path }));
          }
        },
      },
    ],
    compile: {
      target: target.bunTarget,
      outfile,
      executablePath: neutralisedBun(target),
      autoloadDotenv: false,
      autoloadBunfig: false,
    },
  });
  if (!result.success) throw new AggregateError(result.logs, "bun build failed");
  chmodSync(outfile, 0o755);
}

const { values } = parseArgs({
  options: {
    target: { type: "string", default: hostTargetName() },
    runtime: { type: "string", default: "bun" },
    outfile: { type: "string" },
  },
});
const target = targets.find(({ name }) => name === values.target);
if (target === undefined) {
  const names = targets.map(({ name }) => name).join(", ");
  throw new Error(`--target ${values.target} is none of ${names}`);
}

const isHost = values.target === hostTargetName();
const suffix = `${values.runtime === "node" ? "-node" : ""}${isHost ? "" : `-${target.name}`}`;
const outfile = values.outfile ?? join(root, "dist", `walnut${suffix}`);
mkdirSync(dirname(outfile), { recursive: true });
if (values.runtime === "node") {
  await buildForNode({ root, outfile, addonFiles: addonFiles(target), build: buildVersion() });
} else {
  await buildForBun(target, outfile);
}
const megabytes = (statSync(outfile).size / 1e6).toFixed(0);
console.log(
  `${outfile.slice(root.length + 1)}: ${megabytes} MB, ${target.name}, ${values.runtime}`,
);
