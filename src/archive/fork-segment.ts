import { dirname } from "node:path";
import { FormatError, NotInArchiveError, type OperationError, RefusedError } from "../errors.ts";
import type { ByteStream } from "../io/bytes.ts";
import { writeFileDurably } from "../io/durable.ts";
import type { Log } from "../io/log.ts";
import { formatLsn, type Lsn, lsn } from "../postgres/lsn.ts";
import type { WalWalk } from "../postgres/wal-record.ts";
import { formatHistoryName } from "../postgres/wal-file.ts";
import { checkSegmentStart, SEGMENT_HEADER_BYTES } from "../postgres/wal-segment.ts";
import type { CallOptions, Storage } from "../storage/storage.ts";
import { judgeAbsence } from "./absence.ts";
import { breakText, checkedWal } from "./checked-wal.ts";
import { type DeadlineScope, withinDeadline } from "./deadline.ts";
import { removeStaleTemporaries, resolveDestination } from "./destination.ts";
import { PARTIAL_ATTEMPTS } from "./fetch.ts";
import type { ForkEnd } from "./fork-note.ts";
import { requireNoMoreInPlace } from "./local-end.ts";
import { readControlAround, readOpenRecord } from "./local-wal.ts";
import { movingStorage } from "./moving-storage.ts";
import { longestPartial, readPartial } from "./partial.ts";
import { type Land, StoredCopies } from "./stored-copies.ts";
import { isLeftByRetention, READ_AHEAD_HINT } from "./stored-gaps.ts";
import { readStoredWal, requireCodec, type StoredWal } from "./stored-wal.ts";

export interface ForkSegmentOptions extends CallOptions {
  readonly codecJobs: number;
  /** For the whole fetch. */
  readonly timeoutMs: number;
  /** Unless true: that the archive has less than up to the fork is not taken for its end. */
  readonly canEndAtHole?: boolean;
  readonly log: Log;
}

export interface ForkSegment {
  readonly name: string;
  readonly destination: string;
  readonly end: ForkEnd;
}

const DAMAGE_HINT =
  "Recovery needs it up to the fork of timelines: look for another copy, or wait until the " +
  "newer timeline's segment of this number is archived.";

/**
 * Brings what the archive has of a segment up to where recovery leaves its timeline, zeros behind
 * that, and durable: of the whole segment, or of an unfinished one. FETCH.md tells why.
 *
 * Rejects with NotInArchiveError when there is nothing before the fork, or pg_wal has more; with
 * RefusedError when the archive lacks something before it, with DamagedError when what is there
 * breaks off before it; with StorageError and DeadlineError.
 */
export async function fetchForkSegment(
  storage: Storage,
  segment: ForkSegment,
  options: ForkSegmentOptions,
): Promise<void> {
  const { destination } = segment;
  await withinDeadline(options, async (scope) => {
    scope.begin(`preparing ${destination}`);
    const path = await resolveDestination(destination);
    await removeStaleTemporaries(path);
    const control = await readControlAround(destination);
    const { systemId, walSegmentBytes: segmentBytes } = control ?? {};
    const wanted = { ...segment, path, systemId, segmentBytes };
    await new ForkFetch(movingStorage(storage, scope), wanted, options, scope).run();
  });
}

interface Wanted extends ForkSegment {
  /** Final path. */
  readonly path: string;
  /** Of the data directory that the file goes to. */
  readonly systemId: bigint | undefined;
  /** wal_segment_size of that data directory. */
  readonly segmentBytes: number | undefined;
}

class ForkFetch {
  readonly #storage: Storage;
  readonly #wanted: Wanted;
  readonly #options: ForkSegmentOptions;
  readonly #scope: DeadlineScope;
  readonly #copies: StoredCopies;

  constructor(storage: Storage, wanted: Wanted, options: ForkSegmentOptions, scope: DeadlineScope) {
    this.#storage = storage;
    this.#wanted = wanted;
    this.#options = options;
    this.#scope = scope;
    const { log } = options;
    this.#copies = new StoredCopies(storage, wanted.name, { scope, damageHint: DAMAGE_HINT, log });
  }

  async run(): Promise<void> {
    for (let attempt = 1; attempt <= PARTIAL_ATTEMPTS; attempt++) {
      const { taken, partial } = await this.#copies.takeListed(this.#landWhole);
      const found = taken ?? (await this.#takePartial(partial));
      if (found !== undefined) {
        const { name: wal, end } = this.#wanted;
        const endLsn = formatLsn(end.endLsn);
        this.#options.log.info("segment fetched up to its fork", { wal, key: found.key, endLsn });
        return;
      }
      if (partial.length === 0) break;
    }
    throw await this.#absence();
  }

  /** Undefined where there is none, or none any more. */
  async #takePartial(found: readonly StoredWal[]): Promise<StoredWal | undefined> {
    const { signal } = this.#scope;
    const stored = await longestPartial(this.#storage, this.#wanted.name, { found, signal });
    if (stored === undefined) return undefined;
    if (await this.#copies.take(stored, this.#landPartial)) return stored;
    if (this.#copies.failure !== undefined) throw this.#copies.failure;
    return undefined;
  }

  readonly #landWhole: Land = async (storage, stored) => {
    const { codecJobs } = this.#options;
    const { name, systemId, path } = this.#wanted;
    const { signal } = this.#scope;
    const { hasContentChecksum } = requireCodec(storage, stored);
    const content = checkedWal(readStoredWal(storage, stored, { codecJobs, signal }), {
      name,
      systemId,
      mustCheckRecords: true,
      findOpenRecord: async (header) =>
        hasContentChecksum ? undefined : await readOpenRecord(dirname(path), header, { signal }),
      onBreak: (walk) => this.#allowBreak(walk, hasContentChecksum),
    });
    await this.#write(content);
  };

  readonly #landPartial: Land = async (storage, stored) => {
    const { codecJobs } = this.#options;
    const { name, systemId } = this.#wanted;
    const { signal } = this.#scope;
    const onEnd = (endLsn: Lsn): Promise<void> => this.#allowEnd(endLsn);
    await this.#write(
      readPartial(storage, { name, stored }, { codecJobs, signal, systemId, onEnd }),
    );
  };

  async #write(content: ByteStream): Promise<void> {
    const { name, path, end } = this.#wanted;
    const { signal } = this.#scope;
    await writeFileDurably(path, zeroedFrom(content, name, end.endLsn), { signal });
  }

  /** What is behind the fork does not matter. Rejects with FormatError for what is before it. */
  async #allowBreak(walk: WalWalk, isAsStored: boolean): Promise<void> {
    const brokenAt = lsn(walk.header.startLsn + BigInt(walk.endOfRecords));
    if (brokenAt >= this.#wanted.end.endLsn) return;
    const isAllowed = isAsStored && this.#options.canEndAtHole === true;
    if (!isAllowed) throw new FormatError(breakText(this.#wanted.name, walk));
    await this.#allowEnd(brokenAt);
  }

  /**
   * What the archive has ends there. Rejects with NotInArchiveError if pg_wal has more; else with
   * RefusedError if something before the fork is missing: recovery would open without it.
   */
  async #allowEnd(endLsn: Lsn): Promise<void> {
    const { name, path, end } = this.#wanted;
    // What is in pg_wal behind the fork need not be kept.
    if (endLsn >= end.endLsn) return;
    await requireNoMoreInPlace(path, { name, endLsn }, this.#scope);
    if (!(await this.#canEndEarly())) throw this.#tooShort(endLsn);
    const hasUpTo = formatLsn(endLsn);
    this.#options.log.warning("recovery ends in this segment", { wal: name, hasUpTo });
  }

  /** Nothing of the segment is there. */
  async #absence(): Promise<OperationError> {
    const { name, path, systemId, end } = this.#wanted;
    const { signal } = this.#scope;
    this.#scope.begin(`looking for a repository in ${this.#storage.name}`);
    const absent = { name, systemId };
    const absence = await judgeAbsence(this.#storage, absent, { canEndAtHole: true, signal });
    if (absence !== undefined) return absence;
    const { startLsn } = end;
    const isNeeded = end.endLsn > startLsn + BigInt(SEGMENT_HEADER_BYTES);
    if (isNeeded && !(await this.#canEndEarly())) {
      await requireNoMoreInPlace(path, { name, endLsn: startLsn }, { signal });
      return this.#tooShort(startLsn);
    }
    return new NotInArchiveError(
      `WAL file ${name} is not in the archive ${this.#storage.name}, ` +
        `and timeline ${end.timeline} leaves its timeline at ${formatLsn(end.endLsn)}`,
    );
  }

  /**
   * Also where retention has removed what follows: PostgreSQL reads ahead of the end of an old
   * backup that was kept with no WAL but its own.
   */
  async #canEndEarly(): Promise<boolean> {
    if (this.#options.canEndAtHole === true) return true;
    const { name, end, segmentBytes } = this.#wanted;
    if (segmentBytes === undefined) return false;
    const segment = formatHistoryName(end.timeline).slice(0, 8) + name.slice(8);
    return await isLeftByRetention(this.#storage, { segment, segmentBytes }, this.#scope);
  }

  #tooShort(endLsn: Lsn): RefusedError {
    const { name, end } = this.#wanted;
    const has = endLsn > end.startLsn ? `up to ${formatLsn(endLsn)} only` : "not at all";
    return new RefusedError(
      `WAL segment ${name} is in the archive ${this.#storage.name} ${has}, ` +
        `but timeline ${end.timeline} leaves its timeline at ${formatLsn(end.endLsn)}`,
      {
        hint:
          "Recovery would end here and open the database without the commits before that. The first " +
          `segment of timeline ${end.timeline} brings them: SELECT pg_switch_wal() on the server ` +
          "that writes it, and ask again. Without that server look for the segment in pg_wal of " +
          "the old one and of standbys (`walnut backfill` brings it). To open the database as it " +
          `was before, set WALNUT_FETCH_END_AT_HOLE=true. ${READ_AHEAD_HINT}`,
      },
    );
  }
}

/** The same bytes as far as they are before `endLsn`. */
async function* zeroedFrom(content: ByteStream, name: string, endLsn: Lsn): ByteStream {
  const head = Buffer.alloc(SEGMENT_HEADER_BYTES);
  let position = 0;
  let keptBytes = SEGMENT_HEADER_BYTES;
  for await (const chunk of content) {
    if (position < head.length) head.set(chunk.subarray(0, head.length - position), position);
    if (position < head.length && position + chunk.length >= head.length) {
      keptBytes = Number(endLsn - checkSegmentStart(head, name).startLsn);
      if (keptBytes <= 0) throw new NotInArchiveError(`${name} begins where its timeline was left`);
    }
    const kept = chunk.subarray(0, Math.max(0, keptBytes - position));
    position += chunk.length;
    if (kept.length === chunk.length) {
      yield chunk;
      continue;
    }
    const zeroed = Buffer.alloc(chunk.length);
    zeroed.set(kept);
    yield zeroed;
  }
}
