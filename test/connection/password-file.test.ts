import assert from "node:assert/strict";
import { test } from "node:test";
import { findPassword, parsePasswordFile } from "../../src/connection/password-file.ts";

const text = [
  "# comment:1:2:3:4",
  "",
  "too:few:fields",
  "db1:5432:shop:ann:first",
  "db1:*:*:ann:second:with:colons",
  String.raw`h\:1:5432:a\\b:ann:es\:caped\\`,
  "*:*:*:bob:third\r",
].join("\n");
const entries = parsePasswordFile(text);
const request = { host: "db1", port: 5432, database: "shop", user: "ann" };

test("comments and incomplete lines are passed over", () => assert.equal(entries.length, 4));

const rows = [
  [request, "first"],
  [{ ...request, port: 5433 }, "second:with:colons"],
  [{ ...request, database: "other" }, "second:with:colons"],
  [{ ...request, host: "h:1", database: String.raw`a\b` }, String.raw`es:caped\ `.trim()],
  [{ ...request, user: "bob" }, "third"],
  [{ ...request, user: "eve" }, undefined],
  [{ ...request, host: "db2" }, undefined],
] as const;

for (const [wanted, password] of rows) {
  test(`${wanted.user}@${wanted.host}:${wanted.port}/${wanted.database}`, () => {
    assert.equal(findPassword(entries, wanted), password);
  });
}
