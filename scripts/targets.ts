import { execFileSync } from "node:child_process";
import { createHash } from "node:crypto";
import { existsSync, mkdirSync, readFileSync, readdirSync, rmSync } from "node:fs";
import { join } from "node:path";

/** The packages of package-lock.json that hold one platform's native parts. */
export interface Target {
  readonly name: string;
  /** The Bun that the executable is made from. */
  readonly bunPackage: string;
  /** Bun's own word for it. */
  readonly bunTarget:
    | "bun-linux-x64"
    | "bun-linux-arm64"
    | "bun-linux-x64-musl"
    | "bun-linux-arm64-musl";
  readonly lz4Package: string;
  readonly crc32Package: string;
}

export const targets: readonly Target[] = [
  {
    name: "linux-x64",
    bunPackage: "@oven/bun-linux-x64",
    bunTarget: "bun-linux-x64",
    lz4Package: "@antoniomuso/lz4-napi-linux-x64-gnu",
    crc32Package: "@node-rs/crc32-linux-x64-gnu",
  },
  {
    name: "linux-arm64",
    bunPackage: "@oven/bun-linux-aarch64",
    bunTarget: "bun-linux-arm64",
    lz4Package: "@antoniomuso/lz4-napi-linux-arm64-gnu",
    crc32Package: "@node-rs/crc32-linux-arm64-gnu",
  },
  {
    name: "linux-x64-musl",
    bunPackage: "@oven/bun-linux-x64-musl",
    bunTarget: "bun-linux-x64-musl",
    lz4Package: "@antoniomuso/lz4-napi-linux-x64-musl",
    crc32Package: "@node-rs/crc32-linux-x64-musl",
  },
  {
    name: "linux-arm64-musl",
    bunPackage: "@oven/bun-linux-aarch64-musl",
    bunTarget: "bun-linux-arm64-musl",
    lz4Package: "@antoniomuso/lz4-napi-linux-arm64-musl",
    crc32Package: "@node-rs/crc32-linux-arm64-musl",
  },
];

/** The loaders of glibc; a machine may have musl's besides. */
const GLIBC_LOADERS = ["/lib64/ld-linux-x86-64.so.2", "/lib/ld-linux-aarch64.so.1"];

/** The target of the machine that we run on. */
export function hostTargetName(): string {
  return `linux-${process.arch}${GLIBC_LOADERS.some((path) => existsSync(path)) ? "" : "-musl"}`;
}

interface LockedPackage {
  readonly version: string;
  readonly integrity: string;
}

function lockedPackage(root: string, name: string): LockedPackage {
  const lock: { packages: Record<string, LockedPackage | undefined> } = JSON.parse(
    readFileSync(join(root, "package-lock.json"), "utf8"),
  );
  const entry = lock.packages[`node_modules/${name}`];
  if (entry === undefined) throw new Error(`${name} is not in package-lock.json`);
  return entry;
}

/**
 * The folder of a package, also of one for another platform, which npm does not install: that one
 * is packed from the registry into .cache/ and checked against the lock's integrity.
 */
export function packageDirectory(root: string, name: string): string {
  const installed = join(root, "node_modules", name);
  if (existsSync(join(installed, "package.json"))) return installed;

  const { version, integrity } = lockedPackage(root, name);
  const cache = join(root, ".cache", "packages", `${name.replace("/", "-")}-${version}`);
  const unpacked = join(cache, "package");
  if (existsSync(join(cache, "complete"))) return unpacked;

  rmSync(cache, { recursive: true, force: true });
  mkdirSync(cache, { recursive: true });
  execFileSync("npm", ["pack", "--silent", "--pack-destination", cache, `${name}@${version}`], {
    cwd: root,
    stdio: ["ignore", "ignore", "inherit"],
  });
  const archive = readdirSync(cache).find((file) => file.endsWith(".tgz"));
  if (archive === undefined) throw new Error(`npm pack of ${name}@${version} left no archive`);
  const bytes = readFileSync(join(cache, archive));
  const actual = `sha512-${createHash("sha512").update(bytes).digest("base64")}`;
  if (actual !== integrity) {
    throw new Error(
      `${name}@${version} has integrity ${actual}, package-lock.json says ${integrity}`,
    );
  }
  execFileSync("tar", ["xzf", archive], { cwd: cache });
  execFileSync("touch", [join(cache, "complete")]);
  return unpacked;
}
