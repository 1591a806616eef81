import { existsSync, watch } from "node:fs";
import { join } from "node:path";
import { isGivenUp } from "../archive/stored-gaps.ts";
import { untilAborted } from "../io/abort.ts";
import type { Clock } from "../io/clock.ts";
import { parseWalKey, WAL_FOLDER } from "../layout/keys.ts";
import { formatSegmentName } from "../postgres/wal-file.ts";
import type { Storage } from "../storage/storage.ts";

/** Segments `[first, last]` of one timeline. */
export interface SegmentRange {
  readonly timeline: number;
  readonly first: bigint;
  readonly last: bigint;
  readonly segmentBytes: number;
}

/**
 * What the server's archiver says of a segment; "unknown" while it has not said anything, "given
 * up" when it has recorded a gap instead (WALNUT_ARCHIVE_QUEUE_POLICY=drop).
 */
export type ArchiverState = "waiting" | "done" | "given up" | "unknown";

/** Oldest segment that the repository does not hold. */
export interface MissingSegment {
  readonly name: string;
  readonly archiver: ArchiverState;
}

export interface SegmentWaitOptions {
  readonly storage: Storage;
  /** pg_wal of the server; absent where that is on another host. */
  readonly walDirectory?: string | undefined;
  readonly clock: Clock;
  /** In all; 0 = without end. */
  readonly timeoutMs: number;
  /** Told now and then what is missing. */
  readonly onWaiting: (missing: MissingSegment) => void;
  readonly signal: AbortSignal;
}

const STATUS_DIRECTORY = "archive_status";
const FIRST_POLL_MS = 10;
const MAX_POLL_MS = 500;
/** While the archiver has not said "done", the repository is asked only this often. */
const UNASKED_MS = 5000;
const TELL_INTERVAL_MS = 10_000;

/**
 * Waits until the repository holds every segment of the range, under any extension. Gives undefined
 * then, or the oldest missing one when the time is up or it was given up. The server's
 * archive_status is watched to be quick; what counts is the repository.
 */
export async function waitForSegments(
  range: SegmentRange,
  options: SegmentWaitOptions,
): Promise<MissingSegment | undefined> {
  const { storage, walDirectory, clock, timeoutMs, signal } = options;
  using changes = new DirectoryChanges(walDirectory);
  const startMs = clock.monotonicMs();
  const pace = new WaitPace(clock, options.onWaiting);
  let { first } = range;
  let pollMs = FIRST_POLL_MS;
  let askedAtMs = Number.NEGATIVE_INFINITY;
  let seen: ArchiverState = "unknown";
  for (;;) {
    const changed = changes.next();
    const name = formatSegmentName(range.timeline, first, range.segmentBytes);
    const archiver = archiverState(walDirectory, name);
    const isDoneNow = archiver === "done" && seen !== "done";
    seen = archiver;
    const unaskedMs = archiver === "waiting" ? UNASKED_MS : pollMs;
    if (isDoneNow || clock.monotonicMs() - askedAtMs >= unaskedMs) {
      askedAtMs = clock.monotonicMs();
      const next = await firstMissing(storage, { ...range, first }, { signal });
      if (next === undefined) return undefined;
      if (next > first) {
        first = next;
        seen = "unknown";
        askedAtMs = Number.NEGATIVE_INFINITY;
        pollMs = FIRST_POLL_MS;
        continue;
      }
      if (await isGivenUp(storage, name, { signal })) return { name, archiver: "given up" };
    }
    const missing = { name, archiver };
    const waitedMs = clock.monotonicMs() - startMs;
    if (timeoutMs > 0 && waitedMs >= timeoutMs) return missing;
    pace.tell(missing);
    const leftMs = timeoutMs > 0 ? timeoutMs - waitedMs : pollMs;
    await earliest(changed, Math.min(pollMs, Math.max(leftMs, 1)), { clock, signal });
    pollMs = Math.min(pollMs * 2, MAX_POLL_MS);
  }
}

/** Resolves with `changed`, or after `ms`. */
async function earliest(
  changed: Promise<void>,
  ms: number,
  { clock, signal }: { readonly clock: Clock; readonly signal: AbortSignal },
): Promise<void> {
  const over = new AbortController();
  const sleeping = clock.sleep(ms, { signal: AbortSignal.any([signal, over.signal]) });
  sleeping.catch(() => {});
  try {
    await untilAborted(Promise.race([changed, sleeping]), signal);
  } finally {
    over.abort();
  }
}

/** A segment that is gone was archived before: the server removes no other. */
function archiverState(walDirectory: string | undefined, segment: string): ArchiverState {
  if (walDirectory === undefined) return "unknown";
  const mark = join(walDirectory, STATUS_DIRECTORY, segment);
  if (existsSync(`${mark}.ready`)) return "waiting";
  const isDone = existsSync(`${mark}.done`) || !existsSync(join(walDirectory, segment));
  return isDone ? "done" : "unknown";
}

/**
 * Number of the oldest segment of the range that is not stored; one listing, read as far as needed.
 */
async function firstMissing(
  storage: Storage,
  { timeline, first, last, segmentBytes }: SegmentRange,
  { signal }: { readonly signal: AbortSignal },
): Promise<bigint | undefined> {
  const nameOf = (segmentNumber: bigint) =>
    formatSegmentName(timeline, segmentNumber, segmentBytes);
  const prefix =
    first === last ? `${WAL_FOLDER}${nameOf(first)}` : `${WAL_FOLDER}${nameOf(first).slice(0, 8)}`;
  const startAfter =
    first > 0n && first !== last ? `${WAL_FOLDER}${nameOf(first - 1n)}` : undefined;
  const options = startAfter === undefined ? { signal } : { signal, startAfter };
  let wanted = first;
  for await (const { key, sizeBytes } of storage.list(prefix, options)) {
    const name = parseWalKey(key)?.name;
    // An empty object is what is left of a cut-off upload.
    if (name === undefined || sizeBytes === 0 || name < nameOf(wanted)) continue;
    if (name === nameOf(wanted)) {
      if (wanted === last) return undefined;
      wanted += 1n;
    } else if (name.length === nameOf(wanted).length) {
      break;
    }
  }
  return wanted;
}

/** Tells at each interval. */
class WaitPace {
  readonly #clock: Clock;
  readonly #onWaiting: (missing: MissingSegment) => void;
  #nextMs: number;

  constructor(clock: Clock, onWaiting: (missing: MissingSegment) => void) {
    this.#clock = clock;
    this.#onWaiting = onWaiting;
    this.#nextMs = clock.monotonicMs() + TELL_INTERVAL_MS;
  }

  tell(missing: MissingSegment): void {
    if (this.#clock.monotonicMs() < this.#nextMs) return;
    this.#nextMs = this.#clock.monotonicMs() + TELL_INTERVAL_MS;
    this.#onWaiting(missing);
  }
}

/**
 * Wakes early when names in archive_status change; only ever a hint, and none where it can't watch.
 */
class DirectoryChanges implements Disposable {
  readonly #close: () => void;
  #changed = Promise.withResolvers<void>();

  constructor(walDirectory: string | undefined) {
    this.#close =
      walDirectory === undefined ? () => {} : this.#watch(join(walDirectory, STATUS_DIRECTORY));
  }

  /** Resolves at the first change after this call. */
  next(): Promise<void> {
    return this.#changed.promise;
  }

  [Symbol.dispose](): void {
    this.#close();
  }

  #watch(directory: string): () => void {
    try {
      const watcher = watch(directory, { persistent: false }, () => {
        this.#changed.resolve();
        this.#changed = Promise.withResolvers();
      });
      watcher.on("error", () => {});
      return () => watcher.close();
    } catch {
      return () => {};
    }
  }
}
