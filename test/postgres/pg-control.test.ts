import assert from "node:assert/strict";
import { test } from "node:test";
import { FormatError } from "../../src/errors.ts";
import { crc32c } from "../../src/postgres/crc32c.ts";
import { parseLsn } from "../../src/postgres/lsn.ts";
import { parsePgControl, PG_CONTROL_BYTES } from "../../src/postgres/pg-control.ts";
import { postgresBytes, postgresFacts } from "../support/postgres-fixtures.ts";
import { type Major, MAJORS } from "../support/postgres-programs.ts";

const CRC_OFFSETS = { 13: 288, 14: 288, 15: 288, 16: 288, 17: 288, 18: 292 };

for (const major of MAJORS) {
  const { control } = postgresFacts(major);

  test(`pg_control of PostgreSQL ${major} tells what the server tells`, () => {
    const bytes = postgresBytes(major, "pg_control.running");
    assert.equal(bytes.length, PG_CONTROL_BYTES);
    const { modifiedAtSeconds, ...parsed } = parsePgControl(bytes);
    assert.ok(Math.abs(modifiedAtSeconds - control.checkpoint.seconds) <= 5);
    assert.deepEqual(parsed, {
      majorVersion: major,
      catalogVersion: control.system.catalog_version_no,
      systemId: BigInt(control.system.system_identifier),
      state: "in production",
      checkpointLsn: parseLsn(control.checkpoint.checkpoint_lsn),
      redoLsn: parseLsn(control.checkpoint.redo_lsn),
      timeline: control.checkpoint.timeline_id,
      previousTimeline: control.checkpoint.prev_timeline_id,
      hasFullPageWrites: control.checkpoint.full_page_writes,
      checkpointAtSeconds: control.checkpoint.seconds,
      minRecoveryLsn: 0n,
      minRecoveryTimeline: 0,
      backupStartLsn: 0n,
      backupEndLsn: 0n,
      isBackupEndRequired: false,
      blockBytes: control.init.database_block_size,
      relationSegmentBlocks: control.init.blocks_per_segment,
      walPageBytes: control.init.wal_block_size,
      walSegmentBytes: control.init.bytes_per_wal_segment,
      dataChecksumVersion: control.init.data_page_checksum_version,
    });
  });

  test(`pg_control of PostgreSQL ${major} after two promotions and a shutdown`, () => {
    const { state, timeline, systemId } = parsePgControl(
      postgresBytes(major, "pg_control.stopped"),
    );
    const expected = { state: "shut down", timeline: 3, systemId: systemIdOf(major) };
    assert.deepEqual({ state, timeline, systemId }, expected);
  });

  test(`each flipped bit of pg_control of PostgreSQL ${major} is refused`, () => {
    const bytes = postgresBytes(major, "pg_control.running");
    for (let bit = 0; bit < (CRC_OFFSETS[major] + 4) * 8; bit += 1) {
      const at = Math.trunc(bit / 8);
      const before = bytes[at] ?? 0;
      bytes[at] = before ^ (1 << (bit % 8));
      assert.throws(() => parsePgControl(bytes), FormatError, `bit ${bit}`);
      bytes[at] = before;
    }
    assert.equal(parsePgControl(bytes).majorVersion, major);
  });

  test(`a cut-off pg_control of PostgreSQL ${major} is refused`, () => {
    const bytes = postgresBytes(major, "pg_control.running");
    const needed = CRC_OFFSETS[major] + 4;
    for (const length of [0, 15, 16, 100, needed - 1]) {
      const message = `pg_control needs ${length < 16 ? 16 : needed} bytes, got ${length}`;
      assert.throws(() => parsePgControl(bytes.subarray(0, length)), {
        name: "TruncatedError",
        message,
      });
    }
    assert.equal(parsePgControl(bytes.subarray(0, needed)).majorVersion, major);
  });
}

function systemIdOf(major: Major): bigint {
  return BigInt(postgresFacts(major).control.system.system_identifier);
}

/** The file of 15 with values put in and the CRC made right again. */
function changed(offset: number, value: number): Uint8Array {
  const bytes = postgresBytes(15, "pg_control.running");
  const view = new DataView(bytes.buffer);
  view.setUint32(offset, value, true);
  view.setUint32(288, crc32c(bytes.subarray(0, 288)), true);
  return bytes;
}

const other = "not a pg_control of PostgreSQL 13 to 18:";
const bad = [
  {
    what: "zeros",
    bytes: new Uint8Array(PG_CONTROL_BYTES),
    message: `${other} version 0, catalog version 0`,
  },
  {
    what: "release 12",
    bytes: changed(8, 1201),
    message: `${other} version 1201, catalog version 202209061`,
  },
  {
    what: "another release's catalog",
    bytes: changed(12, 202406281),
    message: `${other} version 1300, catalog version 202406281`,
  },
  { what: "an unknown state", bytes: changed(16, 7), message: "pg_control has unknown state 7" },
];

for (const { what, bytes, message } of bad) {
  test(`refuses a pg_control: ${what}`, () => {
    assert.throws(() => parsePgControl(bytes), { name: "FormatError", message });
  });
}

test("a wrong CRC is told with both values", () => {
  const bytes = postgresBytes(15, "pg_control.running");
  new DataView(bytes.buffer).setUint32(288, 0xabcdef, true);
  const sum = crc32c(bytes.subarray(0, 288)).toString(16);
  const message = `pg_control has a wrong CRC: it says 0xabcdef, its content makes 0x${sum}`;
  assert.throws(() => parsePgControl(bytes), { name: "FormatError", message });
});

test("every state has PostgreSQL's words", () => {
  const states = [0, 1, 2, 3, 4, 5, 6].map((value) => parsePgControl(changed(16, value)).state);
  assert.deepEqual(states, [
    "starting up",
    "shut down",
    "shut down in recovery",
    "shutting down",
    "in crash recovery",
    "in archive recovery",
    "in production",
  ]);
});

test("what recovery of a backup leaves in pg_control is read", () => {
  assert.equal(parsePgControl(changed(140, 0x16)).minRecoveryLsn, 0x16_0000_0000n);
  assert.equal(parsePgControl(changed(144, 5)).minRecoveryTimeline, 5);
  assert.equal(parsePgControl(changed(152, 0x28)).backupStartLsn, 0x28n);
  assert.equal(parsePgControl(changed(160, 0x30)).backupEndLsn, 0x30n);
  assert.equal(parsePgControl(changed(168, 1)).isBackupEndRequired, true);
});
