import assert from "node:assert/strict";
import { test } from "node:test";
import { fc } from "../support/property.ts";
import { FormatError, TruncatedError } from "../../src/errors.ts";
import { formatTablespaceMap, parseTablespaceMap } from "../../src/postgres/tablespace-map.ts";
import { postgresFacts, postgresText } from "../support/postgres-fixtures.ts";
import { MAJORS } from "../support/postgres-programs.ts";

for (const major of MAJORS) {
  test(`tablespace_map of PostgreSQL ${major}, with a backslash and line breaks`, () => {
    const text = postgresText(major, "tablespace_map");
    const locations = parseTablespaceMap(text, major);
    const { list } = postgresFacts(major).tablespaces;
    assert.deepEqual(
      locations.toSorted((a, b) => a.oid - b.oid),
      list,
    );
    assert.ok(list.some(({ path }) => path.endsWith("space a\\b")));
    assert.ok(list.some(({ path }) => path.endsWith("line\nbreak\rx")));
    assert.equal(formatTablespaceMap(locations, major), text);
  });
}

test("no tablespaces, no lines", () => {
  assert.deepEqual(parseTablespaceMap("", 15), []);
  assert.equal(formatTablespaceMap([], 15), "");
});

test("empty lines and line ends of two characters are no lines", () => {
  for (const major of [13, 14]) {
    const locations = parseTablespaceMap("\n1 /a\r\n\n2 /b\n\r", major);
    assert.deepEqual(locations, [
      { oid: 1, path: "/a" },
      { oid: 2, path: "/b" },
    ]);
  }
});

test("a path may begin with a blank and end with one", () => {
  for (const major of [13, 14]) {
    const locations = [{ oid: 4_294_967_295, path: " a " }];
    assert.equal(formatTablespaceMap(locations, major), "4294967295  a \n");
    assert.deepEqual(parseTablespaceMap("4294967295  a \n", major), locations);
  }
});

const bad = [
  {
    text: "16384 /a",
    error: new TruncatedError('tablespace_map is cut off: it ends with "16384 /a"'),
  },
  {
    text: "1 /a\n2 /b",
    error: new TruncatedError('tablespace_map is cut off: it ends with "2 /b"'),
  },
  {
    text: "1 /a\\\n",
    error: new TruncatedError('tablespace_map is cut off: it ends with "1 /a\\\\\\n"'),
  },
  { text: "/a\n", error: new FormatError('not a line of tablespace_map: "/a"') },
  { text: "16384\n", error: new FormatError('not a line of tablespace_map: "16384"') },
  { text: "16384 \n", error: new FormatError('not a line of tablespace_map: "16384 "') },
  { text: "x /a\n", error: new FormatError('not a line of tablespace_map: "x /a"') },
  { text: "0 /a\n", error: new FormatError('not a line of tablespace_map: "0 /a"') },
  { text: " 1 /a\n", error: new FormatError('not a line of tablespace_map: " 1 /a"') },
  {
    text: "4294967296 /a\n",
    error: new FormatError('not a line of tablespace_map: "4294967296 /a"'),
  },
];

for (const { text, error } of bad) {
  test(`refuses a tablespace_map: ${JSON.stringify(text)}`, () => {
    for (const major of [13, 14]) assert.throws(() => parseTablespaceMap(text, major), error);
  });
}

test("a lone backslash at the very end is cut off", () => {
  const error = new TruncatedError('tablespace_map is cut off: it ends with "1 /a\\\\"');
  assert.throws(() => parseTablespaceMap("1 /a\\", 14), error);
});

test("13 can't hold a path with a backslash before a line break or at its end", () => {
  for (const path of ["/a\\", "/a\\\nb", "/a\\\rb"]) {
    const locations = [{ oid: 1, path }];
    const message = `tablespace_map of PostgreSQL 13 can't hold the path ${JSON.stringify(path)}`;
    assert.throws(() => formatTablespaceMap(locations, 13), { name: "FormatError", message });
    assert.deepEqual(parseTablespaceMap(formatTablespaceMap(locations, 14), 14), locations);
  }
});

const paths = fc
  .array(fc.constantFrom("/", "a", " ", "\\", "\n", "\r", "ä", "1"), { minLength: 1 })
  .map((parts) => `/${parts.join("")}`);
const oids = fc.integer({ min: 1, max: 0xffff_ffff });
const maps = fc.array(fc.record({ oid: oids, path: paths }, { noNullPrototype: true }));

test("any map survives its text", () => {
  fc.assert(
    fc.property(maps, fc.constantFrom(13, 14, 18), (locations, major) => {
      const held = locations.filter(({ path }) => major > 13 || !/\\[\r\n]|\\$/.test(path));
      assert.deepEqual(parseTablespaceMap(formatTablespaceMap(held, major), major), held);
    }),
  );
});
