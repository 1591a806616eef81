import assert from "node:assert/strict";
import { test } from "node:test";
import {
  parseRestoreSpec,
  parseTablespaceMapping,
  planTablespaces,
  rewriteTablespaceMap,
} from "../../src/backup/tablespace-plan.ts";

const recorded = {
  basePrefix: "/var/lib/postgresql/15/main",
  tablespaces: [
    { name: "16385", location: "/mnt/one", link: "pg_tblspc/16385" },
    { name: "16386", location: "/mnt/two", link: "pg_tblspc/16386" },
  ],
};

test("without choices tablespaces go to their recorded places, links to the destination", () => {
  assert.deepEqual(planTablespaces(recorded, "/restore", { mappings: [] }), [
    { oid: "16385", link: "pg_tblspc/16385", recordedLocation: "/mnt/one", location: "/mnt/one" },
    { oid: "16386", link: "pg_tblspc/16386", recordedLocation: "/mnt/two", location: "/mnt/two" },
  ]);
  assert.deepEqual(planTablespaces(undefined, "/restore", { mappings: [] }), []);
});

test("mappings go by recorded place or by oid", () => {
  const mappings = ["/mnt/one/=/new/one", "16386=/new/two"].map(parseTablespaceMapping);
  const plans = planTablespaces(recorded, "/restore", { mappings });
  assert.deepEqual(
    plans.map(({ location }) => location),
    ["/new/one", "/new/two"],
  );
});

test("an equals sign in a path is escaped", () => {
  assert.deepEqual(parseTablespaceMapping("/a\\=b=/c\\=d"), { from: "/a=b", to: "/c=d" });
});

for (const text of ["", "/a", "=/b", "/a=", "/a=b", "/a=/b=/c", "/a=relative/b"]) {
  test(`refuses the mapping ${JSON.stringify(text)}`, () => {
    assert.throws(() => parseTablespaceMapping(text), {
      name: "UsageError",
      message: `tablespace mapping ${JSON.stringify(text)} is not OLD=NEW`,
    });
  });
}

test("a restore spec gives the places and keeps the recorded ones in mind", () => {
  const text =
    '{"16385":{"loc":"/new/one","link":"pg_tblspc/16385"},' +
    '"16386":{"loc":"/new/two","link":"pg_tblspc/16386"},' +
    '"base_prefix":"/x","tablespaces":["16385","16386"]}';
  const spec = parseRestoreSpec("spec.json", text);
  const [first] = planTablespaces(recorded, "/restore", { mappings: [], spec });
  assert.equal(first?.recordedLocation, "/mnt/one");
  assert.equal(first.location, "/new/one");
  assert.throws(() => parseRestoreSpec("spec.json", "{"), {
    name: "RefusedError",
    message: /^restore spec spec\.json can't be read: /,
  });
});

const choices: readonly { what: string; mapping?: string; spec?: string; message: RegExp }[] = [
  {
    what: "a mapping of nothing",
    mapping: "/mnt/three=/new",
    message: /^no tablespace of the backup is \/mnt\/three$/,
  },
  {
    what: "two tablespaces in one place",
    mapping: "16385=/mnt/two",
    message: /^\/mnt\/two of tablespace 16386 and \/mnt\/two of tablespace 16385 overlap$/,
  },
  {
    what: "one within the other",
    mapping: "16385=/mnt/two/sub",
    message: /^\/mnt\/two of tablespace 16386 and \/mnt\/two\/sub of tablespace 16385 overlap$/,
  },
  {
    what: "one within the destination",
    mapping: "16385=/restore/pg_tblspc/16385",
    message:
      /^\/restore\/pg_tblspc\/16385 of tablespace 16385 and \/restore of the data directory overlap$/,
  },
  {
    what: "the destination within one",
    mapping: "16385=/",
    message: /^location \/ of tablespace 16385 is not a plain absolute path$/,
  },
  {
    what: "a path with dots",
    mapping: "16385=/new/../etc",
    message: /^location \/new\/\.\.\/etc of tablespace 16385 is not a plain absolute path$/,
  },
  {
    what: "a spec that forgets one",
    spec: '{"base_prefix":"/x","tablespaces":[]}',
    message: /^restore spec names no location for tablespace pg_tblspc\/16385$/,
  },
  {
    what: "a spec with a relative place",
    spec:
      '{"1":{"loc":"new","link":"pg_tblspc/16385"},"2":{"loc":"/two","link":"pg_tblspc/16386"},' +
      '"base_prefix":"/x","tablespaces":["1","2"]}',
    message: /^location new of tablespace 16385 is not a plain absolute path$/,
  },
  {
    what: "a spec with a link elsewhere",
    spec: '{"1":{"loc":"/one","link":"../etc"},"base_prefix":"/x","tablespaces":["1"]}',
    message: /^tablespace spec has the link "\.\.\/etc"$/,
  },
];

for (const { what, mapping, spec, message } of choices) {
  test(`refuses ${what}`, () => {
    const mappings = mapping === undefined ? [] : [parseTablespaceMapping(mapping)];
    const parsed = spec === undefined ? undefined : parseRestoreSpec("spec.json", spec);
    assert.throws(
      () => planTablespaces(recorded, "/restore", { mappings, spec: parsed }),
      ({ message: text }: Error) => {
        assert.match(text, message);
        return true;
      },
    );
  });
}

test("tablespace_map names the new places only", () => {
  const mappings = [parseTablespaceMapping("16385=/new/with\\\\back")];
  const plans = planTablespaces(recorded, "/restore", { mappings });
  assert.equal(
    rewriteTablespaceMap("16385 /mnt/one\n16386 /mnt/two\n", plans),
    "16385 /new/with\\\\\\\\back\n16386 /mnt/two\n",
  );
  assert.equal(rewriteTablespaceMap("", plans), "");
});

test("a line break in a place is escaped in tablespace_map", () => {
  const location = "/mnt/line\nbreak";
  const spec = { basePrefix: "/x", tablespaces: [{ name: "1", location, link: "pg_tblspc/1" }] };
  const plans = planTablespaces(spec, "/restore", { mappings: [] });
  assert.equal(rewriteTablespaceMap("1 /mnt/line\\\nbreak\n", plans), "1 /mnt/line\\\nbreak\n");
});

test("refuses a tablespace_map that knows more than the sentinel", () => {
  const plans = planTablespaces(recorded, "/restore", { mappings: [] });
  for (const line of ["16387 /mnt/three", "x", "16385"]) {
    assert.throws(() => rewriteTablespaceMap(`${line}\n`, plans), {
      name: "DamagedError",
      message: `tablespace_map has the line ${JSON.stringify(line)}, the sentinel no such tablespace`,
    });
  }
});
