import { findUsablePartial } from "../archive/partial.ts";
import type { StoredWal } from "../archive/stored-wal.ts";
import type { Lsn } from "../postgres/lsn.ts";
import type { TimelineHistory } from "../postgres/timeline-history.ts";
import { formatSegmentName } from "../postgres/wal-file.ts";
import type { CallOptions, Storage } from "../storage/storage.ts";
import type { Catalogue } from "./catalogue.ts";
import { CommitIndex } from "./commit-index.ts";
import type { CommitPoint, CommitSummary, PlacedEnd } from "./commit-scan.ts";
import { HasherPool } from "./hasher-pool.ts";
import { readSegments, type SegmentObject, type SegmentReading } from "./segment-reader.ts";
import { segmentTimeline } from "./wal-integrity.ts";
import type { SegmentRun } from "./segment-set.ts";
import { segmentsPerHigh } from "./wal-objects.ts";
import type { WalView } from "./wal-view.ts";

export interface FinderOptions extends CallOptions {
  readonly jobs: number;
  readonly codecJobs: number;
  /** Told of the stored bytes that were read. */
  readonly onBytes?: (count: number) => void;
}

/** How far is looked for a commit where there is none, in segments. */
const LOOK_MAX = 512;

/**
 * Finds commits in an archive, with the help of the index where there is one; what is read on the
 * way is noted in the index.
 */
export class CommitFinder {
  readonly #storage: Storage;
  readonly #catalogue: Catalogue;
  readonly #view: WalView;
  readonly #options: FinderOptions;
  readonly #hashers = new HasherPool();
  readonly #index: CommitIndex;

  private constructor(
    storage: Storage,
    { catalogue, view }: { readonly catalogue: Catalogue; readonly view: WalView },
    options: FinderOptions,
    index: CommitIndex,
  ) {
    this.#storage = storage;
    this.#catalogue = catalogue;
    this.#view = view;
    this.#options = options;
    this.#index = index;
  }

  static async open(
    storage: Storage,
    place: { readonly catalogue: Catalogue; readonly view: WalView },
    options: FinderOptions,
  ): Promise<CommitFinder> {
    const hasher = await new HasherPool().take("xxh64");
    const index = new CommitIndex(storage, place.view.segmentBytes, { ...options, hasher });
    return new CommitFinder(storage, place, options, index);
  }

  /** Keeps what was learned. */
  async close(): Promise<void> {
    await this.#index.flush();
  }

  /** Of one segment on the way to a timeline; undefined when it is not there or can't be read. */
  async summary(history: TimelineHistory, number: number): Promise<CommitSummary | undefined> {
    const timeline = segmentTimeline(history, number, this.#view.segmentBytes);
    const known = await this.#index.find(timeline, number);
    if (known?.isExact === true) return known.commits;
    const object = this.objectOf(timeline, number);
    if (object === undefined) return undefined;
    const reading = await this.#readOne(history, object);
    return reading?.fault === undefined ? reading?.commits : undefined;
  }

  /** The last commit from `fromLsn` on in segments of `range`. */
  async lastCommit(
    history: TimelineHistory,
    range: SegmentRun,
    fromLsn: Lsn,
  ): Promise<CommitPoint | undefined> {
    const first = Math.max(range.first, range.last - LOOK_MAX);
    for (let number = range.last; number >= first; number -= 1) {
      const last = (await this.summary(history, number))?.last;
      if (last !== undefined) return last.lsn >= fromLsn ? last : undefined;
    }
    return undefined;
  }

  /** The first commit in segments of `range`. */
  async firstCommit(history: TimelineHistory, range: SegmentRun): Promise<CommitPoint | undefined> {
    const last = Math.min(range.last, range.first + LOOK_MAX);
    for (let number = range.first; number <= last; number += 1) {
      const first = (await this.summary(history, number))?.first;
      if (first !== undefined) return first;
    }
    return undefined;
  }

  /** Whether a commit in `range` may remove files: false only where the index knows of all. */
  async mayRemove(history: TimelineHistory, range: SegmentRun): Promise<boolean> {
    for (const number of numbersOf(range)) {
      const timeline = segmentTimeline(history, number, this.#view.segmentBytes);
      const known = await this.#index.find(timeline, number);
      if (known?.isExact !== true || known.commits.removingCount > 0) return true;
    }
    return false;
  }

  /** Every commit and abort whose record ends in a segment of `range`, in the order of the WAL. */
  async *ends(
    history: TimelineHistory,
    range: SegmentRun,
  ): AsyncGenerator<{ readonly end: PlacedEnd; readonly timeline: number }, void, undefined> {
    const pending: { readonly end: PlacedEnd; readonly timeline: number }[] = [];
    // The one before gives what its last record began.
    const numbers = [...numbersOf({ first: range.first - 1, last: range.last })];
    const options = {
      ...this.#readerOptions(),
      onEnd: (end: PlacedEnd, { timeline, number }: SegmentObject) => {
        if (number >= range.first) pending.push({ end, timeline });
      },
    };
    for await (const reading of readSegments(
      this.#storage,
      this.#objects(history, numbers),
      options,
    )) {
      this.#options.onBytes?.(reading.readBytes);
      await this.#note(reading);
      yield* pending.splice(0);
    }
  }

  /** The unfinished segment behind the last whole one, if a restore would be given it. */
  async partialCommits(
    history: TimelineHistory,
    number: number,
  ): Promise<CommitSummary | undefined> {
    const { segmentBytes } = this.#view;
    const { timeline } = history;
    const name = formatSegmentName(timeline, BigInt(number), segmentBytes);
    const search = await findUsablePartial(this.#storage, name, this.#options);
    if (search.kind !== "usable") return undefined;
    const object = { name: `${name}.partial`, timeline, number, stored: search.stored };
    const reading = await this.#readOne(history, object);
    return reading?.fault === undefined ? reading?.commits : undefined;
  }

  /** The whole segment, in whatever compression; undefined if the listing has none. */
  objectOf(timeline: number, number: number): SegmentObject | undefined {
    const { segmentBytes } = this.#view;
    const stored = findSegment(this.#catalogue, { timeline, number, segmentBytes });
    if (stored === undefined) return undefined;
    return {
      name: formatSegmentName(timeline, BigInt(number), segmentBytes),
      timeline,
      number,
      stored,
    };
  }

  async #readOne(
    history: TimelineHistory,
    object: SegmentObject,
  ): Promise<SegmentReading | undefined> {
    const alone = await this.#readLast([object]);
    if (alone === undefined || alone.isExact || alone.fault !== undefined) return alone;
    const { segmentBytes } = this.#view;
    const before = segmentTimeline(history, object.number - 1, segmentBytes);
    const previous = object.number === 0 ? undefined : this.objectOf(before, object.number - 1);
    return previous === undefined ? alone : await this.#readLast([previous, object]);
  }

  async #readLast(objects: readonly SegmentObject[]): Promise<SegmentReading | undefined> {
    let last: SegmentReading | undefined;
    for await (const reading of readSegments(
      this.#storage,
      iterate(objects),
      this.#readerOptions(),
    )) {
      this.#options.onBytes?.(reading.readBytes);
      last = reading;
      await this.#note(reading);
    }
    return last;
  }

  async #note({ object, commits, isExact, stored, fault }: SegmentReading): Promise<void> {
    if (fault !== undefined || object.name.endsWith(".partial")) return;
    const { timeline, number, name } = object;
    const entry = { segment: name, commits, isExact, key: object.stored.key, stored };
    await this.#index.note(timeline, number, entry);
  }

  async *#objects(
    history: TimelineHistory,
    numbers: readonly number[],
  ): AsyncGenerator<SegmentObject> {
    for (const number of numbers) {
      if (number < 0) continue;
      const timeline = segmentTimeline(history, number, this.#view.segmentBytes);
      const object = this.objectOf(timeline, number);
      if (object !== undefined) yield object;
    }
  }

  #readerOptions() {
    const { segmentBytes } = this.#view;
    return { ...this.#options, segmentBytes, hashers: this.#hashers };
  }
}

function* numbersOf({ first, last }: SegmentRun): Generator<number> {
  for (let number = first; number <= last; number += 1) yield number;
}

async function* iterate<T>(items: readonly T[]): AsyncGenerator<T> {
  yield* items;
}

/** By halving: the rows are in the order of their keys. */
function findSegment(
  { wal }: Catalogue,
  { timeline, number, segmentBytes }: { timeline: number; number: number; segmentBytes: number },
): StoredWal | undefined {
  const range = wal.timelineRanges().find((rows) => rows.timeline === timeline);
  if (range === undefined) return undefined;
  const high = Math.floor(number / segmentsPerHigh(segmentBytes));
  const low = number % segmentsPerHigh(segmentBytes);
  let from = range.start;
  let to = range.end;
  while (from < to) {
    const middle = Math.floor((from + to) / 2);
    const isBefore =
      wal.highAt(middle) < high || (wal.highAt(middle) === high && wal.lowAt(middle) < low);
    if (isBefore) from = middle + 1;
    else to = middle;
  }
  for (let row = from; row < range.end; row += 1) {
    if (wal.highAt(row) !== high || wal.lowAt(row) !== low) return undefined;
    if (wal.kindAt(row) !== "segment") continue;
    return { key: wal.keyAt(row), extension: wal.extensionAt(row) };
  }
  return undefined;
}
