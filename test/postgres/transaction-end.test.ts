import assert from "node:assert/strict";
import { describe, test } from "node:test";
import { CommitScan, type PlacedEnd } from "../../src/catalogue/commit-scan.ts";
import { parseTransactionEnd, timestampNs } from "../../src/postgres/transaction-end.ts";
import { WalWalker } from "../../src/postgres/wal-record.ts";
import { MAJORS } from "../support/postgres.ts";
import { postgresBytes, postgresFacts } from "../support/postgres-fixtures.ts";

/** Main data of a commit, part by part. */
function commit(...parts: readonly (readonly [bytes: 2 | 4 | 8, value: number])[]): DataView {
  const view = new DataView(new ArrayBuffer(parts.reduce((sum, [bytes]) => sum + bytes, 0)));
  let at = 0;
  for (const [bytes, value] of parts) {
    if (bytes === 8) view.setBigInt64(at, BigInt(value), true);
    else view.setUint32(at, value, true);
    at += bytes;
  }
  return view;
}

const HAS_INFO = 0x80;
const read = (mainData: DataView, info: number, majorVersion = 15) =>
  parseTransactionEnd({ info, xid: 700, mainData, majorVersion });

const parts = (statistics: readonly (readonly [4, number])[]) =>
  commit(
    [8, 5],
    [
      4,
      (1 << 0) | (1 << 1) | (1 << 2) | (1 << 3) | (1 << 4) | (statistics.length > 0 ? 1 << 8 : 0),
    ],
    [4, 16384], // database
    [4, 1663],
    [4, 2], // subtransactions
    [4, 701],
    [4, 702],
    [4, 1], // files
    [4, 1663],
    [4, 16384],
    [4, 16390],
    ...statistics,
    [4, 1], // invalidations
    ...Array.from({ length: 4 }, () => [4, 9] as const),
    [4, 650], // of a prepared transaction
  );

describe("the end of a transaction", () => {
  test("without anything more is its time", () => {
    assert.deepEqual(read(commit([8, 5]), 0), {
      kind: "commit",
      xid: 700,
      atUs: 5n,
      subXids: [],
      removedFiles: [],
      droppedRelations: [],
    });
    assert.equal(read(commit([8, 5]), 0x20)?.kind, "abort");
    for (const other of [0x10, 0x50, 0x60]) assert.equal(read(commit([8, 5]), other), undefined);
  });

  for (const { major, statistics, dropped } of [
    { major: 13, statistics: [], dropped: undefined },
    {
      major: 15,
      statistics: [
        [4, 1],
        [4, 2],
        [4, 16384],
        [4, 16387],
      ],
      dropped: 16387,
    },
    {
      major: 18,
      statistics: [
        [4, 1],
        [4, 2],
        [4, 16384],
        [4, 16387],
        [4, 0],
      ],
      dropped: 16387,
    },
  ] as const) {
    test(`tells of PostgreSQL ${major} what it removes`, () => {
      assert.deepEqual(read(parts(statistics), HAS_INFO | 0x30, major), {
        kind: "commit",
        xid: 650,
        atUs: 5n,
        subXids: [701, 702],
        removedFiles: [{ tablespaceOid: 1663, databaseOid: 16384, relfilenode: 16390 }],
        droppedRelations:
          dropped === undefined ? undefined : [{ databaseOid: 16384, relationOid: dropped }],
      });
    });
  }

  for (const { name, bytes } of [
    { name: "nothing", bytes: 0 },
    { name: "half a time", bytes: 4 },
    { name: "no parts where some are told", bytes: 8 },
    { name: "a list that breaks off", bytes: 30 },
  ]) {
    test(`is refused with ${name}`, () => {
      const view = new DataView(parts([]).buffer, 0, bytes);
      assert.throws(() => read(view, HAS_INFO), {
        name: "FormatError",
        message: /transaction record/,
      });
    });
  }

  test("has a time of our calendar", () => {
    assert.equal(timestampNs(0n), BigInt(Date.UTC(2000, 0, 1)) * 1_000_000n);
  });
});

for (const major of MAJORS) {
  test(`every commit of PostgreSQL ${major} is read, also across segments`, () => {
    const { first, middle, last } = postgresFacts(major).segments;
    const ends: PlacedEnd[] = [];
    let walker: WalWalker | undefined;
    for (const name of [first, middle, last]) {
      const scan = new CommitScan((end) => ends.push(end));
      walker = new WalWalker(name, walker?.openRecord, scan);
      const bytes = postgresBytes(major, name);
      walker.push(bytes.subarray(0, 40));
      if (walker.header !== undefined) scan.begin(walker.header);
      walker.push(bytes.subarray(40));
      walker.finish();
    }
    assert.ok(ends.length > 0);
    for (const { timeNs, xid } of ends) {
      const year = new Date(Number(timeNs / 1_000_000n)).getUTCFullYear();
      assert.ok(year >= 2025 && year < 2040, String(timeNs));
      assert.ok(xid > 0);
    }
    const lsns = ends.map(({ lsn }) => lsn);
    assert.deepEqual(
      lsns,
      lsns.toSorted((one, other) => (one < other ? -1 : 1)),
    );
  });
}
