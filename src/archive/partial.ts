import { FormatError, WrongClusterError } from "../errors.ts";
import type { ByteStream } from "../io/bytes.ts";
import { walKey } from "../layout/keys.ts";
import { formatLsn, type Lsn, lsn } from "../postgres/lsn.ts";
import { parseWalFileName } from "../postgres/wal-file.ts";
import { parseWalPageHeader, SHORT_HEADER_BYTES } from "../postgres/wal-page.ts";
import { type WalWalk, WalWalker } from "../postgres/wal-record.ts";
import type { SegmentHeader } from "../postgres/wal-segment.ts";
import type { CallOptions, ObjectKey, Storage } from "../storage/storage.ts";
import {
  listStoredWal,
  readStoredWal,
  type ReadStoredOptions,
  type StoredWal,
} from "./stored-wal.ts";
import { listForks, type TimelineFork } from "./timeline-forks.ts";

/** What the archive holds around an unfinished segment. */
export interface PartialFacts {
  /** Objects that hold the whole segment. */
  readonly complete: readonly ObjectKey[];
  /** An object of the same timeline with later WAL. */
  readonly later: ObjectKey | undefined;
  /** Timelines that left the segment's timeline, anywhere. */
  readonly forks: readonly TimelineFork[];
}

/** Answer to `findUsablePartial`. */
export type PartialSearch =
  /** The archive holds no `.partial` of this segment. */
  | { readonly kind: "none" }
  /** It does, but recovery must not read it; `reason` is a clause for people. */
  | { readonly kind: "unusable"; readonly key: ObjectKey; readonly reason: string }
  | { readonly kind: "usable"; readonly stored: StoredWal };

/**
 * Why recovery must not read an unfinished segment; undefined if it may: when the segment is the
 * last thing that the archive knows of the newest timeline there is. RECEIVE.md gives the reasons.
 */
export function partialObstacle({ complete, later, forks }: PartialFacts): string | undefined {
  const [whole] = complete;
  if (whole !== undefined) return `the whole segment is stored as ${whole}`;
  const [fork] = forks;
  if (fork !== undefined) {
    return `timeline ${fork.timeline} has left its timeline at ${formatLsn(fork.switchLsn)}`;
  }
  if (later !== undefined) return `there is later WAL of its timeline: ${later}`;
  return undefined;
}

/**
 * Looks for what recovery may read in the place of a segment that is not in the archive. `name` has
 * 24 digits; "none" for every other name. Asks the store three times or more only if there is a
 * `.partial`, else once.
 */
export async function findUsablePartial(
  storage: Storage,
  name: string,
  options: CallOptions,
): Promise<PartialSearch> {
  const file = parseWalFileName(name);
  if (file?.kind !== "segment") return { kind: "none" };
  const found = await listStoredWal(storage, `${name}.partial`, options);
  const [first] = found;
  if (first === undefined) return { kind: "none" };

  const complete = (await listStoredWal(storage, name, options)).map(({ key }) => key);
  const later = await findLater(storage, name, options);
  const forks = await listForks(storage, file.timeline, options);
  const reason = partialObstacle({ complete, later, forks });
  if (reason !== undefined) return { kind: "unusable", key: first.key, reason };
  const stored = (await longestPartial(storage, name, { ...options, found })) ?? first;
  return { kind: "usable", stored };
}

export interface ReadPartialOptions extends ReadStoredOptions {
  readonly systemId: bigint | undefined;
  /** Told where its records end, before the stream does; rejects if they must not end there. */
  readonly onEnd?: (endLsn: Lsn) => Promise<void>;
}

/**
 * The content as PostgreSQL wants a segment: of its full size, zeros behind what there is. The
 * stream ends without error only if its WAL ends like WAL that was cut off: rejects with
 * FormatError when it goes on behind a record that is damaged, or is not what its name says; with
 * WrongClusterError.
 */
export async function* readPartial(
  storage: Storage,
  { name, stored }: { readonly name: string; readonly stored: StoredWal },
  options: ReadPartialOptions,
): ByteStream {
  const check = new PartialCheck(name, options.systemId);
  let sizeBytes = 0;
  for await (const page of inSlices(readStoredWal(storage, stored, options))) {
    check.push(page, sizeBytes);
    sizeBytes += page.length;
    yield page;
  }
  const { header, endOfRecords } = check.finish(sizeBytes);
  const { segmentBytes } = header;
  await options.onEnd?.(lsn(header.startLsn + BigInt(endOfRecords)));
  const padding = new Uint8Array(SLICE_BYTES);
  while (sizeBytes < segmentBytes) {
    const chunk = padding.subarray(0, segmentBytes - sizeBytes);
    sizeBytes += chunk.length;
    yield chunk;
  }
}

/**
 * Where the records of a segment end that may not be full. Rejects with FormatError when there is
 * WAL behind that place: then a record is damaged.
 */
export async function walkUnfinished(content: ByteStream, name: string): Promise<WalWalk> {
  const check = new PartialCheck(name, undefined);
  let sizeBytes = 0;
  for await (const page of inSlices(content)) {
    check.push(page, sizeBytes);
    sizeBytes += page.length;
  }
  return check.finish(sizeBytes);
}

/** The size of nearly every WAL page; others are a power of two, too. */
const SLICE_BYTES = 8192;

/** Looks at an unfinished segment while it passes. */
class PartialCheck {
  readonly #name: string;
  readonly #systemId: bigint | undefined;
  readonly #walker: WalWalker;
  /** Of the last page that is one of this segment, behind the page where the records ended. */
  #goesOnAt: number | undefined;

  constructor(name: string, systemId: bigint | undefined) {
    this.#name = name;
    this.#systemId = systemId;
    this.#walker = new WalWalker(name);
  }

  /** `slice` begins at a multiple of SLICE_BYTES and is as long, but for the last one. */
  push(slice: Uint8Array, position: number): void {
    const { header } = this.#walker;
    if (this.#walker.isDone && header !== undefined) this.#lookBehindEnd(slice, position, header);
    else this.#walker.push(slice);
    if (header === undefined) this.#requireCluster();
    const segmentBytes = this.#walker.header?.segmentBytes ?? Number.POSITIVE_INFINITY;
    if (position + slice.length > segmentBytes) {
      throw new FormatError(`partial segment ${this.#name} has more than ${segmentBytes} bytes`);
    }
  }

  finish(sizeBytes: number): WalWalk {
    const walk = this.#walker.finish();
    // Behind a switch all pages are there, and empty.
    if (this.#goesOnAt !== undefined && walk.end === "invalid") {
      throw new FormatError(
        `unfinished segment ${this.#name} has a damaged record after byte ${walk.endOfRecords} ` +
          `(${walk.reason}), but WAL up to byte ${this.#goesOnAt} of ${sizeBytes}`,
      );
    }
    return walk;
  }

  #lookBehindEnd(slice: Uint8Array, position: number, header: SegmentHeader): void {
    const { pageBytes } = header;
    for (let at = 0; at + SHORT_HEADER_BYTES <= slice.length; at += pageBytes) {
      if ((position + at) % pageBytes !== 0) return;
      if (isPageOf(header, slice.subarray(at), position + at)) this.#goesOnAt = position + at;
    }
  }

  #requireCluster(): void {
    const systemId = this.#walker.header?.systemId;
    if (systemId === undefined || this.#systemId === undefined) return;
    if (systemId === this.#systemId) return;
    throw new WrongClusterError(
      `archived partial segment ${this.#name} is of cluster ${systemId}, ` +
        `the data directory of cluster ${this.#systemId}`,
      { hint: "restore_command reads the archive of another cluster: correct its prefix." },
    );
  }
}

/** Whether a page was written for this place: what was there before it has another address. */
function isPageOf(segment: SegmentHeader, page: Uint8Array, offset: number): boolean {
  try {
    const { magic, pageStart, timeline } = parseWalPageHeader(page);
    const isPlace = pageStart === segment.startLsn + BigInt(offset);
    return magic === segment.magic && isPlace && timeline <= segment.timeline;
  } catch (error) {
    if (error instanceof FormatError) return false;
    throw error;
  }
}

/** The first object of WAL behind the segment `name` on its timeline. */
export async function findLater(
  storage: Storage,
  name: string,
  options: CallOptions,
): Promise<ObjectKey | undefined> {
  const timelinePrefix = walKey(name.slice(0, 8), "");
  // "~" sorts behind all that belongs to this very segment.
  const startAfter = walKey(`${name}~`, "");
  for await (const { key } of storage.list(timelinePrefix, { ...options, startAfter })) {
    // WAL-G's delta files and metadata can be about segments that were never stored.
    const rest = key.slice(walKey("", "").length);
    if (/^[0-9A-F]{24}(\.[^/]*)?$/.test(rest) && !rest.endsWith(".json")) return key;
  }
  return undefined;
}

/**
 * Of objects of an unfinished segment the one that has most of it; undefined without any. WAL-G
 * leaves the old object when its compression method was changed in between.
 */
export async function longestPartial(
  storage: Storage,
  name: string,
  { found, signal }: CallOptions & { readonly found: readonly StoredWal[] },
): Promise<StoredWal | undefined> {
  if (found.length <= 1) return found[0];
  let best: { readonly stored: StoredWal; readonly endOfRecords: number } | undefined;
  for (const stored of found) {
    const walker = new WalWalker(name);
    const content = readStoredWal(storage, stored, { codecJobs: 1, signal });
    for await (const chunk of content) walker.push(chunk);
    const { endOfRecords } = walker.finish();
    if (best === undefined || endOfRecords > best.endOfRecords) best = { stored, endOfRecords };
  }
  return best?.stored;
}

/** The same bytes in slices of SLICE_BYTES; each is overwritten by the next one. */
async function* inSlices(stream: ByteStream): ByteStream {
  const slice = Buffer.alloc(SLICE_BYTES);
  let filled = 0;
  for await (const chunk of stream) {
    for (let at = 0; at < chunk.length;) {
      const piece = chunk.subarray(at, at + SLICE_BYTES - filled);
      slice.set(piece, filled);
      filled += piece.length;
      at += piece.length;
      if (filled < SLICE_BYTES) break;
      yield slice;
      filled = 0;
    }
  }
  if (filled > 0) yield slice.subarray(0, filled);
}
