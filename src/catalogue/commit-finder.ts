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
import {
  readSegments,
  type SegmentObject,
  type SegmentReaderOptions,
  type SegmentReading,
} from "./segment-reader.ts";
import { segmentTimeline } from "./wal-integrity.ts";
import type { SegmentRun } from "./segment-set.ts";
import type { WalView } from "./wal-view.ts";

export interface FinderOptions extends CallOptions {
  readonly jobs: number;
  readonly codecJobs: number;
  /** Told of the stored bytes that were read. */
  readonly onBytes?: (count: number) => void;
}

/** Segments that are looked at together at most: one first, then twice as many each time. */
const STEP_MAX = 64;
/** Segments in a row that can't be read, as without the key: then no commit is looked for. */
const UNREADABLE_MAX = 256;

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
    const known = await this.#indexed(history, number);
    if (known !== undefined) return known;
    const timeline = segmentTimeline(history, number, this.#view.segmentBytes);
    const object = this.objectOf(timeline, number);
    if (object === undefined) return undefined;
    const reading = await this.#readOne(history, object);
    return reading?.fault === undefined ? reading?.commits : undefined;
  }

  /**
   * The first segment on the way to a timeline, in the order of `numbers`, that has commits. What
   * the index does not know is read, several at the same time. Undefined if none has any, and where
   * too many in a row can't be read.
   */
  async nearestCommits(
    history: TimelineHistory,
    numbers: Iterable<number>,
  ): Promise<NumberedSummary | undefined> {
    let unreadable = 0;
    for (const step of growingSteps(numbers)) {
      const known = await this.#lookAt(history, step);
      for (const number of step) {
        const commits = known.get(number);
        if (commits?.last !== undefined) return { number, commits };
        unreadable = commits === undefined ? unreadable + 1 : 0;
        if (unreadable === UNREADABLE_MAX) return undefined;
      }
    }
    return undefined;
  }

  /** The last commit from `fromLsn` on in segments of `range`. */
  async lastCommit(
    history: TimelineHistory,
    range: SegmentRun,
    fromLsn: Lsn,
  ): Promise<CommitPoint | undefined> {
    const last = (await this.nearestCommits(history, downwards(range)))?.commits.last;
    return last !== undefined && last.lsn >= fromLsn ? last : undefined;
  }

  /** The first commit in segments of `range`. */
  async firstCommit(history: TimelineHistory, range: SegmentRun): Promise<CommitPoint | undefined> {
    return (await this.nearestCommits(history, numbersOf(range)))?.commits.first;
  }

  /** Whether a commit in `range` may remove files: false only where the index knows of all. */
  async mayRemove(history: TimelineHistory, range: SegmentRun): Promise<boolean> {
    for (const number of numbersOf(range)) {
      const known = await this.#indexed(history, number);
      if (known === undefined || known.removingCount > 0) return true;
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
    const onEnd = (end: PlacedEnd, { timeline, number }: SegmentObject): void => {
      if (number >= range.first) pending.push({ end, timeline });
    };
    for await (const _ of this.#readings(this.#objects(history, numbers), { onEnd })) {
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

  /** What the index knows for certain. */
  async #indexed(history: TimelineHistory, number: number): Promise<CommitSummary | undefined> {
    const timeline = segmentTimeline(history, number, this.#view.segmentBytes);
    const known = await this.#index.find(timeline, number);
    return known?.isExact === true ? known.commits : undefined;
  }

  /** Of these segments, at least up to the first that has commits. */
  async #lookAt(
    history: TimelineHistory,
    numbers: readonly number[],
  ): Promise<ReadonlyMap<number, CommitSummary>> {
    const found = new Map<number, CommitSummary>();
    const [single, ...others] = numbers;
    if (single !== undefined && others.length === 0) {
      const commits = await this.summary(history, single);
      return commits === undefined ? found : found.set(single, commits);
    }
    const unknown = new Set<number>();
    for (const number of numbers) {
      const known = await this.#indexed(history, number);
      if (known === undefined) unknown.add(number);
      else found.set(number, known);
      if (known?.last !== undefined) break;
    }
    // The one before gives what its last record began.
    const wanted = [...new Set([...unknown].flatMap((number) => [number - 1, number]))];
    const objects = this.#objects(
      history,
      wanted.toSorted((one, other) => one - other),
    );
    for await (const reading of this.#readings(objects)) {
      const { object, fault, commits } = reading;
      if (unknown.has(object.number) && fault === undefined) found.set(object.number, commits);
    }
    return found;
  }

  async *#readings(
    objects: AsyncIterable<SegmentObject>,
    more: Pick<SegmentReaderOptions, "onEnd"> = {},
  ): AsyncGenerator<SegmentReading, void, undefined> {
    const options = { ...this.#readerOptions(), ...more };
    for await (const reading of readSegments(this.#storage, objects, options)) {
      this.#options.onBytes?.(reading.readBytes);
      await this.#note(reading);
      yield reading;
    }
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
    for await (const reading of this.#readings(iterate(objects))) last = reading;
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

/** The commits of a segment, and its number. */
export interface NumberedSummary {
  readonly number: number;
  readonly commits: CommitSummary;
}

function* growingSteps(numbers: Iterable<number>): Generator<readonly number[]> {
  let step: number[] = [];
  let size = 1;
  for (const number of numbers) {
    step.push(number);
    if (step.length < size) continue;
    yield step;
    step = [];
    size = Math.min(size * 2, STEP_MAX);
  }
  if (step.length > 0) yield step;
}

function* downwards({ first, last }: SegmentRun): Generator<number> {
  for (let number = last; number >= first; number -= 1) yield number;
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
  for (let row = wal.firstRowOf(range, number, segmentBytes); row < range.end; row += 1) {
    if (wal.segmentNumberAt(row, segmentBytes) !== number) return undefined;
    if (wal.kindAt(row) !== "segment") continue;
    return { key: wal.keyAt(row), extension: wal.extensionAt(row) };
  }
  return undefined;
}
