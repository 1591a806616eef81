import { type BlockRange, BlockSet } from "./block-set.ts";
import type { Lsn } from "./lsn.ts";
import type { TimelineHistory } from "./timeline-history.ts";
import type { RelationFile, RelationFork } from "./relation-file.ts";

/** RELSEG_SIZE unless compiled otherwise, in blocks; WAL-G's format allows no other. */
export const RELATION_SEGMENT_BLOCKS = 131_072;

/** One fork of one relation, wherever its relation segments end. A RelationFile is one, too. */
export interface ForkPlace {
  readonly tablespaceOid: number;
  /** 0 for what all databases share. */
  readonly databaseOid: number;
  readonly relfilenode: number;
  readonly fork: RelationFork;
}

/**
 * What of a file may differ from what it was at the start of the range.
 *
 * - "none": nothing.
 * - "all": any block, or the file is another one than then (new, recreated, of a fork that is not
 *   wholly in the WAL): take it in full and nothing from the base.
 * - "blocks": those in `ranges`, numbered within the file, ascending, with gaps between them, all
 *   below the file's end; `count` blocks in all.
 */
export type FileChanges =
  | { readonly kind: "none" }
  | { readonly kind: "all" }
  | { readonly kind: "blocks"; readonly ranges: readonly BlockRange[]; readonly count: number };

/**
 * Where changes were learned from; "wal" is the archived WAL itself, read for want of delta maps.
 */
export type ChangeSourceName = "wal-summaries" | "wal-deltas" | "wal" | "page-scan";

/**
 * What a source knows of a range of WAL: all of it, or why it can't vouch for all of it. A hole
 * anywhere makes the answer "hole": there are no changes to be had from it.
 */
export type ChangeAnswer =
  | {
      readonly kind: "changes";
      readonly source: ChangeSourceName;
      readonly changes: ChangedBlocks;
    }
  | { readonly kind: "hole"; readonly source: ChangeSourceName; readonly reason: string };

/**
 * The WAL between two backups: all records that begin in [startLsn, endLsn) on the way to
 * `history.timeline`. `startLsn` is the start of the base backup (its redo position), which must
 * be on that way, `endLsn` that of the new one.
 */
export interface WalRange {
  readonly startLsn: Lsn;
  readonly endLsn: Lsn;
  readonly history: TimelineHistory;
}

/** The part of a range that is on one timeline. */
export interface TimelineRange {
  readonly timeline: number;
  readonly startLsn: Lsn;
  readonly endLsn: Lsn;
}

/** Cuts a range where timelines ended; oldest first, no part is empty. */
export function timelineRanges({ startLsn, endLsn, history }: WalRange): readonly TimelineRange[] {
  const ranges: TimelineRange[] = [];
  let from = startLsn;
  for (const ancestor of history.ancestors) {
    const to = ancestor.endLsn < endLsn ? ancestor.endLsn : endLsn;
    if (to <= from) continue;
    ranges.push({ timeline: ancestor.timeline, startLsn: from, endLsn: to });
    from = to;
  }
  if (from < endLsn) ranges.push({ timeline: history.timeline, startLsn: from, endLsn });
  return ranges;
}

/** What is kept of one main fork. */
interface Entry extends Omit<ForkPlace, "fork"> {
  /** Every block from here on may have changed; Infinity: only those in `blocks`. */
  changedFrom: number;
  /** Those that records named, also behind `changedFrom`. */
  readonly blocks: BlockSet;
}

/** What was noted of one main fork; see `ChangedBlocks.entries`. */
export interface NotedFork {
  readonly tablespaceOid: number;
  readonly databaseOid: number;
  /** 0: every relation of this database in this tablespace. */
  readonly relfilenode: number;
  /** Every block from here on may have changed; undefined: only those in `blocks`. */
  readonly changedFrom: number | undefined;
  /** Those that records named, also behind `changedFrom`. */
  readonly blocks: BlockSet;
}

/**
 * Which blocks of a cluster may have changed in a range of WAL. Compact: a bit a block of what
 * changed, see BlockSet.
 *
 * Errs on the side of too many blocks, and rests on two things that its user must see to:
 *
 * - A block that the base's file does not have, because the file was shorter or not there, is to
 *   be taken in any case: a file may grow by pages of zeros that the WAL does not tell of.
 * - Files that are no relation's main fork are not known here and always to be taken whole: pg_xact
 *   and its like, pg_filenode.map, and the other forks. PostgreSQL logs changes of the free space
 *   map in part only, and clears bits of the visibility map without naming its block.
 */
export class ChangedBlocks {
  /** Tablespace, database, relfilenode. */
  readonly #tablespaces = new Map<number, Map<number, Map<number, Entry>>>();
  /** The entry that was asked for last: records of one relation often follow each other. */
  #last: Entry | undefined;

  /** Notes that a block was written. Ignores forks other than main. */
  addBlock(place: ForkPlace, block: number): void {
    if (place.fork !== "main") return;
    this.#entry(place).blocks.add(block);
  }

  addRange(place: ForkPlace, range: BlockRange): void {
    if (place.fork !== "main") return;
    this.#entry(place).blocks.addRange(range);
  }

  /**
   * Notes that the fork was cut to `blockCount` blocks, whatever became of it later; 0 when it was
   * created or removed.
   */
  cutFork(place: ForkPlace, blockCount: number): void {
    if (place.fork !== "main") return;
    const entry = this.#entry(place);
    entry.changedFrom = Math.min(entry.changedFrom, blockCount);
  }

  /** Notes that a database was made or removed in a tablespace, by whatever way. */
  replaceDatabase(tablespaceOid: number, databaseOid: number): void {
    this.#entry({ tablespaceOid, databaseOid, relfilenode: 0 }).changedFrom = 0;
  }

  /** Takes over all that `other` knows. */
  addAll(other: ChangedBlocks): void {
    for (const noted of other.entries()) {
      const entry = this.#entry(noted);
      entry.blocks.addAll(noted.blocks);
      entry.changedFrom = Math.min(
        entry.changedFrom,
        noted.changedFrom ?? Number.POSITIVE_INFINITY,
      );
    }
  }

  /** What may have changed in a file that has `blockCount` whole blocks now. */
  inFile(file: RelationFile, blockCount: number): FileChanges {
    if (file.fork !== "main") return { kind: "all" };
    const relations = this.#tablespaces.get(file.tablespaceOid)?.get(file.databaseOid);
    if (relations?.get(0)?.changedFrom === 0) return { kind: "all" };
    const entry = relations?.get(file.relfilenode);
    if (entry === undefined) return { kind: "none" };

    const first = file.relationSegment * RELATION_SEGMENT_BLOCKS;
    if (entry.changedFrom <= first) return { kind: "all" };
    const end = first + blockCount;
    const ranges: BlockRange[] = [];
    let count = 0;
    const push = (start: number, end: number): void => {
      ranges.push({ start: start - first, end: end - first });
      count += end - start;
    };
    const known = Math.min(end, entry.changedFrom);
    for (const range of entry.blocks.ranges(first, known)) push(range.start, range.end);
    if (entry.changedFrom < end) push(entry.changedFrom, end);
    return count === 0 ? { kind: "none" } : { kind: "blocks", ranges: joined(ranges), count };
  }

  /** All that was noted, ordered by tablespace, database and relfilenode. */
  *entries(): Generator<NotedFork> {
    for (const [tablespaceOid, databases] of sorted(this.#tablespaces)) {
      for (const [databaseOid, relations] of sorted(databases)) {
        for (const [relfilenode, { changedFrom, blocks }] of sorted(relations)) {
          const from = changedFrom === Number.POSITIVE_INFINITY ? undefined : changedFrom;
          yield { tablespaceOid, databaseOid, relfilenode, changedFrom: from, blocks };
        }
      }
    }
  }

  #entry(place: Omit<ForkPlace, "fork">): Entry {
    const { tablespaceOid, databaseOid, relfilenode } = place;
    const last = this.#last;
    if (
      last !== undefined &&
      last.relfilenode === relfilenode &&
      last.databaseOid === databaseOid &&
      last.tablespaceOid === tablespaceOid
    ) {
      return last;
    }
    const relations = this.#database(tablespaceOid, databaseOid);
    let entry = relations.get(relfilenode);
    if (entry === undefined) {
      const nothing = { changedFrom: Number.POSITIVE_INFINITY, blocks: new BlockSet() };
      entry = { tablespaceOid, databaseOid, relfilenode, ...nothing };
      relations.set(relfilenode, entry);
    }
    this.#last = entry;
    return entry;
  }

  #database(tablespaceOid: number, databaseOid: number): Map<number, Entry> {
    let databases = this.#tablespaces.get(tablespaceOid);
    if (databases === undefined) {
      databases = new Map();
      this.#tablespaces.set(tablespaceOid, databases);
    }
    let relations = databases.get(databaseOid);
    if (relations === undefined) {
      relations = new Map();
      databases.set(databaseOid, relations);
    }
    return relations;
  }
}

function sorted<T>(map: ReadonlyMap<number, T>): readonly (readonly [number, T])[] {
  return [...map].toSorted(([a], [b]) => a - b);
}

/** Joins the last two ranges if they touch: only they can. */
function joined(ranges: BlockRange[]): readonly BlockRange[] {
  const [before, last] = ranges.slice(-2);
  if (before === undefined || last === undefined || before.end !== last.start) return ranges;
  ranges.splice(-2, 2, { start: before.start, end: last.end });
  return ranges;
}
