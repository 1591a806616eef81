import assert from "node:assert/strict";
import { test } from "node:test";
import { parseDotenv } from "../../src/config/dotenv-file.ts";

const good: readonly (readonly [string, Readonly<Record<string, string>>])[] = [
  ["", {}],
  ["# only a comment\n\n  # and one more\n", {}],
  ["A=1\r\nB=2\r\n", { A: "1", B: "2" }],
  ["export A=1", { A: "1" }],
  ["  A = spaced out  ", { A: "spaced out" }],
  ["A: yaml", { A: "yaml" }],
  ["A=x # comment", { A: "x" }],
  ["A=x#y", { A: "x#y" }],
  ["A=#y", { A: "" }],
  ["A=", { A: "" }],
  ["A=s3://b/c?d=e", { A: "s3://b/c?d=e" }],
  ["A='$literal #text' # comment", { A: "$literal #text" }],
  ['A="a\\nb\\tc \\"q\\" \\\\ \\$x"', { A: 'a\nb\tc "q" \\ $x' }],
  ['A="two\nlines"\nB=1', { A: "two\nlines", B: "1" }],
  ["A='two\nlines'\nB=1", { A: "two\nlines", B: "1" }],
  ["A=it's", { A: "it's" }],
  ["A=1\nA=2", { A: "2" }],
  ["\uFEFFA=1", { A: "1" }],
  ["A=costs 5$", { A: "costs 5$" }],
];

for (const [source, expected] of good) {
  test(`reads ${JSON.stringify(source)}`, () => {
    assert.deepEqual(Object.fromEntries(parseDotenv(source)), expected);
  });
}

const variables = "variables are not replaced; put a value with $ in single quotes";
const bad: readonly (readonly [string, string])[] = [
  ["A=1\nnonsense", "line 2: expected KEY=VALUE"],
  ["=1", "line 1: expected KEY=VALUE"],
  ["1A=1", "line 1: expected KEY=VALUE"],
  ['A=1\nB="open\nC=2', "line 2: quote is not closed"],
  ["A='x' y", "line 1: text after the closing quote"],
  ["A=pa$word", `line 1: ${variables}`],
  ["A=${HOME}/x", `line 1: ${variables}`],
  ['A="\n$HOME"', `line 1: ${variables}`],
];

for (const [source, message] of bad) {
  test(`refuses ${JSON.stringify(source)}`, () => {
    assert.throws(() => parseDotenv(source), { name: "FormatError", message });
  });
}
