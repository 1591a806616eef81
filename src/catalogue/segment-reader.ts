import { readStoredWal, type StoredWal } from "../archive/stored-wal.ts";
import { ObjectNotFoundError, OperationError } from "../errors.ts";
import { type ByteStream, readChunks } from "../io/bytes.ts";
import { loadNativeCrc32c } from "../io/crc32c.ts";
import { freed } from "../io/freed.ts";
import type { Hasher } from "../io/hash.ts";
import { orderedJobs } from "../io/ordered.ts";
import { WalWalker, type WalWalk } from "../postgres/wal-record.ts";
import type { OpenRecord } from "../postgres/wal-record-scan.ts";
import {
  beginsAnew,
  SEGMENT_HEADER_BYTES,
  SEGMENT_START_BYTES,
  type SegmentHeader,
} from "../postgres/wal-segment.ts";
import type { CallOptions, Storage } from "../storage/storage.ts";
import { CommitScan, type CommitSummary, type PlacedEnd } from "./commit-scan.ts";
import { HasherPool } from "./hasher-pool.ts";
import { tappedStorage } from "./tapped-storage.ts";

/** One object that holds a segment. */
export interface SegmentObject {
  /** "X", or "X.partial". */
  readonly name: string;
  readonly timeline: number;
  readonly number: number;
  readonly stored: StoredWal;
}

/** What reading one segment to its end found. */
export interface SegmentReading {
  readonly object: SegmentObject;
  /** As stored: bytes and XXH64; undefined when the object could not be read to its end. */
  readonly stored: { readonly sizeBytes: number; readonly xxh64: string } | undefined;
  /** Of what is stored, as far as it was read. */
  readonly readBytes: number;
  readonly plainBytes: number;
  readonly header: SegmentHeader | undefined;
  readonly walk: WalWalk | undefined;
  /** Whether all bytes behind the last record are zeros. */
  readonly isTailEmpty: boolean;
  readonly commits: CommitSummary;
  /** Whether a record that the segment before began was followed, if there is one. */
  readonly isExact: boolean;
  /** Whether the WAL begins anew with it, as behind pg_resetwal. */
  readonly beginsAnew: boolean;
  /** Why the object could not be read as a segment. */
  readonly fault: string | undefined;
}

export interface SegmentReaderOptions extends CallOptions {
  /** Objects that are fetched and decompressed at the same time. */
  readonly jobs: number;
  readonly codecJobs: number;
  readonly segmentBytes: number;
  /** A new one unless given. */
  readonly hashers?: HasherPool;
  /** Told of every commit and abort, in the order of the WAL. */
  readonly onEnd?: (end: PlacedEnd, object: SegmentObject) => void;
}

/** Whole segments in memory at the same time are at most so many bytes, and one segment. */
const BUFFERED_BYTES_MAX = 96 * 1024 * 1024;
/** Of segments larger than this, none is held in memory: they are read one after the other. */
const BUFFERED_SEGMENT_MAX = 32 * 1024 * 1024;
const NO_COMMITS: CommitSummary = {
  count: 0,
  first: undefined,
  last: undefined,
  latestNs: undefined,
  removingCount: 0,
};

/**
 * Reads segments in the order in which they come; of neighbours, a record that the one begins is
 * followed into the next. What is wrong with an object is its `fault`; a store that fails rejects.
 */
export async function* readSegments(
  storage: Storage,
  objects: AsyncIterable<SegmentObject>,
  options: SegmentReaderOptions,
): AsyncGenerator<SegmentReading, void, undefined> {
  const reader = new Reader(storage, options);
  if (options.segmentBytes > BUFFERED_SEGMENT_MAX) {
    for await (const object of objects) {
      const load = await reader.open(object);
      yield await reader.walk(load);
    }
    return;
  }
  const fitting = Math.floor(BUFFERED_BYTES_MAX / options.segmentBytes / 2);
  const jobs = Math.max(1, Math.min(options.jobs, fitting));
  const fetch = async (object: SegmentObject) => reader.buffered(await reader.open(object));
  for await (const load of orderedJobs(objects, jobs, fetch, options)) {
    yield await reader.walk(load);
  }
}

/** An object on its way through us. */
interface Load {
  readonly object: SegmentObject;
  readonly content: ByteStream;
  readonly tap: Tap;
  /** Known when it was fetched before it is walked. */
  readonly fault?: string | undefined;
}

class Tap {
  sizeBytes = 0;
  readonly hasher: Hasher;

  constructor(hasher: Hasher) {
    this.hasher = hasher;
  }

  readonly onChunk = (chunk: Uint8Array): void => {
    this.sizeBytes += chunk.length;
    this.hasher.update(chunk);
  };
}

class Reader {
  readonly #storage: Storage;
  readonly #options: SegmentReaderOptions;
  readonly #hashers: HasherPool;
  /** What the last segment left open, and whose neighbour that is. */
  #open: { readonly timeline: number; readonly number: number; readonly record?: OpenRecord } = {
    timeline: 0,
    number: -1,
  };

  constructor(storage: Storage, options: SegmentReaderOptions) {
    this.#storage = storage;
    this.#options = options;
    this.#hashers = options.hashers ?? new HasherPool();
  }

  async open(object: SegmentObject): Promise<Load> {
    const { codecJobs, signal } = this.#options;
    const tap = new Tap(await this.#hashers.take("xxh64"));
    const tapped = tappedStorage(this.#storage, tap.onChunk);
    const content = lazily(() => readStoredWal(tapped, object.stored, { codecJobs, signal }));
    return { object, content, tap };
  }

  async buffered(load: Load): Promise<Load> {
    try {
      const chunks = await readChunks(load.content, this.#options.segmentBytes * 2);
      return { ...load, content: freed(once(...chunks)) };
    } catch (error) {
      const fault = this.#faultOf(error);
      return { ...load, content: once(), fault };
    }
  }

  async walk({ object, content, tap, fault: known }: Load): Promise<SegmentReading> {
    const { onEnd } = this.#options;
    const scan = new CommitScan((end) => onEnd?.(end, object));
    const before = this.#openBefore(object);
    const walker = new WalWalker(object.name, before, scan, await loadNativeCrc32c());
    const progress = new Walking(walker, scan);
    let fault = known;
    if (fault === undefined) {
      try {
        for await (const chunk of content) progress.push(chunk);
        progress.finish();
      } catch (error) {
        fault = this.#faultOf(error);
      }
    }
    const xxh64 = tap.hasher.digest();
    this.#hashers.give(tap.hasher);
    const record = fault === undefined ? walker.openRecord : undefined;
    this.#open = { ...object, ...(record === undefined ? {} : { record }) };
    const { walk, plainBytes, isTailEmpty } = progress;
    const isWhole = fault === undefined;
    return {
      object,
      stored: isWhole ? { sizeBytes: tap.sizeBytes, xxh64 } : undefined,
      readBytes: tap.sizeBytes,
      plainBytes,
      header: walker.header,
      walk,
      isTailEmpty,
      commits: isWhole ? scan.summary : NO_COMMITS,
      isExact: before !== undefined || walker.header?.continuationBytes === 0,
      beginsAnew: isWhole && progress.beginsAnew,
      fault,
    };
  }

  #openBefore({ timeline, number }: SegmentObject): OpenRecord | undefined {
    const { timeline: before, number: last, record } = this.#open;
    // Where a new timeline takes over, its first segment repeats the old one's: it begins alike.
    return before <= timeline && last === number - 1 ? record : undefined;
  }

  #faultOf(error: unknown): string {
    this.#options.signal.throwIfAborted();
    if (error instanceof RangeError) return error.message;
    if (error instanceof ObjectNotFoundError) return "it is gone";
    const isObjectFault =
      error instanceof OperationError &&
      ["format", "truncated", "damaged", "refused", "wrong-key"].includes(error.code);
    if (!isObjectFault) throw error;
    return error.message;
  }
}

/** A walk over one segment, with what is behind its records. */
class Walking {
  plainBytes = 0;
  walk: WalWalk | undefined;
  isTailEmpty = true;
  readonly #walker: WalWalker;
  readonly #scan: CommitScan;
  readonly #start = new Uint8Array(SEGMENT_START_BYTES);

  constructor(walker: WalWalker, scan: CommitScan) {
    this.#walker = walker;
    this.#scan = scan;
  }

  push(chunk: Uint8Array): void {
    const start = this.plainBytes;
    if (start < SEGMENT_START_BYTES) {
      this.#start.set(chunk.subarray(0, SEGMENT_START_BYTES - start), start);
    }
    this.plainBytes += chunk.length;
    if (this.walk !== undefined) return this.#lookBehind(chunk, 0);
    const headBytes = Math.min(Math.max(0, SEGMENT_HEADER_BYTES - start), chunk.length);
    if (headBytes > 0) {
      this.#walker.push(chunk.subarray(0, headBytes));
      const { header } = this.#walker;
      if (header !== undefined) this.#scan.begin(header);
    }
    this.#walker.push(chunk.subarray(headBytes));
    if (!this.#walker.isDone) return;
    this.walk = this.#walker.finish();
    this.#lookBehind(chunk, Math.max(0, this.walk.endOfRecords - start));
  }

  get beginsAnew(): boolean {
    const { header } = this.#walker;
    return header !== undefined && beginsAnew(this.#start, header);
  }

  finish(): void {
    this.walk ??= this.#walker.finish();
  }

  #lookBehind(chunk: Uint8Array, from: number): void {
    if (this.isTailEmpty && !isZero(chunk, from)) this.isTailEmpty = false;
  }
}

function isZero(bytes: Uint8Array, from: number): boolean {
  for (let at = from; at < bytes.length; at += 1) if (bytes[at] !== 0) return false;
  return true;
}

/** What opening throws comes when it is read. */
async function* lazily(open: () => ByteStream): ByteStream {
  yield* open();
}

async function* once(...chunks: readonly Uint8Array[]): ByteStream {
  yield* chunks;
}
