import { test } from "node:test";
import assert from "node:assert/strict";
import { existsSync, globSync, readFileSync } from "node:fs";
import { dirname, join } from "node:path";
import { commands } from "../src/commands/index.ts";
import { SettingIndex } from "../src/config/settings.ts";
import { commandLineProblem, listedProgram } from "./support/command-lines.ts";

const root = join(import.meta.dirname, "..");
const pages = ["README.md", "CHANGELOG.md", "docs/**/*.md", "src/**/*.md"]
  .flatMap((pattern) => globSync(pattern, { cwd: root }))
  .map((path) => ({ path, lines: readFileSync(join(root, path), "utf8").split("\n") }));
const index = new SettingIndex();

/** A piece of documentation that must be true, and where it stands. */
interface Claim {
  readonly text: string;
  readonly place: string;
}

/** Lines of fenced blocks, or what stands in backquotes elsewhere. */
function claims(kind: "fenced" | "inline"): readonly Claim[] {
  const found: Claim[] = [];
  for (const { path, lines } of pages) {
    let isFenced = false;
    for (const [lineIndex, line] of lines.entries()) {
      const place = `${path}:${lineIndex + 1}`;
      if (/^\s*```/.test(line)) isFenced = !isFenced;
      else if (isFenced && kind === "fenced") found.push({ text: line, place });
      else if (!isFenced && kind === "inline") {
        for (const [, text = ""] of line.matchAll(/`([^`]+)`/g)) found.push({ text, place });
      }
    }
    assert.equal(isFenced, false, `${path} has a block without end`);
  }
  return found;
}

/** The first `walnut ...` of a text, up to where a shell or a quote would end it. */
function walnutCall(text: string): string | undefined {
  const start = /^\s*|[\w_]+ = '|&& |sudo -u postgres /.source;
  const call = new RegExp(`(?:${start})(?:[\\w./]*/)?walnut +([^'#|;]*)`).exec(text);
  return call?.[1]?.replace(/ +#.*/, "").trim();
}

test("every command line of the documentation is one that the program takes", async () => {
  const wrong: string[] = [];
  let count = 0;
  for (const { text, place } of claims("fenced")) {
    // A usage line with brackets and bars is checked for its command and flags below.
    if (/[[<|]/.test(text)) continue;
    const call = walnutCall(text);
    if (call === undefined || call === "") continue;
    count++;
    const problem = await commandLineProblem(call, { isWhole: true });
    if (problem !== undefined) wrong.push(`${place}: walnut ${call}: ${problem}`);
  }
  assert.ok(count > 20, `${count} lines`);
  assert.deepEqual(wrong, []);
});

test("every command that a text names exists, with the flags that it gives it", async () => {
  const wrong: string[] = [];
  let count = 0;
  for (const { text, place } of claims("inline")) {
    const [, named] = /^(?:walnut )?((?:wal|backup|catchup)-\w+(?: .*)?)$/.exec(text) ?? [];
    const call = named ?? /^walnut +(\w.*)/.exec(text)?.[1];
    if (call === undefined || NO_COMMANDS.has(call)) continue;
    count++;
    const problem = await commandLineProblem(call.replaceAll(/[[\]]/g, ""), { isWhole: false });
    if (problem !== undefined) wrong.push(`${place}: ${text}: ${problem}`);
  }
  assert.ok(count > 150, `${count} calls`);
  assert.deepEqual(wrong, []);
});

/** What a backup says its increment was made from; a greeting between two walnuts; a program. */
const NO_COMMANDS = new Set(["wal-summaries", "wal-deltas", "catch-up 1", "wal-g"]);

/** Lines about other programs, whose flags are theirs. */
const FOREIGN_LINE = /\b(gpg|pg_rewind|npm run|bun build)\b|--compile/;

test("every flag that the documentation names exists", async () => {
  const known = new Set(["help", "version"]);
  for (const entry of Object.values(commands)) {
    for (const { name } of (await entry.load(listedProgram)).flags) known.add(name);
  }
  const wrong: string[] = [];
  let count = 0;
  for (const { path, lines } of pages) {
    for (const [lineIndex, line] of lines.entries()) {
      if (FOREIGN_LINE.test(line)) continue;
      for (const [, flag = ""] of line.matchAll(/(?<![\w-])--([a-z][a-z0-9-]*)/g)) {
        // The form of any setting: "--name=value".
        if (flag === "name") continue;
        count++;
        if (known.has(flag) || index.byFlag(flag) !== undefined) continue;
        wrong.push(`${path}:${lineIndex + 1}: --${flag}`);
      }
    }
  }
  assert.ok(count > 300, `${count} flags`);
  assert.deepEqual(wrong, []);
});

test("every setting that the documentation names exists", () => {
  const wrong: string[] = [];
  let count = 0;
  for (const { path, lines } of pages) {
    for (const [lineIndex, line] of lines.entries()) {
      for (const [name] of line.matchAll(/\b(?:WALNUT|WALG|WALE)_[A-Z0-9_]+/g)) {
        count++;
        if (index.byName(name) === undefined) wrong.push(`${path}:${lineIndex + 1}: ${name}`);
      }
    }
  }
  assert.ok(count > 500, `${count} names`);
  assert.deepEqual(wrong, []);
});

test("every link and every path of the documentation leads somewhere", () => {
  const wrong: string[] = [];
  let count = 0;
  for (const { path, lines } of pages) {
    for (const [lineIndex, line] of lines.entries()) {
      const links = [...line.matchAll(/\]\((?!\w+:)([^)#]+)(?:#[^)]*)?\)/g)].map(([, to = ""]) =>
        join(dirname(path), to),
      );
      const paths = [
        ...line.matchAll(/(?<![\w./-])((?:docs|scripts|src|test)\/[\w./-]*\.(?:md|mjs|sh|ts))\b/g),
      ].map(([, to = ""]) => to);
      for (const to of [...links, ...paths]) {
        count++;
        if (!existsSync(join(root, to))) wrong.push(`${path}:${lineIndex + 1}: ${to}`);
      }
    }
  }
  assert.ok(count > 60, `${count} links`);
  assert.deepEqual(wrong, []);
});
