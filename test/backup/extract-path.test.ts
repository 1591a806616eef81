import assert from "node:assert/strict";
import { test } from "node:test";
import { fc } from "../support/property.ts";
import {
  findPathThroughLink,
  isTablespaceMarker,
  judgeLink,
  parseEntryName,
} from "../../src/backup/extract-path.ts";
import { FormatError } from "../../src/errors.ts";

const harmless: readonly (readonly [name: string, path: string])[] = [
  ["/", ""],
  [".", ""],
  ["./", ""],
  ["/base/5/1259", "base/5/1259"],
  ["base/5/1259", "base/5/1259"],
  ["./base//5/./1259", "base/5/1259"],
  ["///etc/passwd", "etc/passwd"],
  ["/..a/b..", "..a/b.."],
  ["/größe mit blank", "größe mit blank"],
];

for (const [name, path] of harmless) {
  test(`${JSON.stringify(name)} is for ${JSON.stringify(path)}`, () => {
    assert.equal(parseEntryName(name), path);
  });
}

const refused: readonly (readonly [name: string, message: string])[] = [
  ["", "it has an empty name"],
  ["..", 'its name holds ".."'],
  ["/../etc/passwd", 'its name holds ".."'],
  ["base/../../etc/passwd", 'its name holds ".."'],
  ["base/..", 'its name holds ".."'],
  ["base\0/x", "its name holds a NUL"],
  ["/global/pg_control.walnut", "its name is that of our own marker"],
  ["global/./pg_control.walnut", "its name is that of our own marker"],
];

for (const [name, message] of refused) {
  test(`refuses the name ${JSON.stringify(name)}`, () => {
    assert.throws(() => parseEntryName(name), { name: "FormatError", message });
  });
}

test("no name leads out of the data directory", () => {
  const component = fc.oneof(
    fc.constantFrom("..", ".", "", "/", "base", "\0", "...", "..\0", "~"),
    fc.string(),
  );
  fc.assert(
    fc.property(fc.array(component, { maxLength: 6 }), (components) => {
      const name = components.join("/");
      try {
        const path = parseEntryName(name);
        assert.ok(!path.startsWith("/"));
        assert.ok(!path.includes("\0"));
        const parts = path.split("/");
        assert.ok(path === "" || parts.every((part) => !["", ".", ".."].includes(part)));
      } catch (error) {
        if (!(error instanceof FormatError)) throw error;
      }
    }),
  );
});

test("a marker in a tablespace is known by its place", () => {
  assert.equal(isTablespaceMarker("pg_tblspc/16385/walnut_restore.json"), true);
  assert.equal(isTablespaceMarker("walnut_restore.json"), false);
  assert.equal(isTablespaceMarker("pg_tblspc/walnut_restore.json"), false);
  assert.equal(isTablespaceMarker("pg_tblspc/16385/PG_15/walnut_restore.json"), false);
});

test("a link that our manifest lists may lead anywhere, but only where it says", () => {
  assert.equal(judgeLink("pg_wal", "/mnt/wal", "/mnt/wal"), "make");
  assert.equal(judgeLink("a/b", "../../etc", "../../etc"), "make");
  assert.throws(() => judgeLink("pg_wal", "/mnt/wal", "/mnt/other"), {
    message: "it is a symbolic link to /mnt/wal, the manifest says /mnt/other",
  });
});

test("a link that nobody lists stays inside", () => {
  assert.equal(judgeLink("a/b", "../c", undefined), "make");
  assert.equal(judgeLink("a/b", "c", undefined), "make");
  for (const target of ["/etc", "../../etc", "../..", "x/../../../y"]) {
    assert.throws(() => judgeLink("a/b", target, undefined), {
      message: `it is a symbolic link that leaves the data directory: ${target}`,
    });
  }
  assert.throws(() => judgeLink("a", "..", undefined), FormatError);
});

test("WAL-G's links, which lead to their own names, are useless", () => {
  assert.equal(judgeLink("conf/extra.conf", "extra.conf", undefined), "useless");
});

test("a link needs a target that can be one", () => {
  assert.throws(() => judgeLink("a", "", undefined), {
    message: "it is a symbolic link without target",
  });
  assert.throws(() => judgeLink("a", "b\0c", "b\0c"), {
    message: "the target of the symbolic link holds a NUL",
  });
});

test("finds what lies behind a link", () => {
  const links = new Set(["a", "b/c"]);
  assert.equal(findPathThroughLink(["x", "a", "b/c", "b/cc/d"], links), undefined);
  assert.equal(findPathThroughLink(["x", "b/c/d/e"], links), "b/c/d/e");
  assert.equal(findPathThroughLink(["a/x"], links), "a/x");
});
