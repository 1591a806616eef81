import { DamagedError, FormatError, TruncatedError } from "../errors.ts";
import { nodeCrypto } from "../io/builtin.ts";
import { type ByteStream, counted } from "../io/bytes.ts";
import { WalWalker } from "../postgres/wal-record.ts";
import type { Storage } from "../storage/storage.ts";
import { type LocalWal, readLocalWal } from "./local-wal.ts";
import { type PartialRelation, relatePartial } from "./partial-relation.ts";
import { type ReadStoredOptions, requireCodec, type StoredWal } from "./stored-wal.ts";

/**
 * How an archived object relates to the local file of its name.
 *
 * - "same": it holds the same content; for a segment the same records, because what follows the
 *   last one has no meaning and differs between a primary and its standbys.
 * - "leftover": it is empty or cut off, and what there is of it is the same; or it is an earlier
 *   state of an unfinished segment.
 * - "different": both are there and they differ.
 */
export type Comparison =
  | { readonly kind: "same" }
  | { readonly kind: "leftover"; readonly storedBytes: number }
  | {
      readonly kind: "different";
      /** Offset of the first byte that differs; undefined where one is the beginning of the other. */
      readonly differsAt: number | undefined;
      readonly stored: Side;
      readonly local: Side;
    };

/** What one of two files was found to be. */
export interface Side {
  readonly sizeBytes: number;
  readonly sha256: string;
  /** Where its valid records end; undefined unless it is a segment. */
  readonly endOfRecords: number | undefined;
  /** As its header says; undefined unless it is a segment. */
  readonly systemId: bigint | undefined;
}

/**
 * Compares an archived object with the local file, both streamed. Rejects with DamagedError when
 * the object is neither whole nor just cut off.
 */
export async function compareWithStored(
  storage: Storage,
  { stored, local }: { readonly stored: StoredWal; readonly local: LocalWal },
  options: ReadStoredOptions,
): Promise<Comparison> {
  if (await isIdentical(storage, { stored, local }, options)) return { kind: "same" };
  const first = await readBothSoundly(storage, { stored, local }, options);
  if (first.kind !== "cut-off") {
    const verdict = judge(first, local);
    if (verdict.kind !== "different") return verdict;
    // A bit that was changed on its way is no collision: what is so in the store comes so again.
    const again = await readBoth(storage, { stored, local }, options);
    const isSteady = again.sides.stored.sha256 === first.sides.stored.sha256;
    if (isSteady || again.kind === "cut-off") return verdict;
    const second = judge(again, local);
    if (second.kind !== "different") return second;
    throw new DamagedError(
      `object ${stored.key} in ${storage.name} came with other content when it was read again`,
      { hint: "The way to the store changes bytes; nothing was overwritten. Try again." },
    );
  }
  if (first.isDifferent) return different(first);

  // An object is given up only on proof: the store says that these bytes are all of it, and a
  // second reading ends at the same place.
  const { sizeBytes } = await storage.stat(stored.key, { signal: options.signal });
  const second = await readBoth(storage, { stored, local }, options);
  const isProved =
    second.kind === "cut-off" &&
    first.storedBytes === sizeBytes &&
    second.storedBytes === sizeBytes &&
    !second.isDifferent;
  if (isProved) return { kind: "leftover", storedBytes: sizeBytes };
  if (second.kind !== "cut-off") return judge(second, local);
  throw new DamagedError(
    `object ${stored.key} in ${storage.name} ended after ${first.storedBytes} bytes, ` +
      `then after ${second.storedBytes} bytes; the store says it has ${sizeBytes}`,
    { hint: "The store does not answer reliably; nothing was overwritten. Try again." },
  );
}

/**
 * Whether both are there and the same to the last byte. A standby with archive_mode = always asks
 * this for every segment: it takes a third of the time of what the other answers need.
 */
async function isIdentical(
  storage: Storage,
  { stored, local }: { readonly stored: StoredWal; readonly local: LocalWal },
  { codecJobs, signal }: ReadStoredOptions,
): Promise<boolean> {
  const object = storage.get(stored.key, { signal });
  const codec = requireCodec(storage, stored);
  await using content = new StreamCursor(codec.decompress(object, { jobs: codecJobs, signal }));
  try {
    for await (const chunk of readLocalWal(local, { signal })) {
      for (let at = 0; at < chunk.length;) {
        const piece = await content.next(chunk.length - at);
        if (piece === undefined || firstDifference(piece, chunk, at) !== undefined) return false;
        at += piece.length;
      }
    }
    return (await content.next(1)) === undefined && !content.isCutOff;
  } catch (error) {
    if (error instanceof FormatError) return false;
    throw error;
  }
}

interface BothRead {
  readonly kind: "whole" | "cut-off";
  /** As stored, compressed. */
  readonly storedBytes: number;
  readonly differsAt: number | undefined;
  readonly isDifferent: boolean;
  /** Of a `.partial` that could be read to its end. */
  readonly relation: PartialRelation | undefined;
  readonly sides: { readonly stored: Side; readonly local: Side };
}

function judge(read: BothRead, local: LocalWal): Comparison {
  const { stored } = read.sides;
  if (read.relation !== undefined) return judgePartial(read, read.relation);
  if (read.isDifferent || stored.sizeBytes > local.sizeBytes) {
    return different(read);
  }
  if (stored.sizeBytes === local.sizeBytes) return { kind: "same" };
  // A compression without an end mark can't tell a cut-off object from a short one. A segment has
  // one size only; of other files a shorter one may be right.
  const isCutOff = isSegment(local) || stored.sizeBytes === 0;
  return isCutOff ? { kind: "leftover", storedBytes: read.storedBytes } : different(read);
}

function different({ differsAt, sides }: BothRead): Comparison {
  return { kind: "different", differsAt, ...sides };
}

/**
 * Copies of an unfinished segment may end at different places: wal-receive stores it as it grows,
 * the archiver of a promoted standby where that one took over. The one with more records stays.
 */
function judgePartial(read: BothRead, relation: PartialRelation): Comparison {
  const { sides, storedBytes } = read;
  const { stored, local } = sides;
  const isShorter =
    stored.sizeBytes < local.sizeBytes || (stored.endOfRecords ?? 0) < (local.endOfRecords ?? 0);
  if (relation === "different") return different(read);
  return relation === "covered" && isShorter ? { kind: "leftover", storedBytes } : { kind: "same" };
}

async function readBoth(
  storage: Storage,
  { stored, local }: { readonly stored: StoredWal; readonly local: LocalWal },
  { codecJobs, signal }: ReadStoredOptions,
): Promise<BothRead> {
  const codec = requireCodec(storage, stored);
  const packed = { bytes: 0 };
  const object = counted(storage.get(stored.key, { signal }), (count) => {
    packed.bytes += count;
  });
  await using content = new StreamCursor(codec.decompress(object, { jobs: codecJobs, signal }));
  const storedSide = new SideReader(local);
  const localSide = new SideReader(local);
  try {
    const differsAt = await readSideBySide(
      { stored: content, storedSide },
      { local: readLocalWal(local, { signal }), localSide },
    );
    const sides = { stored: storedSide.finish(), local: localSide.finish() };
    const kind = content.isCutOff ? "cut-off" : "whole";
    const isDifferent = differs({ differsAt, kind, ...sides });
    const relation =
      local.kind === "partial" && kind === "whole" ? relationOf(differsAt, sides) : undefined;
    // What is encrypted is longer as it is stored than what is read of it.
    const storedBytes = content.storedBytes ?? packed.bytes;
    return { kind, storedBytes, differsAt, isDifferent, relation, sides };
  } catch (error) {
    if (!(error instanceof FormatError)) throw error;
    throw new DamagedError(`object ${stored.key} in ${storage.name} is damaged: ${error.message}`, {
      cause: error,
      hint:
        "Nothing was overwritten. Keep a copy of the object, then delete it: PostgreSQL still has " +
        "the file and hands it over again.",
    });
  }
}

/** Damage is believed when it comes again. */
async function readBothSoundly(
  storage: Storage,
  pair: { readonly stored: StoredWal; readonly local: LocalWal },
  options: ReadStoredOptions,
): Promise<BothRead> {
  try {
    return await readBoth(storage, pair, options);
  } catch (error) {
    if (!(error instanceof DamagedError)) throw error;
    return await readBoth(storage, pair, options);
  }
}

function relationOf(
  differsAt: number | undefined,
  { stored, local }: BothRead["sides"],
): PartialRelation {
  if (stored.endOfRecords === undefined || stored.sizeBytes > local.sizeBytes) return "different";
  const isCutOff = stored.sizeBytes < local.sizeBytes;
  return relatePartial({
    differsAt: differsAt ?? (isCutOff ? stored.sizeBytes : undefined),
    storedEnd: stored.endOfRecords,
    otherEnd: local.endOfRecords ?? 0,
  });
}

/** Whether two contents differ before their end, for segments before the end of their records. */
function differs({
  differsAt,
  kind,
  stored,
  local,
}: {
  readonly differsAt: number | undefined;
  readonly kind: BothRead["kind"];
  readonly stored: Side;
  readonly local: Side;
}): boolean {
  if (differsAt === undefined) return false;
  if (local.endOfRecords === undefined || differsAt < local.endOfRecords) return true;
  return kind === "whole" && stored.endOfRecords !== local.endOfRecords;
}

/** Reads both to their ends; gives the offset of the first byte that differs. */
async function readSideBySide(
  { stored, storedSide }: { readonly stored: StreamCursor; readonly storedSide: SideReader },
  { local, localSide }: { readonly local: ByteStream; readonly localSide: SideReader },
): Promise<number | undefined> {
  let differsAt: number | undefined;
  for await (const chunk of local) {
    let at = 0;
    while (at < chunk.length) {
      const piece = await stored.next(chunk.length - at);
      if (piece === undefined) break;
      const difference = differsAt === undefined ? firstDifference(piece, chunk, at) : undefined;
      if (difference !== undefined) differsAt = storedSide.sizeBytes + difference;
      storedSide.take(piece);
      at += piece.length;
    }
    localSide.take(chunk);
  }
  for (;;) {
    const piece = await stored.next(Number.POSITIVE_INFINITY);
    if (piece === undefined) return differsAt;
    storedSide.take(piece);
  }
}

/** Offset in `piece` of the first byte that is not the one in `chunk` from `at` on. */
function firstDifference(piece: Uint8Array, chunk: Uint8Array, at: number): number | undefined {
  if (Buffer.compare(piece, chunk.subarray(at, at + piece.length)) === 0) return undefined;
  return piece.findIndex((byte, index) => byte !== chunk[at + index]);
}

/** Takes a stream in pieces of at most the length asked for. */
class StreamCursor implements AsyncDisposable {
  /** The stream ended before it was complete. */
  isCutOff = false;
  /** How much was stored of a stream that was cut off, where it tells. */
  storedBytes: number | undefined;
  readonly #iterator: AsyncIterator<Uint8Array>;
  #chunk: Uint8Array = new Uint8Array();

  constructor(stream: ByteStream) {
    this.#iterator = stream[Symbol.asyncIterator]();
  }

  /** Undefined at the end. The piece is valid until the next call. */
  async next(maxBytes: number): Promise<Uint8Array | undefined> {
    while (this.#chunk.length === 0) {
      if (!(await this.#advance())) return undefined;
    }
    const piece = this.#chunk.subarray(0, maxBytes);
    this.#chunk = this.#chunk.subarray(piece.length);
    return piece;
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.#iterator.return?.();
  }

  async #advance(): Promise<boolean> {
    if (this.isCutOff) return false;
    try {
      const next = await this.#iterator.next();
      if (next.done === true) return false;
      this.#chunk = next.value;
      return true;
    } catch (error) {
      if (!(error instanceof TruncatedError)) throw error;
      this.isCutOff = true;
      this.storedBytes = error.storedBytes;
      return false;
    }
  }
}

/** Sums up what is learned from one content while it passes. */
class SideReader {
  sizeBytes = 0;
  readonly #hash = nodeCrypto().createHash("sha256");
  #walker: WalWalker | undefined;

  /** `local` tells what both sides claim to be. */
  constructor(local: LocalWal) {
    if (isSegment(local)) this.#walker = new WalWalker(local.name);
  }

  take(chunk: Uint8Array): void {
    this.sizeBytes += chunk.length;
    this.#hash.update(chunk);
    this.#walk((walker) => walker.push(chunk));
  }

  finish(): Side {
    const walk = this.#walk((walker) => walker.finish());
    const sha256 = this.#hash.digest("hex");
    const { sizeBytes } = this;
    const systemId = walk?.header.systemId;
    return { sizeBytes, sha256, endOfRecords: walk?.endOfRecords, systemId };
  }

  /** A content that does not even begin like this segment has no records of it. */
  #walk<T>(step: (walker: WalWalker) => T): T | undefined {
    if (this.#walker === undefined) return undefined;
    try {
      return step(this.#walker);
    } catch (error) {
      if (!(error instanceof FormatError)) throw error;
      this.#walker = undefined;
      return undefined;
    }
  }
}

function isSegment({ kind }: LocalWal): boolean {
  return kind === "segment" || kind === "partial";
}
