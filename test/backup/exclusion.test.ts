import assert from "node:assert/strict";
import { test } from "node:test";
import { fc } from "../support/property.ts";
import { fateOf, isClusterData, neededInEmptied } from "../../src/backup/exclusion.ts";

const NONE: ReadonlySet<string> = new Set();
const unlogged = new Set(["1663/5/16384", "16390/5/16384"]);

const rows = [
  ["base/5/1259", "keep"],
  ["base/5/1259_vm", "keep"],
  ["base/5/PG_VERSION", "keep"],
  ["base/5/pg_filenode.map", "keep"],
  ["base/5/pg_internal.init", "skip"],
  ["base/5/pg_internal.init.4711", "skip"],
  ["global/pg_internal.init", "skip"],
  ["base/pgsql_tmp", "skip"],
  ["base/pgsql_tmp/pgsql_tmp123.0", "skip"],
  ["pg_tblspc/16390/PG_15_202209061/pgsql_tmp", "skip"],
  ["base/5/t3_16400", "skip"],
  ["base/5/t3_16400_fsm", "skip"],
  ["base/5/t3_16400.1", "skip"],
  ["global/t3_16400", "skip"],
  ["t3_16400", "keep"],
  ["base/5/16384", "skip"],
  ["base/5/16384.1", "skip"],
  ["base/5/16384_fsm", "skip"],
  ["base/5/16384_vm", "skip"],
  ["base/5/16384_init", "keep"],
  ["base/6/16384", "keep"],
  ["base/5/163840", "keep"],
  ["pg_tblspc/16390/PG_15_202209061/5/16384", "skip"],
  ["pg_tblspc/16390/PG_15_202209061/5/16384_init", "keep"],
  ["pg_tblspc/16391/PG_15_202209061/5/16384", "keep"],
  ["pg_wal", "empty"],
  ["pg_replslot", "empty"],
  ["pg_dynshmem", "empty"],
  ["pg_notify", "empty"],
  ["pg_serial", "empty"],
  ["pg_snapshots", "empty"],
  ["pg_stat_tmp", "empty"],
  ["pg_subtrans", "empty"],
  ["log", "empty"],
  ["pg_log", "empty"],
  ["my_stats", "empty"],
  ["pg_xact", "keep"],
  ["pg_multixact/offsets", "keep"],
  ["pg_logical/snapshots", "keep"],
  ["pg_stat", "keep"],
  ["pg_twophase", "keep"],
  ["conf.d/log", "keep"],
  ["postmaster.pid", "skip"],
  ["postmaster.opts", "skip"],
  ["backup_label", "skip"],
  ["backup_label.old", "skip"],
  ["tablespace_map", "skip"],
  ["tablespace_map.old", "skip"],
  ["backup_manifest", "skip"],
  ["standby.signal", "skip"],
  ["recovery.signal", "skip"],
  ["recovery.conf", "skip"],
  ["postgresql.auto.conf.tmp", "skip"],
  ["postgresql.auto.conf", "keep"],
  ["current_logfiles.tmp", "skip"],
  ["current_logfiles", "keep"],
  ["global/pg_control.walnut", "skip"],
  ["global/pg_control", "keep"],
  ["postgresql.conf", "keep"],
  ["conf.d/backup_label", "keep"],
] as const;

for (const [path, fate] of rows) {
  test(`${path}: ${fate}`, () => {
    assert.equal(fateOf(path, unlogged, { emptied: new Set(["my_stats"]) }), fate);
  });
}

test("no relation file is left out but temporary and unlogged ones", () => {
  const oid = fc.integer({ min: 1, max: 2 ** 32 - 1 });
  const fork = fc.constantFrom("", "_fsm", "_vm", "_init", ".1", "_fsm.1");
  fc.assert(
    fc.property(oid, oid, fork, (database, relfilenode, suffix) => {
      const path = `base/${database}/${relfilenode}${suffix}`;
      assert.equal(fateOf(path, NONE), "keep");
      const own = new Set([`1663/${database}/${relfilenode}`]);
      assert.equal(fateOf(path, own), suffix === "_init" ? "keep" : "skip");
      assert.equal(fateOf(`base/${database}/t1_${relfilenode}${suffix}`, NONE), "skip");
    }),
  );
});

test("pg_wal keeps the directories that the release needs in it", () => {
  assert.deepEqual(neededInEmptied("pg_wal", 16), ["archive_status"]);
  assert.deepEqual(neededInEmptied("pg_wal", 17), ["archive_status", "summaries"]);
  assert.deepEqual(neededInEmptied("pg_replslot", 17), []);
});

test("links among the data are told from links to settings", () => {
  for (const path of ["base", "base/5", "base/5/1259", "global/1262", "pg_xact", "pg_xact/0000"]) {
    assert.equal(isClusterData(path), true, path);
  }
  for (const path of [
    "postgresql.conf",
    "pg_hba.conf",
    "pg_ident.conf",
    "server.crt",
    "conf.d/a",
  ]) {
    assert.equal(isClusterData(path), false, path);
  }
});
