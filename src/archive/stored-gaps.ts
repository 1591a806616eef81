import { RefusedError } from "../errors.ts";
import {
  BACKUPS_FOLDER,
  GAPS_FOLDER,
  gapKey,
  parseGapKey,
  parseWalKey,
  walKey,
} from "../layout/keys.ts";
import { formatLsn, type Lsn } from "../postgres/lsn.ts";
import {
  formatHistoryName,
  parseSegmentName,
  parseWalFileName,
  segmentStart,
} from "../postgres/wal-file.ts";
import { statIfThere } from "../storage/object-copy.ts";
import type { CallOptions, ObjectKey, Storage } from "../storage/storage.ts";
import { findLater } from "./partial.ts";
import { listForks, type TimelineFork } from "./timeline-forks.ts";

/**
 * What a recovery to right before a segment that it can't have has to know.
 *
 * @source XLogPrefetcherNextBlock, src/backend/access/transam/xlogprefetcher.c: decodes 512 kB ahead
 */
export const READ_AHEAD_HINT =
  "From PostgreSQL 15 on recovery reads ahead: it reaches a target right before this segment with " +
  "recovery_prefetch = off.";

/** Segments of which the store says that they were given up; some may have come since. */
export async function listGapRecords(
  storage: Storage,
  { signal }: CallOptions,
): Promise<ReadonlySet<string>> {
  const names = new Set<string>();
  for await (const { key } of storage.list(GAPS_FOLDER, { signal })) {
    const name = parseGapKey(key);
    if (name !== undefined) names.add(name);
  }
  return names;
}

/** Whether the repository says that it will never get the segment. */
export async function isGivenUp(
  storage: Storage,
  segment: string,
  { signal }: CallOptions,
): Promise<boolean> {
  if (parseGapKey(gapKey(segment)) === undefined) return false;
  return (await statIfThere(storage, gapKey(segment), { signal })) !== undefined;
}

/**
 * Recovery asks for a segment that was given up. It must not take this for the end of the archive:
 * it would open the database without the commits behind it.
 */
export function gapError(name: string, place: string): RefusedError {
  return new RefusedError(
    `WAL segment ${name} is not in the archive ${place}: it was given up while the store was away`,
    {
      hint:
        "There is WAL behind it that recovery can't reach. Look for the segment in pg_wal of the " +
        "server and its standbys (`walnut backfill` brings it), restore a backup that was taken " +
        "after the gap, or set a recovery target before it. To open the database as it was before " +
        `the gap, delete the object ${gapKey(name)}. ${READ_AHEAD_HINT}`,
    },
  );
}

/**
 * Asked of a segment that is not in the archive: the first object of WAL behind it on its timeline,
 * or undefined where the archive ends. It ends, too, where the WAL behind begins with a backup:
 * retention keeps old backups with no WAL but their own, and PostgreSQL reads ahead of a target.
 */
export async function findHole(
  storage: Storage,
  segment: string,
  options: CallOptions,
): Promise<ObjectKey | undefined> {
  const later = await findLater(storage, segment, options);
  const name = parseWalKey(later ?? "")?.name.slice(0, 24);
  if (later === undefined || name === undefined) return undefined;
  return (await isBackupStart(storage, name, options)) ? undefined : later;
}

async function isBackupStart(
  storage: Storage,
  segment: string,
  options: CallOptions,
): Promise<boolean> {
  for await (const _ of storage.list(`${BACKUPS_FOLDER}base_${segment}`, options)) return true;
  return false;
}

/**
 * Asked of a segment that is not in the archive, nor any behind it on its timeline: the first
 * object of a timeline that left this one behind the segment, which so was there once; or undefined
 * where there is none. Where what is there begins with a backup, retention has made the hole.
 */
export async function findHoleBeforeFork(
  storage: Storage,
  place: SegmentPlace,
  options: CallOptions,
): Promise<ObjectKey | undefined> {
  const nearest = await firstBehindForks(storage, place, options);
  if (nearest === undefined) return undefined;
  return (await isBackupStart(storage, nearest.name, options)) ? undefined : nearest.key;
}

interface SegmentPlace {
  readonly segment: string;
  readonly segmentBytes: number;
}

/** Of timelines that left the segment's behind it: the first WAL by position. */
async function firstBehindForks(
  storage: Storage,
  { segment, segmentBytes }: SegmentPlace,
  options: CallOptions,
): Promise<{ readonly name: string; readonly key: ObjectKey } | undefined> {
  const { timeline, segmentNumber } = parseSegmentName(segment, segmentBytes);
  const endLsn = segmentStart(segmentNumber + 1n, segmentBytes);
  let nearest: { readonly name: string; readonly key: ObjectKey } | undefined;
  for (const fork of await listForks(storage, timeline, options)) {
    if (fork.switchLsn < endLsn) continue;
    const key = await firstWalOf(storage, formatHistoryName(fork.timeline).slice(0, 8), options);
    const name = parseWalKey(key ?? "")?.name.slice(0, 24);
    if (key === undefined || name === undefined) continue;
    // By position, whatever the timeline.
    if (nearest === undefined || name.slice(8) < nearest.name.slice(8)) nearest = { name, key };
  }
  return nearest;
}

/**
 * Whether retention has removed a segment that is not in the archive: what is there behind it, of
 * its timeline or else of one that left it later, begins with a backup.
 */
export async function isLeftByRetention(
  storage: Storage,
  place: SegmentPlace,
  options: CallOptions,
): Promise<boolean> {
  const later = await findLater(storage, place.segment, options);
  const name =
    later === undefined
      ? (await firstBehindForks(storage, place, options))?.name
      : parseWalKey(later)?.name.slice(0, 24);
  return name !== undefined && (await isBackupStart(storage, name, options));
}

/**
 * Asked of a segment whose records end at `endLsn`, before it is full: what in the archive proves
 * that there was more of its timeline, as a clause; undefined where this can be the end.
 */
export async function findContinuation(
  storage: Storage,
  { segment, endLsn }: { readonly segment: string; readonly endLsn: Lsn },
  options: CallOptions,
): Promise<string | undefined> {
  const later = await findLater(storage, segment, options);
  if (later !== undefined) return `there is later WAL of its timeline: ${later}`;
  const timeline = parseWalFileName(segment)?.timeline ?? 0;
  for (const fork of await listForks(storage, timeline, options)) {
    if (fork.switchLsn <= endLsn) continue;
    return `timeline ${fork.timeline} has left its timeline at ${formatLsn(fork.switchLsn)} only`;
  }
  return undefined;
}

/**
 * Recovery asks for a segment that is missing in the middle: it is not the end of the archive, and
 * nobody has said that it is lost. `later`: of its timeline, or of one that left it later.
 */
export function holeError(name: string, later: ObjectKey, place: string): RefusedError {
  const isOwn = parseWalKey(later)?.name.slice(0, 8) === name.slice(0, 8);
  const what = isOwn ? "later WAL of its timeline is" : "WAL of a timeline that left it later is";
  return new RefusedError(
    `WAL segment ${name} is not in the archive ${place}, but ${what}: ${later}`,
    {
      hint:
        "Recovery would end here and open the database without the commits behind it. If it is still " +
        "being archived, ask again in a moment. Else look for the segment in pg_wal of the server and " +
        "its standbys (`walnut backfill` brings it), or restore a backup that was taken behind the " +
        "hole. To open the database as it was before it, set WALNUT_FETCH_END_AT_HOLE=true. " +
        READ_AHEAD_HINT,
    },
  );
}

/**
 * Asked of a history that is not in the archive: the first object of WAL of its timeline, or
 * undefined where there is no such timeline. Timeline 1 has no history.
 */
export async function findOrphan(
  storage: Storage,
  history: string,
  options: CallOptions,
): Promise<ObjectKey | undefined> {
  const timeline = history.slice(0, 8);
  return timeline === "00000001" ? undefined : await firstWalOf(storage, timeline, options);
}

/** The first object of WAL of a timeline, given by its 8 digits. */
async function firstWalOf(
  storage: Storage,
  timeline: string,
  options: CallOptions,
): Promise<ObjectKey | undefined> {
  for await (const { key } of storage.list(walKey(timeline, ""), options)) {
    const kind = parseWalFileName(parseWalKey(key)?.name ?? "")?.kind;
    if (kind === "segment" || kind === "partial") return key;
  }
  return undefined;
}

/** Recovery asks whether there is a timeline of which there is WAL: it must not be told no. */
export function lostHistoryError(name: string, orphan: ObjectKey, place: string): RefusedError {
  return new RefusedError(
    `${name} is not in the archive ${place}, but WAL of its timeline is: ${orphan}`,
    {
      hint:
        "Recovery would not find this timeline and open the database without its commits. The file " +
        "is in pg_wal of the server that writes the timeline and of its standbys: `walnut backfill` " +
        "there brings it. To leave that timeline aside, set WALNUT_FETCH_END_AT_HOLE=true.",
    },
  );
}

/**
 * Asked of a history that is not in the archive: the next timeline behind it that comes from
 * `timeline`, that of the data directory. PostgreSQL looks for histories one number after the other
 * and would not find it.
 *
 * @source findNewestTimeLine, src/backend/access/transam/timeline.c
 */
export async function findHiddenTimeline(
  storage: Storage,
  { history, timeline }: { readonly history: string; readonly timeline: number },
  options: CallOptions,
): Promise<TimelineFork | undefined> {
  const newerThan = parseWalFileName(history)?.timeline ?? 0;
  const [fork] = await listForks(storage, timeline, { ...options, newerThan });
  return fork;
}

/** Recovery asks for a history without which it can't see that there are newer timelines. */
export function hiddenTimelineError(
  name: string,
  { timeline }: TimelineFork,
  place: string,
): RefusedError {
  const newer = formatHistoryName(timeline);
  return new RefusedError(`${name} is not in the archive ${place}, but ${newer} is`, {
    hint:
      `PostgreSQL looks for one timeline after the other: it would not find timeline ${timeline}, ` +
      "open the database without its commits, and use a number again. `walnut backfill` brings " +
      "the file from a server that has it in pg_wal. If none has, make it of those lines of " +
      `${newer} that name a lower timeline than its own, and store it: \`walnut st put FILE ` +
      `${walKey(name, "")}\`. To recover along timeline ${timeline} all the same, set ` +
      `recovery_target_timeline = '${timeline}'; to leave newer timelines aside, ` +
      "WALNUT_FETCH_END_AT_HOLE=true.",
  });
}

/**
 * The first segment without which a backup can't be recovered further, if the WAL from `segment`
 * on, in which it begins, has gaps. `gaps` in order, as `listOpenGaps` gives them.
 */
export function firstGapFrom(segment: string, gaps: readonly string[]): string | undefined {
  // A gap of a newer timeline counts: LATEST may lead there.
  return gaps.find((gap) => gap >= segment);
}

/**
 * Segments that were given up and are not in the archive: no recovery gets past them. In order; one
 * request where there are none.
 */
export async function listOpenGaps(
  storage: Storage,
  { signal }: CallOptions,
): Promise<readonly string[]> {
  const open = new Set(await listGapRecords(storage, { signal }));
  const names = [...open].toSorted();
  for (const timeline of new Set(names.map((name) => name.slice(0, 8)))) {
    const own = names.filter((name) => name.startsWith(timeline));
    const [first = "", last = ""] = [own.at(0), own.at(-1)];
    // "/" sorts before all digits: the first name itself is listed.
    const startAfter = walKey(`${first.slice(0, -1)}/`, "");
    for await (const { key, sizeBytes } of storage.list(walKey(timeline, ""), {
      signal,
      startAfter,
    })) {
      const name = parseWalKey(key)?.name ?? "";
      if (name.slice(0, 24) > last) break;
      if (sizeBytes > 0) open.delete(name);
    }
  }
  return [...open];
}
