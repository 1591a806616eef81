/** What a client knows of its commits, and which of them a restore has to have. */

/** One promotion, or the first primary: two servers may give their timelines one number. */
export interface Stretch {
  readonly epoch: number;
  readonly timeline: number;
  /** Where the next one of the path left it; the last one has no end. */
  readonly endLsn: bigint | undefined;
}

/** Oldest first. */
export type Path = readonly Stretch[];

/** One row that a commit of its own wrote. */
export interface Row {
  readonly n: number;
  readonly epoch: number;
  /** Its records are not before this. */
  readonly fromLsn: bigint;
  /** They end before this; undefined while nobody has heard that the commit returned. */
  toLsn?: bigint;
  /** The commit returned, and wal-receive --synchronous had to agree. */
  isSynced: boolean;
}

/** Whether all records of a commit that returned are on the way to the path's end. */
function isOn(path: Path, row: Row): boolean {
  if (row.toLsn === undefined) return false;
  const stretch = path.find(({ epoch }) => epoch === row.epoch);
  return stretch !== undefined && (stretch.endLsn === undefined || row.toLsn <= stretch.endLsn);
}

/** Whether no record of it is. */
function isOff(path: Path, row: Row): boolean {
  const stretch = path.find(({ epoch }) => epoch === row.epoch);
  if (stretch === undefined) return true;
  return stretch.endLsn !== undefined && row.fromLsn >= stretch.endLsn;
}

/** What a restored database breaks of the promises; nothing if it keeps them. */
export function brokenPromises(
  held: ReadonlySet<number>,
  { rows, path, archivedLsn }: { rows: readonly Row[]; path: Path; archivedLsn: bigint },
): string[] {
  const broken: string[] = [];
  const known = new Map(rows.map((row) => [row.n, row]));
  let newestLsn = 0n;
  for (const n of held) {
    const row = known.get(n);
    if (row === undefined) broken.push(`row ${n} was never written`);
    else if (isOff(path, row)) broken.push(`row ${n} is of another line`);
    else if (row.fromLsn > newestLsn) newestLsn = row.fromLsn;
  }
  for (const row of rows) {
    if (row.toLsn === undefined || held.has(row.n) || !isOn(path, row)) continue;
    if (row.isSynced) broken.push(`row ${row.n} was acknowledged by the archive`);
    else if (row.toLsn <= archivedLsn) broken.push(`row ${row.n} is in archived WAL`);
    else if (row.toLsn <= newestLsn) broken.push(`row ${row.n} is a hole`);
  }
  return broken;
}

/**
 * Up to where the archive has the WAL of a path without a hole, from `fromLsn` on; `has` tells
 * whether it holds the whole segment of this number, of this timeline.
 */
export function archivedEnd(
  path: Path,
  {
    fromLsn,
    segmentBytes,
    has,
  }: {
    fromLsn: bigint;
    segmentBytes: bigint;
    has: (timeline: number, segment: bigint) => boolean;
  },
): bigint {
  let end = fromLsn;
  for (let segment = fromLsn / segmentBytes; ; segment += 1n) {
    const [beginLsn, endLsn] = [segment * segmentBytes, (segment + 1n) * segmentBytes];
    const touching = path.filter((stretch, index) => {
      const from = path[index - 1]?.endLsn ?? 0n;
      return from < endLsn && (stretch.endLsn === undefined || stretch.endLsn > beginLsn);
    });
    const newest = touching.at(-1);
    if (newest === undefined) return end;
    if (has(newest.timeline, segment)) {
      end = endLsn;
      continue;
    }
    // A segment of the timeline that was left serves up to the fork.
    const older = touching.at(-2);
    if (older?.endLsn !== undefined && has(older.timeline, segment)) return older.endLsn;
    return end;
  }
}
