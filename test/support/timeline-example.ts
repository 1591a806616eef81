/** What `timeline` reports of two timelines with increments, a hole, and WAL left by retention. */
import type {
  ReportedBackup,
  ReportedTimeline,
  TimelineReport,
} from "../../src/catalogue/timeline-report.ts";
import { lsn } from "../../src/postgres/lsn.ts";
import { formatSegmentName } from "../../src/postgres/wal-file.ts";

const SEGMENT_BYTES = 16 * 1024 * 1024;
const FIRST_NS = BigInt(Date.UTC(2026, 10, 14, 2)) * 1_000_000n;
/** A segment an hour. */
const SEGMENT_NS = 3_600_000_000_000n;

function place(segment: number) {
  const offset = BigInt(Math.round(segment * SEGMENT_BYTES));
  const timeNs = FIRST_NS + (BigInt(Math.round(segment * 1000)) * SEGMENT_NS) / 1000n;
  return { lsn: lsn(offset), timeNs };
}

function backup(
  timeline: number,
  segment: number,
  more: Partial<ReportedBackup> & { readonly baseSegment?: number } = {},
): ReportedBackup {
  const { baseSegment, ...changes } = more;
  const nameOf = (number: number) => formatSegmentName(timeline, BigInt(number), SEGMENT_BYTES);
  const base = baseSegment === undefined ? undefined : `base_${nameOf(baseSegment)}`;
  const suffix = baseSegment === undefined ? "" : `_D_${nameOf(baseSegment)}`;
  const start = place(segment + 0.1);
  return {
    name: `base_${nameOf(segment)}${suffix}`,
    isIncrement: base !== undefined,
    baseName: base,
    start,
    finish: place(segment + 0.5),
    isPermanent: false,
    storedBytes: base === undefined ? 41_234_567_890 : 2_345_678_901,
    contentBytes: base === undefined ? 123_456_789_012 : 6_543_210_987,
    problem: undefined,
    ...changes,
  };
}

function run(timeline: number, first: number, last: number) {
  return {
    firstSegment: formatSegmentName(timeline, BigInt(first), SEGMENT_BYTES),
    lastSegment: formatSegmentName(timeline, BigInt(last), SEGMENT_BYTES),
    segmentCount: last - first + 1,
    startLsn: place(first).lsn,
    endLsn: place(last + 1).lsn,
  };
}

function commit(segment: number, xid: number) {
  return { ...place(segment), xid };
}

const first: ReportedTimeline = {
  timeline: 1,
  parentTimeline: 0,
  forkLsn: lsn(0n),
  isHistoryLost: false,
  backups: [
    backup(1, 8, { isPermanent: true }),
    backup(1, 40),
    backup(1, 64, { baseSegment: 40 }),
    backup(1, 88, { baseSegment: 40 }),
    backup(1, 100, { problem: "3 segments are missing that it needs" }),
  ],
  windows: [
    {
      from: place(8.5),
      to: place(9.9),
      lastXid: 1203,
      commitIsKnown: true,
      segmentCount: 2,
      backups: [backup(1, 8).name],
      end: "hole",
    },
    {
      from: place(40.5),
      to: place(99.8),
      lastXid: 88_120,
      commitIsKnown: true,
      segmentCount: 60,
      backups: [backup(1, 40).name, backup(1, 64, { baseSegment: 40 }).name],
      end: "hole",
    },
  ],
  holes: [
    {
      ...run(1, 10, 39),
      after: commit(9.9, 1203),
      before: commit(40.1, 30_001),
      isIntended: true,
      givenUpCount: 0,
    },
    {
      ...run(1, 100, 102),
      after: commit(99.8, 88_120),
      before: commit(103.2, 88_900),
      isIntended: false,
      givenUpCount: 3,
    },
  ],
  runs: [run(1, 8, 9), run(1, 40, 99), run(1, 103, 119)],
};

const second: ReportedTimeline = {
  timeline: 2,
  parentTimeline: 1,
  forkLsn: place(112.4).lsn,
  isHistoryLost: false,
  backups: [backup(2, 118), backup(2, 142, { baseSegment: 118 })],
  windows: [
    {
      from: place(118.5),
      to: place(167.7),
      lastXid: 140_933,
      commitIsKnown: true,
      segmentCount: 50,
      backups: [backup(2, 118).name, backup(2, 142, { baseSegment: 118 }).name],
      end: "archive-end",
    },
  ],
  holes: [],
  runs: [run(2, 112, 167)],
};

export const TIMELINE_EXAMPLE: TimelineReport = {
  storageName: "s3://backups/main </script><b>",
  systemId: 7_412_345_678_901_234_567n,
  segmentBytes: SEGMENT_BYTES,
  timelines: [first, second],
  plans: [],
};
