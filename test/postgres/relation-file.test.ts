import assert from "node:assert/strict";
import { test } from "node:test";
import { fc } from "../support/property.ts";
import {
  formatRelationFileName,
  isRebuiltByRecovery,
  parseRelationFileName,
  parseRelationPath,
  type RelationFile,
  relationKey,
  unloggedRelations,
} from "../../src/postgres/relation-file.ts";
import { postgresFacts } from "../support/postgres-fixtures.ts";
import { MAJORS } from "../support/postgres-programs.ts";

for (const major of MAJORS) {
  test(`paths of relations of PostgreSQL ${major} tell tablespace, database and kind`, () => {
    for (const { relname, relpersistence, path, tablespace, database } of postgresFacts(major)
      .relations) {
      const file = parseRelationPath(path);
      assert.equal(file?.tablespaceOid, tablespace, path);
      assert.equal(file.databaseOid, relname === "pg_database" ? 0 : database, path);
      assert.equal(file.isTemporary, relpersistence === "t", path);
      assert.deepEqual([file.fork, file.relationSegment], ["main", 0], path);
    }
  });

  test(`unlogged relations of PostgreSQL ${major} are those with an init fork`, () => {
    const { names, relations } = postgresFacts(major);
    const directory = relations.find(({ relname }) => relname === "wide")?.path.replace(/\d+$/, "");
    const files = names.flatMap((name) => parseRelationPath(`${directory}${name}`) ?? []);
    const unlogged = unloggedRelations(files);
    for (const { path, relpersistence } of relations) {
      const file = parseRelationPath(path);
      if (file === undefined) throw new Error(path);
      assert.equal(unlogged.has(relationKey(file)), relpersistence === "u", path);
      assert.equal(isRebuiltByRecovery(file, unlogged), relpersistence !== "p", path);
      assert.equal(
        isRebuiltByRecovery({ ...file, fork: "init" }, unlogged),
        relpersistence === "t",
      );
    }
    // The table, its index, its TOAST table and that one's index.
    assert.equal(unlogged.size, 4);
  });
}

const good = [
  { name: "16384", relfilenode: 16_384, fork: "main", relationSegment: 0, isTemporary: false },
  { name: "16384.12", relfilenode: 16_384, fork: "main", relationSegment: 12, isTemporary: false },
  { name: "1_vm", relfilenode: 1, fork: "vm", relationSegment: 0, isTemporary: false },
  { name: "1_fsm.1", relfilenode: 1, fork: "fsm", relationSegment: 1, isTemporary: false },
  { name: "1_init", relfilenode: 1, fork: "init", relationSegment: 0, isTemporary: false },
  { name: "t0_7", relfilenode: 7, fork: "main", relationSegment: 0, isTemporary: true },
  { name: "t12_7_vm.2", relfilenode: 7, fork: "vm", relationSegment: 2, isTemporary: true },
  {
    name: "4294967295",
    relfilenode: 4_294_967_295,
    fork: "main",
    relationSegment: 0,
    isTemporary: false,
  },
];

for (const { name, ...expected } of good) {
  test(`${name} is a relation file`, () => assert.deepEqual(parseRelationFileName(name), expected));
}

const badNames = [
  "",
  "PG_VERSION",
  "pg_internal.init",
  "pg_filenode.map",
  "0",
  "016384",
  "16384.0",
];
badNames.push("16384.", "16384.01", "16384_", "16384_xx", "16384_vm_init", "16384.1_vm", "t_7");
badNames.push("t1_", "t1_x", "T1_7", "t1_7x", "4294967296", "99999999999", " 1", "1\n", "1/2");

for (const name of badNames) {
  test(`${JSON.stringify(name)} is no relation file`, () => {
    assert.equal(parseRelationFileName(name), undefined);
  });
}

function place(path: string) {
  const { tablespaceOid, databaseOid } = parseRelationPath(path) ?? {};
  return [tablespaceOid, databaseOid];
}

test("relation files stand in three places", () => {
  assert.deepEqual(place("global/1262"), [1664, 0]);
  assert.deepEqual(place("base/5/16384_vm"), [1663, 5]);
  assert.deepEqual(place("pg_tblspc/16390/PG_15_202209061/5/16384.1"), [16_390, 5]);
});

const badPaths = ["16384", "base/16384", "base/0/16384", "base/5/x/16384", "base/pgsql_tmp/1"];
badPaths.push("global/pg_control", "global/5/1262", "./base/5/1", "/base/5/1", "base/5/1/");
badPaths.push("pg_tblspc/16390/5/16384", "pg_tblspc/16390/PG_15_1/16384", "pg_wal/1");
badPaths.push(
  "pg_tblspc/16390/PG_15_1/pgsql_tmp/1",
  "pg_tblspc/x/PG_15_1/5/1",
  "base/5/PG_VERSION",
);

for (const path of badPaths) {
  test(`${path} is no path of a relation file`, () => {
    assert.equal(parseRelationPath(path), undefined);
  });
}

test("any name survives", () => {
  const names = fc.record({
    relfilenode: fc.integer({ min: 1, max: 0xffff_ffff }),
    fork: fc.constantFrom("main", "fsm", "vm", "init"),
    relationSegment: fc.nat(4000),
  });
  fc.assert(
    fc.property(names, (file) => {
      const name = formatRelationFileName(file);
      assert.deepEqual(parseRelationFileName(name), { ...file, isTemporary: false });
      assert.deepEqual(parseRelationFileName(`t3_${name}`), { ...file, isTemporary: true });
    }),
  );
});

test("a relation of the same number elsewhere is another relation", () => {
  const file: RelationFile = {
    tablespaceOid: 1663,
    databaseOid: 5,
    relfilenode: 7,
    fork: "init",
    relationSegment: 0,
    isTemporary: false,
  };
  const unlogged = unloggedRelations([file, { ...file, relfilenode: 8, fork: "main" }]);
  assert.deepEqual([...unlogged], ["1663/5/7"]);
  for (const other of [{ tablespaceOid: 1 }, { databaseOid: 6 }, { relfilenode: 8 }]) {
    assert.ok(!isRebuiltByRecovery({ ...file, fork: "main", ...other }, unlogged));
  }
  assert.ok(isRebuiltByRecovery({ ...file, fork: "main" }, unlogged));
  assert.deepEqual([...unloggedRelations([{ ...file, isTemporary: true }])], []);
});
