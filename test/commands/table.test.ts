import assert from "node:assert/strict";
import { test } from "node:test";
import { formatBoxTable, formatPlainTable } from "../../src/commands/table.ts";
import { unpackWalgFixture } from "../support/walg-fixture.ts";

test("a plain table is padded, but not behind its last column", () => {
  assert.equal(
    formatPlainTable(
      ["name", "at", "what"],
      [
        ["größe", "1", ""],
        ["x", "200", "long text"],
      ],
    ),
    "name  at  what\ngröße 1   \nx     200 long text\n",
  );
  assert.equal(formatPlainTable(["a"], []), "a\n");
});

test("a box is drawn as WAL-G draws it", async () => {
  await using fixture = await unpackWalgFixture("timelines");
  const expected = fixture.expected("wal-show.txt");
  const rows = expected
    .split("\n")
    .filter((line) => line.startsWith("|"))
    .map((line) =>
      line
        .split("|")
        .slice(1, -1)
        .map((cell) => cell.trim()),
    );
  const numbers = new Set([0, 1, 2, 5, 6, 8]);
  const columns = (rows[0] ?? []).map((heading, index) => ({
    heading,
    isNumber: numbers.has(index),
  }));
  assert.equal(formatBoxTable(columns, rows.slice(1)), expected);
});
