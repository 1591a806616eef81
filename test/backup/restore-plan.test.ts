import assert from "node:assert/strict";
import { test } from "node:test";
import { fc } from "../support/property.ts";
import type { FilesIndex, FileState } from "../../src/backup/backup-documents.ts";
import { parsePathMask } from "../../src/backup/path-mask.ts";
import { type ChainMember, planRestore } from "../../src/backup/restore-plan.ts";
import { tarFolder } from "../../src/layout/keys.ts";
import type { Sentinel } from "../../src/layout/sentinel.ts";

const NAMES = [
  "base_000000010000000000000002",
  "base_000000010000000000000004_D_000000010000000000000002",
  "base_000000010000000000000006_D_000000010000000000000004",
] as const;

interface Described {
  readonly files?: Readonly<Record<string, FileState>>;
  readonly parts?: Readonly<Record<string, readonly string[]>>;
  readonly objects?: readonly string[];
  readonly sentinel?: Partial<Sentinel>;
}

/** `described` is oldest first, as people think; the chain begins with the newest. */
function chainOf(...described: readonly Described[]): readonly ChainMember[] {
  return described
    .map(({ files, parts, objects, sentinel }, index): ChainMember => {
      const name = NAMES[index] ?? "";
      const base = NAMES[index - 1];
      const index_: FilesIndex | undefined =
        files === undefined
          ? undefined
          : {
              states: new Map(Object.entries(files)),
              parts: new Map(Object.entries(parts ?? {})),
            };
      return {
        documents: {
          name,
          sentinel: {
            isFilesMetadataDisabled: files === undefined,
            isPermanent: false,
            dataCatalogBytes: 1,
            base: base === undefined ? undefined : { name: base },
            ...sentinel,
          },
          files: index_,
        },
        partKeys: (
          objects ?? ["part_001.tar.lz4", "pg_control.tar.lz4", "backup_label.tar.lz4"]
        ).map((object) => `${tarFolder(name)}${object}`),
      };
    })
    .toReversed();
}

test("a full backup gives everything, pg_control and label apart", () => {
  const plan = planRestore(chainOf({ files: { PG_VERSION: "here", base: "here" } }));
  const [step] = plan.steps;
  assert.equal(plan.isStartable, true);
  assert.equal(plan.isLabelRequired, true);
  assert.deepEqual(
    step?.specialParts.map(({ name }) => name),
    ["pg_control.tar.lz4", "backup_label.tar.lz4"],
  );
  assert.deepEqual(
    step.parts.map(({ name }) => name),
    ["part_001.tar.lz4"],
  );
  assert.deepEqual([...step.expected], ["PG_VERSION", "base"]);
  assert.equal(step.isWanted("not listed"), true);
});

test("of older backups only what all newer ones lack is taken, and no special part", () => {
  const plan = planRestore(
    chainOf(
      { files: { a: "here", b: "here", c: "here", gone: "here" } },
      { files: { a: "skipped", b: "incremented", c: "here", gone: "skipped" } },
      { files: { a: "skipped", b: "incremented", c: "skipped", d: "here" } },
    ),
  );
  const [full, middle, newest] = plan.steps;
  assert.deepEqual([full?.isNewest, middle?.isNewest, newest?.isNewest], [false, false, true]);
  assert.deepEqual([full?.backup, middle?.backup, newest?.backup], [...NAMES]);
  const paths = ["a", "b", "c", "d", "gone", "global/pg_control"];
  assert.deepEqual(
    [full, middle].map((step) => paths.filter((path) => step?.isWanted(path))),
    [
      ["a", "b"],
      ["a", "b", "c"],
    ],
  );
  assert.deepEqual([...(full?.expected ?? [])].toSorted(), ["a", "b"]);
  assert.deepEqual([...(middle?.expected ?? [])].toSorted(), ["b", "c"]);
  assert.deepEqual([...(newest?.expected ?? [])].toSorted(), ["b", "d"]);
  assert.deepEqual([...(middle?.increments ?? [])].toSorted(), ["b"]);
  assert.deepEqual(full?.specialParts, []);
  assert.deepEqual(
    full.parts.map(({ name }) => name),
    ["part_001.tar.lz4"],
  );
});

test("every file of the newest list comes from somewhere, a whole copy before its increments", () => {
  const state = fc.constantFrom<FileState>("here", "incremented", "skipped");
  const names = ["a", "b", "c", "d"];
  const list = fc.dictionary(fc.constantFrom(...names), state);
  fc.assert(
    fc.property(fc.array(list, { minLength: 1, maxLength: 3 }), (lists) => {
      const described = lists.map((files, index) => {
        const older = lists[index - 1] ?? {};
        const known = Object.entries(files).map(
          ([name, wanted]) => [name, name in older ? wanted : "here"] as const,
        );
        return { files: Object.fromEntries(known) };
      });
      const plan = planRestore(chainOf(...described));
      for (const name of Object.keys(described.at(-1)?.files ?? {})) {
        const taken = plan.steps
          .filter((step) => step.expected.has(name))
          .map((step) => (step.increments.has(name) ? "incremented" : "here"));
        const wholeAt = taken.lastIndexOf("here");
        assert.notEqual(wholeAt, -1, name);
      }
    }),
  );
});

test("a base without a list gives what its increments need", () => {
  const plan = planRestore(chainOf({}, { files: { a: "skipped", b: "here" } }));
  assert.deepEqual([...(plan.steps[0]?.expected ?? [])], ["a"]);
  assert.equal(plan.steps[0]?.isWanted("b"), false);
});

test("parts of a base that hold nothing wanted are left out", () => {
  const objects = ["part_001.tar.lz4", "part_002.tar.lz4", "pg_control.tar.lz4"];
  const plan = planRestore(
    chainOf(
      {
        files: { a: "here", b: "here" },
        parts: { "part_001.tar.lz4": ["a"], "part_002.tar.lz4": ["b"] },
        objects,
      },
      { files: { a: "here", b: "skipped" } },
    ),
  );
  assert.deepEqual(
    plan.steps[0]?.parts.map(({ name }) => name),
    ["part_002.tar.lz4"],
  );
});

test("a mask chooses files, and without pg_control no server is to start", () => {
  const mask = parsePathMask("base/*");
  const plan = planRestore(chainOf({ files: { "base/1": "here", PG_VERSION: "here" } }), { mask });
  assert.equal(plan.isStartable, false);
  assert.equal(plan.isLabelRequired, false);
  assert.deepEqual([...(plan.steps[0]?.expected ?? [])], ["base/1"]);
});

test("old and foreign names of parts are known", () => {
  const objects = [
    "part_001.tar.",
    "pg_control.tar.",
    "backup_label.tar.",
    "copy_0.tar.tar",
    "x.txt",
  ];
  const [step] = planRestore(chainOf({ objects })).steps;
  assert.deepEqual(
    step?.parts.map(({ name, extension }) => [name, extension]),
    [
      ["part_001.tar.", ""],
      ["copy_0.tar.tar", ""],
    ],
  );
  assert.equal(step.specialParts.length, 2);
});

test("archives without their end are accepted of remote backups only", () => {
  const remote = chainOf({ sentinel: { dataCatalogBytes: undefined } });
  assert.equal(planRestore(remote).steps[0]?.isTrailerOptional, true);
  assert.equal(planRestore(chainOf({})).steps[0]?.isTrailerOptional, false);
});

const broken: readonly { what: string; chain: readonly ChainMember[]; message: string }[] = [
  {
    what: "no parts",
    chain: chainOf({ objects: [] }),
    message: `every part of backup ${NAMES[0]} is missing in the repository`,
  },
  {
    what: "no pg_control",
    chain: chainOf({ objects: ["part_001.tar.lz4"] }),
    message: `pg_control.tar of backup ${NAMES[0]} is missing in the repository`,
  },
  {
    what: "a part that the list names",
    chain: chainOf({ files: { a: "here" }, parts: { "part_007.tar.lz4": ["a"] } }),
    message: `part_007.tar.lz4 of backup ${NAMES[0]} is missing in the repository`,
  },
  {
    what: "an increment without list",
    chain: chainOf({ files: { a: "here" } }, {}),
    message: `increment ${NAMES[1]} has no files_metadata.json: what it needs of ${NAMES[0]} is unknown`,
  },
  {
    what: "a file that the base does not have",
    chain: chainOf({ files: { a: "here" } }, { files: { b: "skipped" } }),
    message: `base ${NAMES[0]} of increment ${NAMES[1]} lacks b, of which the increment has only changes`,
  },
];

for (const { what, chain, message } of broken) {
  test(`refuses a broken chain: ${what}`, () => {
    assert.throws(() => planRestore(chain), { name: "DamagedError", message });
  });
}
