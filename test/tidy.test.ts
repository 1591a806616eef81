import { test } from "node:test";
import assert from "node:assert/strict";
import { readFileSync, readdirSync } from "node:fs";
import { dirname, join, relative } from "node:path";

const root = dirname(import.meta.dirname);

/** What each layer of src/ may import besides itself. Data flows one way. */
const layers: Readonly<Record<string, readonly string[]>> = {
  errors: [],
  postgres: ["errors"],
  io: ["errors"],
  tar: ["errors", "io"],
  codec: ["errors", "io"],
  crypto: ["errors", "io", "codec"],
  storage: ["errors", "io", "crypto"],
  layout: ["errors", "postgres", "codec"],
  connection: ["errors", "io", "postgres"],
  archive: ["errors", "io", "codec", "storage", "layout", "postgres", "connection"],
  backup: [
    "errors",
    "io",
    "codec",
    "storage",
    "layout",
    "postgres",
    "connection",
    "tar",
    "archive",
  ],
  catalogue: [
    "errors",
    "io",
    "codec",
    "storage",
    "layout",
    "postgres",
    "connection",
    "tar",
    "archive",
    "backup",
  ],
  retention: ["errors", "io", "storage", "layout", "postgres", "backup", "catalogue"],
  daemon: ["errors", "io", "archive"],
  config: ["errors", "io", "codec", "crypto", "storage"],
  commands: [
    "errors",
    "postgres",
    "io",
    "tar",
    "codec",
    "crypto",
    "storage",
    "layout",
    "connection",
    "archive",
    "backup",
    "catalogue",
    "retention",
    "daemon",
    "config",
  ],
  main: ["errors", "io", "config", "commands", "storage"],
};

/** Node's modules that reach the outside: pure layers must not. */
const outside = /^node:(fs|net|http|https|child_process|os|process|worker_threads|dns|tls)/;
const pureLayers = new Set(["postgres", "layout"]);

const bannedWords: readonly { word: RegExp; reason: string }[] = [
  { word: /\b(TODO|FIXME|XXX)\b/, reason: "file an issue instead" },
  { word: /@ts-(ignore|expect-error|nocheck)/, reason: "narrow the type" },
  { word: /\b(test|it|describe|suite)\.(only|skip|todo)\(/, reason: "no test is left out quietly" },
];

/** Clock, random and process come in as arguments everywhere but here. */
const hiddenInputs = /\b(Date\.now|Math\.random|performance\.now)\(|\bprocess\.|\bBun\./;
const mayUseHiddenInputs = new Set([
  "src/main.ts",
  "src/io/builtin.ts",
  "src/io/clock.ts",
  "src/io/own-user.ts",
  "src/io/runtime.ts",
]);

function sourceFiles(folder: string): string[] {
  return readdirSync(join(root, folder), { recursive: true, withFileTypes: true })
    .filter((entry) => entry.isFile() && entry.name.endsWith(".ts"))
    .map((entry) => relative(root, join(entry.parentPath, entry.name)))
    .toSorted();
}

function layerOf(file: string): string {
  const [, first = ""] = file.split("/");
  return first.replace(/\.ts$/, "");
}

function importsOf(text: string): string[] {
  const found = text.matchAll(/(?:from|import)\s*\(?\s*"([^"]+)"/g);
  return [...found].flatMap(([, specifier]) => specifier ?? []);
}

function withoutComments(line: string): string {
  return line.replace(/^\s*(\*|\/\/|\/\*).*$/, "").replace(/\s\/\/ .*$/, "");
}

const sources = sourceFiles("src");
const all = [...sources, ...sourceFiles("test"), ...sourceFiles("scripts")];

test("every file of src/ is in a layer", () => {
  const homeless = sources.filter((file) => !(layerOf(file) in layers));
  assert.deepEqual(homeless, []);
});

test("imports go down the layers only", () => {
  const violations: string[] = [];
  for (const file of sources) {
    const layer = layerOf(file);
    for (const specifier of importsOf(readFileSync(join(root, file), "utf8"))) {
      if (pureLayers.has(layer) && outside.test(specifier)) {
        violations.push(`${file} imports ${specifier}`);
      }
      if (!specifier.startsWith(".")) continue;
      const target = relative(root, join(root, dirname(file), specifier));
      if (!target.startsWith("src/")) violations.push(`${file} imports ${target}`);
      const other = layerOf(target);
      if (other !== layer && layers[layer]?.includes(other) !== true) {
        violations.push(`${file} (${layer}) imports ${target} (${other})`);
      }
    }
  }
  assert.deepEqual(violations, []);
});

/** What runs for every segment, up to where it looks for more. */
const frequent = [
  "src/main.ts",
  "src/commands/program.ts",
  "src/commands/wal-push.ts",
  "src/commands/wal-fetch.ts",
  "src/archive/push.ts",
  "src/archive/wal-packer.ts",
  "src/archive/fetch.ts",
  "src/storage/open.ts",
  "src/storage/directory.ts",
  "src/codec/zstd.ts",
];
/** Each takes 2 ms and more to load: src/io/builtin.ts loads them at the first use. */
const slow = /^(?!node:)|^node:(crypto|zlib|child_process|dgram|net|tls|http|https|stream)/;

test("wal-push and wal-fetch load no slow module before they need it", () => {
  const found: string[] = [];
  const seen = new Set<string>(frequent);
  for (const file of seen) {
    const text = readFileSync(join(root, file), "utf8");
    for (const [, specifier = ""] of text.matchAll(
      /^(?:import|export) (?!type )(?:[^;]*? from )?"([^"]+)";$/gm,
    )) {
      if (specifier.startsWith(".")) {
        seen.add(relative(root, join(root, dirname(file), specifier)));
      } else if (slow.test(specifier)) {
        found.push(`${file} imports ${specifier}`);
      }
    }
  }
  assert.ok(seen.size > 80, `${seen.size} files`);
  assert.deepEqual(found, []);
});

/** The formatter breaks no literal: a line that is long because of one may be longer. */
const COLUMNS = 100;
const COLUMNS_WITH_LITERAL = 125;

test("no file is longer than 400 lines, no line than 100 columns", () => {
  const violations: string[] = [];
  for (const file of all) {
    const lines = readFileSync(join(root, file), "utf8").split("\n");
    if (lines.length > 401) violations.push(`${file} has ${lines.length - 1} lines`);
    for (const [index, line] of lines.entries()) {
      const limit = /["'`/].{20,}/.test(line) ? COLUMNS_WITH_LITERAL : COLUMNS;
      if (line.length > limit && !/\S{80,}/.test(line)) {
        violations.push(`${file}:${index + 1} has ${line.length} columns`);
      }
    }
  }
  assert.deepEqual(violations, []);
});

test("no banned word", () => {
  const violations: string[] = [];
  for (const file of all) {
    if (file === "test/tidy.test.ts") continue;
    const lines = readFileSync(join(root, file), "utf8").split("\n");
    for (const [index, line] of lines.entries()) {
      for (const { word, reason } of bannedWords) {
        if (word.test(withoutComments(line))) violations.push(`${file}:${index + 1}: ${reason}`);
      }
    }
  }
  assert.deepEqual(violations, []);
});

test("clock, random, process and runtime are arguments", () => {
  const violations: string[] = [];
  for (const file of sources) {
    if (mayUseHiddenInputs.has(file)) continue;
    const lines = readFileSync(join(root, file), "utf8").split("\n");
    for (const [index, line] of lines.entries()) {
      if (hiddenInputs.test(withoutComments(line))) {
        violations.push(`${file}:${index + 1}: ${line.trim()}`);
      }
    }
  }
  assert.deepEqual(violations, []);
});

test("tests wait for events: only test/support/ knows timers", () => {
  const bad = sourceFiles("test").filter(
    (file) =>
      !file.startsWith("test/support/") &&
      file !== "test/tidy.test.ts" &&
      /\bsetTimeout\b/.test(readFileSync(join(root, file), "utf8")),
  );
  assert.deepEqual(bad, [], "see test/support/until.ts");
});

test("properties take WALNUT_SEED: only test/support/property.ts knows fast-check", () => {
  const bad = sourceFiles("test").filter(
    (file) =>
      file !== "test/support/property.ts" &&
      /from "fast[-]check"/.test(readFileSync(join(root, file), "utf8")),
  );
  assert.deepEqual(bad, []);
});

test("file names are kebab-case nouns", () => {
  const banned = /(^|-)(utils?|helpers?|common|manager|handler|base|impl|new|misc)(-|\.|$)/;
  const bad = all.filter((file) => {
    const name = file.split("/").at(-1) ?? "";
    return !/^[a-z0-9]+(-[a-z0-9]+)*(\.test)?\.ts$/.test(name) || banned.test(name);
  });
  assert.deepEqual(bad, []);
});
