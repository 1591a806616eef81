import assert from "node:assert/strict";
import { test } from "node:test";
import type { Flag } from "../../src/commands/command.ts";
import {
  type SettingFlags,
  findCommand,
  onePath,
  readCommandLine,
  requirePositionals,
} from "../../src/commands/words.ts";

const known = new Map([
  ["s3-prefix", { isSwitch: false }],
  ["walg-s3-prefix", { isSwitch: false }],
  ["pg-ready-rename", { isSwitch: true }],
  ["config", { isSwitch: false }],
  ["verify", { isSwitch: true }],
]);
const settings: SettingFlags = { find: (flag) => known.get(flag), names: () => [...known.keys()] };
const flags: readonly Flag[] = [
  { name: "permanent", short: "p", text: "x" },
  { name: "verify", short: "v", text: "x" },
  { name: "mask", short: "m", value: "<glob>", text: "x" },
];
const isCommand = (word: string) => word === "wal-push" || word === "backup-list";

const found: readonly (readonly [string, string | undefined, string])[] = [
  ["", undefined, ""],
  ["wal-push x", "wal-push", "x"],
  ["--config f wal-push x", "wal-push", "--config f x"],
  ["--config=f wal-push x", "wal-push", "--config=f x"],
  ["--pg-ready-rename wal-push x", "wal-push", "--pg-ready-rename x"],
  ["--pg-ready-rename true wal-push x", "wal-push", "--pg-ready-rename=true x"],
  ["--config wal-push", undefined, "--config wal-push"],
  ["wal-push --config f x", "wal-push", "--config f x"],
  ["wal-psh x", "wal-psh", "x"],
  ["wal-psh backup-list", "wal-psh", "backup-list"],
  ["--help wal-psh", "wal-psh", "--help"],
  ["--permanent backup-list", "backup-list", "--permanent"],
  ["--mask value backup-list", "backup-list", "--mask value"],
  ["-m value backup-list", "backup-list", "-m value"],
  ["--mask value", undefined, "--mask value"],
  ["-- wal-push --x", "wal-push", "-- --x"],
];

for (const [line, name, rest] of found) {
  test(`the command of "${line}" is ${name}`, () => {
    assert.deepEqual(findCommand(split(line), settings, isCommand), { name, rest: split(rest) });
  });
}

function split(text: string): readonly string[] {
  return text.split(" ").filter((word) => word !== "");
}

function read(...args: string[]) {
  const line = readCommandLine(args, settings, flags);
  return {
    positionals: line.words.positionals,
    settings: Object.fromEntries(line.settings),
    permanent: line.words.has("permanent"),
    verify: line.words.has("verify"),
    mask: line.words.values("mask"),
    isHelp: line.isHelp,
  };
}

const nothing = {
  positionals: [],
  settings: {},
  permanent: false,
  verify: false,
  mask: [],
  isHelp: false,
};

const good: readonly (readonly [readonly string[], Partial<ReturnType<typeof read>>])[] = [
  [[], {}],
  [["a", "b"], { positionals: ["a", "b"] }],
  [["a", "--permanent", "b"], { positionals: ["a", "b"], permanent: true }],
  [["-pv", "a"], { positionals: ["a"], permanent: true, verify: true }],
  [["--permanent=true"], { permanent: true }],
  [["--permanent=false"], {}],
  [["--permanent", "--permanent=false"], {}],
  [["--permanent", "true"], { positionals: ["true"], permanent: true }],
  [["--mask", "x", "--mask=y", "-m", "z"], { mask: ["x", "y", "z"] }],
  [["--mask="], { mask: [""] }],
  [["--s3-prefix", "s3://b", "x"], { positionals: ["x"], settings: { "s3-prefix": "s3://b" } }],
  [["x", "--s3-prefix=a=b"], { positionals: ["x"], settings: { "s3-prefix": "a=b" } }],
  [["--s3-prefix=a", "--s3-prefix=b"], { settings: { "s3-prefix": "b" } }],
  [["--s3-prefix="], { settings: { "s3-prefix": "" } }],
  [["--s3-prefix=-5"], { settings: { "s3-prefix": "-5" } }],
  [
    ["--s3-prefix=a", "--walg-s3-prefix=b"],
    { settings: { "s3-prefix": "a", "walg-s3-prefix": "b" } },
  ],
  [["--pg-ready-rename", "x"], { positionals: ["x"], settings: { "pg-ready-rename": "true" } }],
  [
    ["--pg-ready-rename=false", "x"],
    { positionals: ["x"], settings: { "pg-ready-rename": "false" } },
  ],
  [["--pg-ready-rename", "false"], { settings: { "pg-ready-rename": "false" } }],
  [["--pg-ready-rename=1"], { settings: { "pg-ready-rename": "1" } }],
  [["--", "--permanent", "-x"], { positionals: ["--permanent", "-x"] }],
  [["--", "--pg-ready-rename", "true"], { positionals: ["--pg-ready-rename", "true"] }],
  [["a", "--help"], { positionals: ["a"], isHelp: true }],
  [["-h"], { isHelp: true }],
  [["-"], { positionals: ["-"] }],
  [[""], { positionals: [""] }],
];

for (const [args, expected] of good) {
  test(`reads ${JSON.stringify(args)}`, () => {
    assert.deepEqual(read(...args), { ...nothing, ...expected });
  });
}

const bad: readonly (readonly [readonly string[], string, string | undefined, string])[] = [
  [["--permanet"], "unknown flag --permanet", "Did you mean --permanent?", "usage"],
  [["--frobnicate=1"], "unknown flag --frobnicate", undefined, "usage"],
  [["-x"], "unknown flag -x", undefined, "usage"],
  [
    ["--dry-run"],
    "unknown flag --dry-run",
    "What removes backups removes nothing without --confirm: that is the dry run.",
    "usage",
  ],
  [["--constructor"], "unknown flag --constructor", undefined, "usage"],
  [
    ["--walg-s3-prefx=a"],
    "unknown setting --walg-s3-prefx on the command line",
    "Did you mean --walg-s3-prefix?",
    "config",
  ],
  [["--mask"], "flag --mask needs a value", "Write --mask=VALUE.", "usage"],
  [["--mask", "--"], "flag --mask needs a value", "Write --mask=VALUE.", "usage"],
  [["--s3-prefix"], "flag --s3-prefix needs a value", "Write --s3-prefix=VALUE.", "usage"],
  [
    ["--s3-prefix", "--permanent"],
    "flag --s3-prefix needs a value",
    "Write --s3-prefix=VALUE.",
    "usage",
  ],
  [["--permanent=yes"], "flag --permanent is true or false, not yes", undefined, "usage"],
];

for (const [args, message, hint, code] of bad) {
  test(`refuses ${JSON.stringify(args)}`, () => {
    assert.throws(() => read(...args), { message, hint, code });
  });
}

function words(...args: string[]) {
  return readCommandLine(args, settings, flags).words;
}

test("asks for as many arguments as there are", () => {
  assert.equal(onePath(words("a"), "the WAL file"), "a");
  assert.throws(() => onePath(words(), "the WAL file"), { message: "the WAL file is missing" });
  assert.throws(() => onePath(words("")), { message: "the path is missing" });
  assert.throws(() => onePath(words("a", "b c")), { message: 'surplus argument "b c"' });
  assert.deepEqual(requirePositionals(words("a"), ["one", "two"], 1), ["a"]);
  assert.deepEqual(requirePositionals(words("a", "b"), ["one", "two"], 1), ["a", "b"]);
  assert.throws(() => requirePositionals(words("a"), ["one", "two"]), {
    message: "two is missing",
  });
  assert.throws(() => requirePositionals(words("a"), []), { code: "usage" });
});
