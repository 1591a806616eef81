import { dirname } from "node:path";
import { FormatError, NotInArchiveError, type OperationError } from "../errors.ts";
import type { ByteStream } from "../io/bytes.ts";
import { writeFileDurably } from "../io/durable.ts";
import type { Log } from "../io/log.ts";
import { ReadAhead } from "../io/read-ahead.ts";
import { walKey } from "../layout/keys.ts";
import type { CallOptions, Storage } from "../storage/storage.ts";
import type { OpenRecord } from "../postgres/wal-record-scan.ts";
import { type Lsn, lsn } from "../postgres/lsn.ts";
import type { WalWalk } from "../postgres/wal-record.ts";
import type { SegmentHeader } from "../postgres/wal-segment.ts";
import { judgeAbsence } from "./absence.ts";
import { readArchiveMemory, rememberArchive } from "./cache.ts";
import { breakText, checkedWal, RecordFollower } from "./checked-wal.ts";
import { type DeadlineScope, withinDeadline } from "./deadline.ts";
import { removeStaleTemporaries, resolveDestination } from "./destination.ts";
import { requireNoMoreInPlace } from "./local-end.ts";
import { readControlAround, readOpenRecord, readRecoveryStart } from "./local-wal.ts";
import { movingStorage } from "./moving-storage.ts";
import { findUsablePartial, readPartial } from "./partial.ts";
import { findContinuation, READ_AHEAD_HINT } from "./stored-gaps.ts";
import { type Land, StoredCopies } from "./stored-copies.ts";
import { requireCodec, type StoredWal } from "./stored-wal.ts";
import { judgeNewBeginning } from "./wal-reset.ts";

export interface FetchOptions extends CallOptions {
  readonly codecJobs: number;
  /** What is kept here saves requests and may be lost. */
  readonly cacheDirectory: string;
  /** For the whole fetch. */
  readonly timeoutMs: number;
  /**
   * Unless false: follow the records of a segment, and take a chain that breaks off for damage;
   * where the compression has a checksum of the content, so that it was stored like that, only if
   * the archive proves that there was more.
   */
  readonly checkRecords?: boolean;
  /**
   * Unless false: where the archive ends with an unfinished segment, that one is given, by the rule
   * in RECEIVE.md. Never for a segment that nobody has asked for yet.
   */
  readonly usePartial?: boolean;
  /**
   * Unless true: a segment that is missing, or ends early, while there is WAL behind it is not
   * taken for the end of the archive, nor a missing history for the end of timelines.
   */
  readonly canEndAtHole?: boolean;
  /** Told once, when the first bytes of an object of that name are here. */
  readonly onFound?: () => void;
  readonly log: Log;
}

/** For a segment that nobody has asked for yet. */
export interface AheadOptions extends Omit<FetchOptions, "checkRecords" | "usePartial"> {
  /** Of the data directory that the segment is for. */
  readonly systemId: bigint;
  /** Where it is written before it has its name, on the same file system. */
  readonly temporaryPath: string;
  /**
   * What the segment before leaves open, as far as that is known. `isProof`: nothing else proves
   * the first record, so that it is worth waiting for.
   */
  readonly findOpenRecord: (
    header: SegmentHeader,
    isProof: boolean,
  ) => Promise<OpenRecord | undefined>;
  /** Told what this segment leaves open, before the file has its name. */
  readonly onOpenRecord: (openRecord: OpenRecord | undefined) => void;
  /** Resolves when it may land: be decoded, checked and written. It is downloaded before. */
  readonly waitForTurn: (options: CallOptions) => Promise<void>;
  /** Told when it is decoded, checked and written: another one may land while it is fsynced. */
  readonly onLanded: () => void;
}

/** Of each segment that waits for its turn to land: as much as most have when compressed. */
const DOWNLOADED_BYTES_MAX = 8 * 1024 * 1024;
/** An unfinished segment may be completed, and its object removed, under our hands. */
export const PARTIAL_ATTEMPTS = 2;
const DAMAGE_HINT =
  "It was read twice, and nothing was written to the destination. Do not let the server go " +
  "on without this WAL file: it holds changes. Look for another copy (another repository, " +
  "an older version of the object, pg_wal of a standby or of the old server); without one, " +
  "recover to a point before it. Where it only ends too early, WALNUT_FETCH_END_AT_HOLE=true " +
  `opens the database as it was there. ${READ_AHEAD_HINT}`;

/**
 * Brings the WAL file `name` to `destination`, whole, checked and durable, or not at all; what was
 * there before is replaced. ARCHIVE.md tells the whole story.
 *
 * Rejects with NotInArchiveError only when the store holds a repository, has listed its objects and
 * none is this file's or, of a segment, a later one's, of a history, its timeline's or a newer
 * one's; else with RefusedError; with
 * DamagedError when there is an object that is not what its name says; with DeadlineError.
 */
export async function fetchWal(
  storage: Storage,
  name: string,
  destination: string,
  options: FetchOptions,
): Promise<void> {
  await withinDeadline(options, async (scope) => {
    scope.begin(`preparing ${destination}`);
    const path = await resolveDestination(destination);
    await removeStaleTemporaries(path);
    const control = await readControlAround(destination);
    const { systemId, timeline, walSegmentBytes: segmentBytes } = control ?? {};
    const recoveryStart = () => readRecoveryStart(destination);
    const wanted = { name, path, systemId, timeline, segmentBytes, recoveryStart };
    await new Fetch(movingStorage(storage, scope), wanted, options, scope).run();
  });
}

/**
 * Like fetchWal, for a segment that may be asked for soon: its records are followed whatever its
 * compression, a `.partial` is never taken for it, and NotInArchiveError is no proof of anything.
 */
export async function fetchWalAhead(
  storage: Storage,
  name: string,
  path: string,
  ahead: AheadOptions,
): Promise<void> {
  const { systemId } = ahead;
  await withinDeadline(ahead, async (scope) => {
    const options = { ...ahead, usePartial: false };
    const wanted = { name, path, systemId, ahead };
    await new Fetch(movingStorage(storage, scope), wanted, options, scope).run();
  });
}

interface Wanted {
  readonly name: string;
  /** Final path. */
  readonly path: string;
  /** Of the data directory that the file goes to. */
  readonly systemId: bigint | undefined;
  /** Of its last checkpoint. */
  readonly timeline?: number | undefined;
  /** wal_segment_size of that data directory. */
  readonly segmentBytes?: number | undefined;
  /** Asks it where its recovery begins. */
  readonly recoveryStart?: () => Promise<Lsn | undefined>;
  /** Absent for a file that was asked for. */
  readonly ahead?: Pick<
    AheadOptions,
    "temporaryPath" | "findOpenRecord" | "onOpenRecord" | "waitForTurn" | "onLanded"
  >;
}

class Fetch {
  readonly #storage: Storage;
  readonly #wanted: Wanted;
  readonly #options: FetchOptions;
  readonly #scope: DeadlineScope;
  readonly #copies: StoredCopies;
  #isFound = false;

  constructor(storage: Storage, wanted: Wanted, options: FetchOptions, scope: DeadlineScope) {
    this.#storage = storage;
    this.#wanted = wanted;
    this.#options = options;
    this.#scope = scope;
    const { log } = options;
    this.#copies = new StoredCopies(storage, wanted.name, { scope, damageHint: DAMAGE_HINT, log });
  }

  async run(): Promise<void> {
    const { cacheDirectory, log } = this.#options;
    const place = { directory: cacheDirectory, storageName: this.#storage.name, log };
    const memory = await readArchiveMemory(place);

    const likelyExtension = memory.fetchExtension ?? memory.pushExtension;
    for (let attempt = 1; ; attempt++) {
      const found = await this.#takeFirstWhole(likelyExtension);
      if (found !== undefined) {
        await rememberArchive(place, memory, { fetchExtension: found.extension });
        return;
      }
      if (await this.#takePartial({ isLastAttempt: attempt === PARTIAL_ATTEMPTS })) return;
    }
  }

  /**
   * The usual case is one request: the extension is that of the last file. Undefined when there is
   * only an unfinished segment.
   */
  async #takeFirstWhole(likelyExtension: string | undefined): Promise<StoredWal | undefined> {
    const { name } = this.#wanted;
    if (likelyExtension !== undefined) {
      const likely = { key: walKey(name, likelyExtension), extension: likelyExtension };
      if (await this.#copies.take(likely, this.#land)) return likely;
      if (this.#wanted.ahead !== undefined && this.#copies.failure === undefined) {
        throw new NotInArchiveError(`object ${likely.key} is not in ${this.#storage.name}`);
      }
    }

    const likelyKey = likelyExtension === undefined ? undefined : walKey(name, likelyExtension);
    const { taken, partial } = await this.#copies.takeListed(this.#land, likelyKey);
    if (taken !== undefined) return taken;
    if (partial.length > 0 && this.#options.usePartial !== false) return undefined;
    throw await this.#notInArchive();
  }

  /** False when it is gone, because the whole segment has come: then that one is to be taken. */
  async #takePartial({ isLastAttempt }: { readonly isLastAttempt: boolean }): Promise<boolean> {
    const { name, path, systemId } = this.#wanted;
    const { codecJobs, log } = this.#options;
    const { signal } = this.#scope;
    this.#scope.begin(`looking around ${name}.partial in ${this.#storage.name}`);
    const search = await findUsablePartial(this.#storage, name, { signal });
    if (search.kind === "unusable") {
      throw await this.#notInArchive(`; ${search.key} is not used: ${search.reason}`);
    }
    if (search.kind === "usable") {
      const { stored } = search;
      const onEnd = (endLsn: Lsn) => requireNoMoreInPlace(path, { name, endLsn }, { signal });
      const options = { codecJobs, signal, systemId, onEnd };
      const isLanded = await this.#copies.take(stored, (storage) =>
        writeFileDurably(path, readPartial(storage, { name, stored }, options), { signal }),
      );
      if (isLanded) {
        log.info("unfinished segment fetched", { wal: name, key: stored.key });
        return true;
      }
      if (this.#copies.failure !== undefined) throw this.#copies.failure;
    }
    if (isLastAttempt) throw await this.#notInArchive();
    return false;
  }

  async #notInArchive(more = ""): Promise<OperationError> {
    const { name, ahead } = this.#wanted;
    const place = this.#storage.name;
    if (ahead !== undefined) {
      return new NotInArchiveError(`WAL file ${name} is not in the archive ${place}`);
    }
    this.#scope.begin(`looking for a repository in ${place}`);
    const { canEndAtHole } = this.#options;
    const { signal } = this.#scope;
    const absence = await judgeAbsence(this.#storage, this.#wanted, { canEndAtHole, signal });
    return (
      absence ?? new NotInArchiveError(`WAL file ${name} is not in the archive ${place}${more}`)
    );
  }

  readonly #land: Land = async (storage, stored) => {
    const { name, path, systemId, ahead } = this.#wanted;
    const { codecJobs, checkRecords = true } = this.#options;
    const { signal } = this.#scope;
    const codec = requireCodec(storage, stored);
    const object = this.#announced(storage.get(stored.key, { signal }));
    await using download =
      ahead === undefined
        ? undefined
        : new ReadAhead(object, { bytesMax: DOWNLOADED_BYTES_MAX, signal });
    await ahead?.waitForTurn({ signal });
    const content = codec.decompress(download?.bytes() ?? object, { jobs: codecJobs, signal });
    const isProof = !codec.hasContentChecksum;
    const records = new RecordFollower();
    const checked = checkedWal(content, {
      name,
      records,
      systemId,
      mustCheckRecords: ahead !== undefined || checkRecords,
      onBeginning: (header) => this.#allowBeginning(header),
      findOpenRecord: async (header) => {
        if (ahead !== undefined) return await ahead.findOpenRecord(header, isProof);
        return isProof ? await readOpenRecord(dirname(path), header, { signal }) : undefined;
      },
      ...(isProof || ahead !== undefined ? {} : { onBreak: (walk) => this.#allowEnd(walk) }),
      onOpenRecord: (openRecord) => ahead?.onOpenRecord(openRecord),
    });
    await writeFileDurably(path, checked, {
      signal,
      alongside: records.follow,
      // After a power cut nobody looks for what was fetched ahead.
      ...(ahead === undefined
        ? {}
        : {
            temporaryPath: ahead.temporaryPath,
            isNameDurable: false,
            isBlocking: true,
            onWritten: ahead.onLanded,
          }),
    });
  };

  async #allowBeginning({ startLsn }: SegmentHeader): Promise<void> {
    const { name, ahead, recoveryStart } = this.#wanted;
    const refusal = judgeNewBeginning({
      name,
      startLsn,
      place: this.#storage.name,
      recoveryStart: await recoveryStart?.(),
      isAhead: ahead !== undefined,
      canEndAtHole: this.#options.canEndAtHole === true,
    });
    if (refusal !== undefined) throw refusal;
  }

  /**
   * The object is as it was stored, and its records break off: so ends a segment that was archived
   * before it was full. Rejects with FormatError if it can't be the end of the archive.
   */
  async #allowEnd(walk: WalWalk): Promise<void> {
    const { name, path } = this.#wanted;
    const place = {
      segment: name,
      name,
      endLsn: lsn(walk.header.startLsn + BigInt(walk.endOfRecords)),
    };
    if (this.#options.canEndAtHole !== true) {
      this.#scope.begin(`looking behind ${name} in ${this.#storage.name}`);
      const more = await findContinuation(this.#storage, place, this.#scope);
      if (more !== undefined) throw new FormatError(`${breakText(name, walk)}; ${more}`);
    }
    await requireNoMoreInPlace(path, place, this.#scope);
    const reason = breakText(name, walk);
    this.#options.log.warning("recovery ends in this segment", { wal: name, reason });
  }

  async *#announced(object: ByteStream): ByteStream {
    for await (const chunk of object) {
      if (!this.#isFound) this.#options.onFound?.();
      this.#isFound = true;
      yield chunk;
    }
  }
}
