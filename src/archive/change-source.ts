import { join } from "node:path";
import {
  DamagedError,
  FormatError,
  LocalFileError,
  ObjectNotFoundError,
  RefusedError,
  systemErrorCode,
} from "../errors.ts";
import { type ByteStream, readAll } from "../io/bytes.ts";
import type { Log } from "../io/log.ts";
import { orderedJobs } from "../io/ordered.ts";
import { type ChangeMap, mapSegment, parseChangeMap } from "../layout/change-map.ts";
import { CHANGES_FOLDER, parseChangeMapKey } from "../layout/keys.ts";
import { DELTA_GROUP_SEGMENTS } from "../layout/wal-delta.ts";
import type { ChangeAnswer, WalRange } from "../postgres/changed-blocks.ts";
import { formatLsn, lsn } from "../postgres/lsn.ts";
import { timelineOf } from "../postgres/timeline-history.ts";
import {
  formatSegmentName,
  segmentNumberOf,
  segmentOfEnd,
  segmentStart,
} from "../postgres/wal-file.ts";
import { LONG_HEADER_BYTES, SHORT_HEADER_BYTES } from "../postgres/wal-page.ts";
import type { CallOptions, Storage } from "../storage/storage.ts";
import { ChangeFold, walkChanges } from "./change-fold.ts";
import { readNotes } from "./change-notes.ts";
import { inspectLocalWal, readLocalWal } from "./local-wal.ts";
import { listStoredWal, readStoredWal, type StoredWal } from "./stored-wal.ts";

export interface ArchivedChangesOptions extends CallOptions {
  /** Of the cluster whose WAL it is. */
  readonly systemId: bigint;
  readonly segmentBytes: number;
  readonly codecJobs: number;
  /** pg_wal of the server, if it is here: segments are looked for there first. */
  readonly walDirectory?: string | undefined;
  /** Where ChangeNotes keeps what it noted of the server's segments, if it is here. */
  readonly notesDirectory?: string | undefined;
  /**
   * How many segments may be read for want of a change map; 0: none, so that the maps alone count
   * (the segment in which the range ends is in none yet, and is always read).
   */
  readonly segmentsToReadMax: number;
  readonly log: Log;
}

/** One segment of the range. */
interface Segment {
  readonly name: string;
  readonly number: bigint;
  readonly timeline: number;
  /** The records have to reach so far into it; its size unless the range ends here. */
  readonly neededBytes: number;
}

/** What is read at once: a group's map, or one segment. */
interface Unit {
  readonly map: StoredWal | undefined;
  readonly segments: readonly Segment[];
}

/** Ends the reading with its reason. */
class Hole extends Error {}

/** Maps are small and each costs a round trip; a segment is big and costs CPU. */
const JOBS = 4;
/** XLOG_BLCKSZ unless compiled otherwise. */
const WAL_PAGE_BYTES = 8192;
/**
 * What the WAL of the range changed, by the change maps in the store, and by the WAL itself where
 * there is none for a group. DELTA.md tells the whole story. Gives "hole" when a segment is missing
 * or is not whole, or when more than `segmentsToReadMax` would have to be read; rejects when the
 * store can't be reached.
 */
export async function readArchivedChanges(
  storage: Storage,
  range: WalRange,
  options: ArchivedChangesOptions,
): Promise<ChangeAnswer> {
  const units = await planUnits(storage, range, options);
  const reading = new Reading(storage, options);
  const fold = new ChangeFold();
  try {
    const load = (unit: Unit) => reading.load(unit);
    for await (const maps of orderedJobs(units, JOBS, load, options)) {
      for (const map of maps) fold.add(map);
      if (fold.holeReason !== "") throw new Hole(fold.holeReason);
    }
    const reason = whyUnfinished(fold, range);
    if (reason !== undefined) throw new Hole(reason);
    return { kind: "changes", source: reading.source, changes: fold.changes };
  } catch (error) {
    if (!(error instanceof Hole)) throw error;
    return { kind: "hole", source: reading.source, reason: error.message };
  }
}

/** A record that begins in the range has to be read to its end. */
function whyUnfinished({ open, endLsn }: ChangeFold, range: WalRange): string | undefined {
  if (open === undefined || endLsn === undefined || endLsn > range.endLsn) return undefined;
  return `a record goes on behind ${formatLsn(endLsn)}, where the range ends`;
}

/** The segments in which records of the range begin. */
export function segmentsOfRange(range: WalRange, segmentBytes: number): readonly Segment[] {
  const { startLsn, endLsn, history } = range;
  if (endLsn <= startLsn) return [];
  const segments: Segment[] = [];
  let last = segmentOfEnd(endLsn, segmentBytes);
  const isHeaderOnly = endLsn - segmentStart(last, segmentBytes) <= BigInt(LONG_HEADER_BYTES);
  // Where a backup begins with a new segment: no record is in front of it there.
  if (isHeaderOnly) last -= 1n;
  for (let number = segmentNumberOf(startLsn, segmentBytes); number <= last; number += 1n) {
    const from = segmentStart(number, segmentBytes);
    const left = endLsn - from;
    const neededBytes = left < BigInt(segmentBytes) ? withoutHeader(Number(left)) : segmentBytes;
    const timeline = timelineOf(history, lsn(from + BigInt(neededBytes - 1)));
    const name = formatSegmentName(timeline, number, segmentBytes);
    segments.push({ name, number, timeline, neededBytes });
  }
  return segments;
}

/** Where the next record would begin behind a page's header, the last one ends before it. */
function withoutHeader(offset: number): number {
  const inPage = offset % WAL_PAGE_BYTES;
  return inPage <= SHORT_HEADER_BYTES ? offset - inPage : offset;
}

async function planUnits(
  storage: Storage,
  range: WalRange,
  options: ArchivedChangesOptions,
): Promise<readonly Unit[]> {
  const segments = segmentsOfRange(range, options.segmentBytes);
  const groups = Map.groupBy(segments, ({ number }) => number / BigInt(DELTA_GROUP_SEGMENTS));
  const maps = new Map<number, ReadonlyMap<string, StoredWal>>();
  const units: Unit[] = [];
  for (const [group, members] of groups) {
    const [first] = members;
    if (first === undefined) continue;
    const { timeline } = first;
    const groupStart = group * BigInt(DELTA_GROUP_SEGMENTS);
    const name = formatSegmentName(timeline, groupStart, options.segmentBytes);
    let stored = maps.get(timeline);
    if (stored === undefined) {
      stored = await listMaps(storage, name, options);
      maps.set(timeline, stored);
    }
    const isOneTimeline = members.every((member) => member.timeline === timeline);
    const map = isOneTimeline ? stored.get(name) : undefined;
    if (map !== undefined) units.push({ map, segments: members });
    else units.push(...members.map((segment) => ({ map, segments: [segment] })));
  }
  return units;
}

/** The maps of a timeline from `first` on, by the name of their first segment. */
async function listMaps(
  storage: Storage,
  first: string,
  { signal }: CallOptions,
): Promise<ReadonlyMap<string, StoredWal>> {
  const maps = new Map<string, StoredWal>();
  const prefix = `${CHANGES_FOLDER}${first.slice(0, 8)}`;
  const startAfter = `${CHANGES_FOLDER}${first.slice(0, -1)}`;
  for await (const { key } of storage.list(prefix, { signal, startAfter })) {
    const parsed = parseChangeMapKey(key);
    if (parsed !== undefined) maps.set(parsed.name, { key, extension: parsed.extension });
  }
  return maps;
}

class Reading {
  readonly #storage: Storage;
  readonly #options: ArchivedChangesOptions;
  #readCount = 0;
  #hasMaps = false;

  constructor(storage: Storage, options: ArchivedChangesOptions) {
    this.#storage = storage;
    this.#options = options;
  }

  /** By what was read so far. */
  get source(): "wal-deltas" | "wal" {
    return this.#hasMaps ? "wal-deltas" : "wal";
  }

  /** In order; a group's one map, or one a segment. Throws Hole. */
  async load({ map, segments }: Unit): Promise<readonly ChangeMap[]> {
    const [first] = segments;
    if (map !== undefined) this.#hasMaps = true;
    if (map !== undefined && first !== undefined) {
      const loaded = await this.#loadMap(map, first);
      if (loaded !== undefined) return [loaded];
    }
    const maps: ChangeMap[] = [];
    for (const segment of segments) maps.push(await this.#readSegment(segment));
    return maps;
  }

  /** Undefined when it can't be used. */
  async #loadMap(stored: StoredWal, { timeline }: Segment): Promise<ChangeMap | undefined> {
    const { codecJobs, signal, systemId, segmentBytes, log } = this.#options;
    try {
      const content = readStoredWal(this.#storage, stored, { codecJobs, signal });
      const map = parseChangeMap(await readAll(content));
      const isOurs =
        map.systemId === systemId &&
        map.timeline === timeline &&
        map.segmentBytes === segmentBytes &&
        map.segmentCount === DELTA_GROUP_SEGMENTS &&
        parseChangeMapKey(stored.key)?.name === mapSegment(map);
      if (isOurs) return map;
      log.warning("change map of something else", { key: stored.key });
    } catch (error) {
      if (!isDamage(error)) throw error;
      log.warning("change map can't be used", { key: stored.key, reason: error.message });
    }
    return undefined;
  }

  /** What was noted of the segment when it was archived. */
  async #loadNotes({ name }: Segment): Promise<ChangeMap | undefined> {
    const { notesDirectory, systemId, segmentBytes, log } = this.#options;
    if (notesDirectory === undefined) return undefined;
    try {
      const map = await readNotes(notesDirectory, name);
      return map?.systemId === systemId && map.segmentBytes === segmentBytes ? map : undefined;
    } catch (error) {
      if (systemErrorCode(error) === undefined || !(error instanceof Error)) throw error;
      log.warning("notes of a segment's changes can't be used", { name, reason: error.message });
      return undefined;
    }
  }

  async #readSegment(segment: Segment): Promise<ChangeMap> {
    const { segmentsToReadMax, walDirectory } = this.#options;
    const noted = await this.#loadNotes(segment);
    if (noted !== undefined) {
      this.#hasMaps = true;
      return noted;
    }
    this.#readCount += 1;
    // One more: the range's end lies in a segment that is not complete, as a rule.
    if (this.#readCount > segmentsToReadMax + 1) {
      throw new Hole(`${segment.name} is in no change map, and ${segmentsToReadMax} were read`);
    }
    const failures: string[] = [];
    for await (const { place, open } of this.#contents(segment, walDirectory)) {
      try {
        const found = await this.#walk(segment, await open());
        if (typeof found !== "string") return found;
        failures.push(`${place}: ${found}`);
      } catch (error) {
        if (!isDamage(error)) throw error;
        failures.push(`${place}: ${error.message}`);
      }
    }
    const why = failures.length === 0 ? "there is none" : failures.join("; ");
    throw new Hole(`WAL segment ${segment.name} can't be read: ${why}`);
  }

  /** Where the segment may be, best first. */
  async *#contents({ name }: Segment, walDirectory: string | undefined): AsyncGenerator<Content> {
    const { codecJobs, signal } = this.#options;
    if (walDirectory !== undefined) {
      const path = join(walDirectory, name);
      const open = async () => {
        const local = await inspectLocalWal({ path, name }, { signal });
        return readLocalWal(local, { signal });
      };
      yield { place: path, open };
    }
    for (const stored of await listStoredWal(this.#storage, name, { signal })) {
      const open = async () => readStoredWal(this.#storage, stored, { codecJobs, signal });
      yield { place: stored.key, open };
    }
  }

  /** Gives why it does not do. */
  async #walk(segment: Segment, content: ByteStream): Promise<ChangeMap | string> {
    const { systemId, segmentBytes } = this.#options;
    const walked = await walkChanges(segment.name, content);
    if (typeof walked === "string") return walked;
    const { walk, map } = walked;
    if (map.systemId !== systemId) return `it is of cluster ${map.systemId}`;
    if (map.segmentBytes !== segmentBytes) return `its size is ${map.segmentBytes}`;
    if (walk.end !== "invalid") return map;
    const isEnough = segment.neededBytes < segmentBytes && walk.endOfRecords >= segment.neededBytes;
    return isEnough ? map : `${walk.reason}, its records are needed up to ${segment.neededBytes}`;
  }
}

interface Content {
  /** For messages. */
  readonly place: string;
  readonly open: () => Promise<ByteStream>;
}

/** What is wrong with one copy, so that another one may do. */
function isDamage(error: unknown): error is Error {
  return (
    error instanceof FormatError ||
    error instanceof DamagedError ||
    error instanceof LocalFileError ||
    error instanceof ObjectNotFoundError ||
    error instanceof RefusedError
  );
}
