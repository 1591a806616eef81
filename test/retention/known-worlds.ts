import { NOW_MS, segmentName, type World } from "./world.ts";

const DAY_MS = 86_400_000;

const backupOf = (timeline: number, segment: number, startMs: number) => ({
  name: `base_${segmentName(timeline, segment)}`,
  timeline,
  segment,
  lastSegment: segment,
  base: undefined,
  startMs,
  finishMs: startMs + 3_600_000,
  isPermanent: false,
  corruptPages: 0,
  hasControl: true,
  isSentinelThere: true,
});
const timelineOf = (id: number, parent: number, forkSegment: number, endSegment: number) => ({
  id,
  parent,
  forkSegment,
  endSegment,
  holes: id === 1 ? [forkSegment] : [],
  hasHistory: id > 1,
});

/** The oldest backup's own WAL is on timeline 3 only, from which no way leads to timeline 4. */
export const SIBLING: World = {
  timelines: [
    timelineOf(1, 0, 250, 252),
    timelineOf(2, 1, 251, 261),
    timelineOf(3, 1, 250, 252),
    timelineOf(4, 2, 252, 254),
  ],
  backups: [
    backupOf(1, 250, NOW_MS - 39 * DAY_MS),
    backupOf(2, 252, NOW_MS - 37.9 * DAY_MS),
    backupOf(2, 253, NOW_MS - 37 * DAY_MS),
  ],
};

/** One timeline with a hole within the promised days: what lies behind it needs another backup. */
export const BROKEN: World = {
  timelines: [{ ...timelineOf(1, 0, 250, 262), holes: [254] }],
  backups: [
    backupOf(1, 250, NOW_MS - 39 * DAY_MS),
    backupOf(1, 256, NOW_MS - 36 * DAY_MS),
    backupOf(1, 260, NOW_MS - 34 * DAY_MS),
  ],
};

/** Holes where timelines fork: the first backup is on the way to timeline 4, but gets nowhere. */
export const FORK_HOLES: World = {
  timelines: [
    timelineOf(1, 0, 250, 252),
    { ...timelineOf(3, 1, 250, 257), holes: [250] },
    { ...timelineOf(4, 3, 255, 267), holes: [255] },
  ],
  backups: [
    backupOf(1, 250, NOW_MS - 39.5 * DAY_MS),
    backupOf(4, 258, NOW_MS - 33.9 * DAY_MS),
    backupOf(4, 265, NOW_MS - 30 * DAY_MS),
  ],
};

/**
 * No backup is whole. Only segment 253 of timeline 2 tells that of the second backup's own WAL
 * segment 252 is missing, and not late: nothing else needs it, but the next plan depends on it.
 */
export const CUT_SHORT: World = {
  timelines: [
    { ...timelineOf(1, 0, 250, 252), holes: [] },
    { ...timelineOf(2, 1, 250, 254), holes: [250, 252] },
    { ...timelineOf(3, 1, 250, 252), hasHistory: false },
  ],
  backups: [
    { ...backupOf(1, 250, NOW_MS - 39 * DAY_MS), lastSegment: 251 },
    { ...backupOf(2, 251, NOW_MS - 38 * DAY_MS), lastSegment: 252 },
  ].map((one) => ({ ...one, isPermanent: true, hasControl: false })),
};

/** Timelines 2 and 3 have no history; that of timeline 4 tells how they came from timeline 1. */
export const ONE_HISTORY: World = {
  timelines: [
    { ...timelineOf(1, 0, 250, 252), holes: [250, 251] },
    { ...timelineOf(2, 1, 251, 253), hasHistory: false },
    { ...timelineOf(3, 2, 251, 254), hasHistory: false },
    timelineOf(4, 3, 252, 254),
  ],
  backups: [backupOf(1, 251, NOW_MS - 40 * DAY_MS), backupOf(3, 252, NOW_MS - 38.5 * DAY_MS)].map(
    (one) => ({ ...one, isPermanent: true }),
  ),
};

/** Timeline 2 has no history: nobody can tell that it does not follow the backup. */
export const NO_HISTORY: World = {
  timelines: [
    { ...timelineOf(1, 0, 250, 252), holes: [] },
    { ...timelineOf(2, 1, 250, 252), hasHistory: false },
  ],
  backups: [backupOf(1, 250, NOW_MS - 40 * DAY_MS)],
};

/** Timeline 1 was left before the backup ended, and lacks its end: timeline 2 is no way out. */
export const LEFT_TOO_EARLY: World = {
  timelines: [{ ...timelineOf(1, 0, 257, 261), holes: [] }, timelineOf(2, 1, 260, 262)],
  backups: [{ ...backupOf(1, 260, NOW_MS - 34 * DAY_MS), lastSegment: 261 }],
};

/**
 * The first two backups touch: replay from the first comes through the second one's WAL to where
 * timeline 2 left that, of which nothing is needed, as the third backup is on timeline 3.
 */
export const TOUCHING: World = {
  timelines: [
    { ...timelineOf(1, 0, 250, 256), holes: [] },
    { ...timelineOf(2, 1, 254, 262), holes: [] },
    { ...timelineOf(3, 2, 257, 262), holes: [] },
  ],
  backups: [
    { ...backupOf(1, 250, NOW_MS - 39 * DAY_MS), lastSegment: 252 },
    { ...backupOf(1, 253, NOW_MS - 37 * DAY_MS), lastSegment: 255 },
    backupOf(3, 260, NOW_MS - 35 * DAY_MS),
  ].map((one) => ({ ...one, isPermanent: true })),
};
