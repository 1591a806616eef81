import assert from "node:assert/strict";
import { test } from "node:test";
import { requireCatchable } from "../../src/backup/catch-up-position.ts";
import { lsn } from "../../src/postgres/lsn.ts";
import type { PgControl } from "../../src/postgres/pg-control.ts";

const CONTROL: PgControl = {
  majorVersion: 17,
  catalogVersion: 202_406_281,
  systemId: 7n,
  state: "shut down in recovery",
  modifiedAtSeconds: 0,
  checkpointLsn: lsn(0x200n),
  redoLsn: lsn(0x180n),
  timeline: 1,
  previousTimeline: 1,
  hasFullPageWrites: true,
  checkpointAtSeconds: 0,
  minRecoveryLsn: lsn(0x300n),
  minRecoveryTimeline: 1,
  backupStartLsn: lsn(0n),
  backupEndLsn: lsn(0n),
  isBackupEndRequired: false,
  blockBytes: 8192,
  relationSegmentBlocks: 131_072,
  walPageBytes: 8192,
  walSegmentBytes: 16 * 1024 * 1024,
  dataChecksumVersion: 1,
};
const SERVER = {
  control: { ...CONTROL, timeline: 2 },
  history: { timeline: 2, ancestors: [{ timeline: 1, endLsn: lsn(0x300n), reason: "" }] },
  lsn: lsn(0x500n),
};

test("what was changed since the redo position is sent, also across a failover", () => {
  assert.equal(requireCatchable(CONTROL, SERVER), 0x180n);
  const same = { ...SERVER, history: { timeline: 1, ancestors: [] } };
  assert.equal(requireCatchable(CONTROL, same), 0x180n);
  // A primary that was shut down, and left where the other went on.
  const old = { ...CONTROL, minRecoveryLsn: lsn(0n), minRecoveryTimeline: 0 };
  assert.equal(requireCatchable(old, SERVER), 0x180n);
});

for (const [what, change, message] of [
  ["another cluster", { systemId: 8n }, /belongs to cluster 8, this server to 7/],
  ["another release", { majorVersion: 16 }, /major release 16, this server has 17/],
  ["another catalog", { catalogVersion: 1 }, /catalog version 1/],
  ["other pages", { blockBytes: 4096 }, /page size 4096/],
  ["other files", { relationSegmentBlocks: 1 }, /relation segment size 1/],
  ["other segments", { walSegmentBytes: 1 }, /WAL segment size 1/],
  ["no checksums", { dataChecksumVersion: 0 }, /data checksum version 0/],
  ["an unknown timeline", { timeline: 3 }, /timeline 3, which this server on timeline 2/],
  [
    "a position of an unknown timeline",
    { minRecoveryTimeline: 4 },
    /timeline 4, which this server on timeline 2/,
  ],
  [
    "replayed WAL that never happened here",
    { minRecoveryLsn: lsn(0x301n) },
    /along timeline 1 to 0\/301, this server left it at 0\/300/,
  ],
  [
    "a checkpoint that never happened here",
    { checkpointLsn: lsn(0x310n) },
    /along timeline 1 to 0\/310/,
  ],
  [
    "a position ahead of the server",
    { timeline: 2, minRecoveryTimeline: 2, minRecoveryLsn: lsn(0x501n) },
    /is at 0\/501, this server only at 0\/500/,
  ],
] as const) {
  test(`a standby with ${what} is refused`, () => {
    assert.throws(() => requireCatchable({ ...CONTROL, ...change }, SERVER), { message });
  });
}
