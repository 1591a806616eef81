import type { Codec } from "../codec/codec.ts";
import { codecByExtension, vouchingCodec } from "../codec/table.ts";
import {
  ConflictError,
  FormatError,
  ObjectExistsError,
  ObjectNotFoundError,
  StorageError,
  WrongKeyError,
} from "../errors.ts";
import type { ByteSource } from "../io/bytes.ts";
import type { Log } from "../io/log.ts";
import { partiesText } from "../layout/collision-note.ts";
import { walKey } from "../layout/keys.ts";
import type { CallOptions, Storage } from "../storage/storage.ts";
import type { ChangeNotes } from "./change-notes.ts";
import { type ArchiveMemory, readArchiveMemory, rememberArchive } from "./cache.ts";
import { type Comparison, compareWithStored } from "./comparison.ts";
import { makeContentNote, requireContentOf } from "./content-note.ts";
import { type DeadlineOptions, type DeadlineScope, withinDeadline } from "./deadline.ts";
import { ensureRepositoryIdentity } from "./identity.ts";
import { inspectLocalWal, type LocalWal, readLocalWal } from "./local-wal.ts";
import { movingStorage } from "./moving-storage.ts";
import { isNeverFilled, settledAs } from "./left-timeline.ts";
import { findParties, type Parties, quarantine } from "./quarantine.ts";
import { listStoredWal, requireCodec, type StoredWal } from "./stored-wal.ts";
import { enterTimeline, type TimelineEntry } from "./timeline-entry.ts";
import { isStoredUnfinished } from "./unfinished-segment.ts";

/** Who else is to know what was pushed. */
export interface PushWitness {
  /** Notes what the file changed, once it is stored. */
  readonly changeNotes?: ChangeNotes | undefined;
  /** Told of each file that the store holds now. Must neither throw nor take time. */
  readonly onStored?: ((name: string) => void) | undefined;
}

export interface PushOptions extends DeadlineOptions, PushWitness {
  /** What a new object is compressed with. */
  readonly codec: Codec;
  /** In the codec's scale. */
  readonly level?: number | undefined;
  readonly codecJobs: number;
  /** What is kept here saves requests and may be lost. */
  readonly cacheDirectory: string;
  /** Whose WAL it is; two levels above the file unless given. Absolute. */
  readonly dataDirectory?: string | undefined;
  /** WALNUT_SERVER_NAME: who we are, where host and data directory can't tell. */
  readonly serverName?: string | undefined;
  readonly log: Log;
  /** Makes the object of the file, as the codec does; for callers that compress many at a time. */
  readonly pack?: ((local: LocalWal, options: CallOptions) => ByteSource) | undefined;
}

/**
 * How a push ended; in each case the store holds the whole file now, unless there was "nothing to
 * archive": a segment of a timeline that was left, which was never filled, or what a standby was given
 * of one that is not full yet (FAILOVER.md).
 */
export type PushOutcome =
  | "archived"
  | "already archived"
  | "leftover replaced"
  | "nothing to archive";

type Different = Extract<Comparison, { kind: "different" }>;

/** How often an object may appear and vanish again under our hands before we give up. */
const STORE_ATTEMPTS = 3;

/**
 * Archives one WAL file: `path` holds what PostgreSQL calls `name`. Resolves only when the store
 * has acknowledged the whole object, or holds the same content already; ARCHIVE.md tells the whole
 * story.
 *
 * Rejects with FormatError when the file is not what its name says, WrongClusterError and
 * RefusedError (another server writes this timeline) before anything is written, ConflictError when
 * the archive holds something else under this name, DamagedError when what it holds can't be read,
 * and DeadlineError.
 */
export async function pushWal(
  storage: Storage,
  wal: { readonly path: string; readonly name: string },
  options: PushOptions,
): Promise<PushOutcome> {
  const push = async (): Promise<PushOutcome> =>
    await withinDeadline(options, async (scope) => {
      scope.begin(`reading ${wal.path}`);
      const local = await inspectFilled(wal, options, scope);
      if (local === undefined) return "nothing to archive";
      return await new Push(movingStorage(storage, scope), local, options, scope).run();
    });
  const { changeNotes } = options;
  const outcome =
    changeNotes === undefined ? await push() : await changeNotes.around(wal, push, options);
  if (outcome !== "nothing to archive") options.onStored?.(wal.name);
  return outcome;
}

/** Undefined for what was never filled and never will be. */
async function inspectFilled(
  wal: { readonly path: string; readonly name: string },
  { dataDirectory }: PushOptions,
  options: CallOptions,
): Promise<LocalWal | undefined> {
  try {
    return await inspectLocalWal(wal, options);
  } catch (error) {
    if (!(error instanceof FormatError)) throw error;
    if (await isNeverFilled({ ...wal, dataDirectory })) return undefined;
    throw error;
  }
}

class Push {
  readonly #storage: Storage;
  readonly #local: LocalWal;
  readonly #options: PushOptions;
  readonly #scope: DeadlineScope;
  /** The object that we make; its extension is what the timeline's writer uses. */
  #own: StoredWal;

  constructor(storage: Storage, local: LocalWal, options: PushOptions, scope: DeadlineScope) {
    this.#storage = storage;
    this.#local = local;
    this.#options = options;
    this.#scope = scope;
    this.#own = this.#objectWith(options.codec.extension);
  }

  async run(): Promise<PushOutcome> {
    const { cacheDirectory, log } = this.#options;
    const place = { directory: cacheDirectory, storageName: this.#storage.name, log };
    const memory = await readArchiveMemory(place);
    const learned = await this.#requireOwnCluster(memory);

    const entry = await this.#enterTimeline(memory);
    const { kind } = this.#local;
    const extension = kind === "partial" ? vouchingExtension(entry.extension) : entry.extension;
    this.#own = this.#objectWith(extension);

    const isAlone = memory.pushExtension === extension && !entry.isShared;
    const isFollower = kind === "segment" && entry.isShared;
    const outcome = isAlone ? await this.#store() : await this.#storeAmongOthers(isFollower);

    // Other files are stored by rules of their own: the timeline's claim may say something else.
    const isSegment = kind === "segment" || (kind === "partial" && extension === entry.extension);
    const change = {
      ...learned,
      ...entry.learned,
      ...(isSegment ? { pushExtension: extension } : {}),
    };
    await rememberArchive(place, memory, change);
    if (kind === "history" || kind === "backup-label") {
      const { putContentSum } = await import("./content-sums.ts");
      const file = { local: this.#local, isNew: outcome !== "already archived" };
      this.#scope.begin(`storing the sum of ${this.#local.name} in ${this.#storage.name}`);
      await putContentSum(this.#storage, file, { signal: this.#scope.signal, log });
    }
    return outcome;
  }

  #objectWith(extension: string): StoredWal {
    return { key: walKey(this.#local.name, extension), extension };
  }

  async #enterTimeline(memory: ArchiveMemory): Promise<TimelineEntry> {
    const { codec, serverName, dataDirectory, log } = this.#options;
    const request = {
      local: this.#local,
      memory,
      extension: codec.extension,
      serverName,
      dataDirectory,
      log,
      pushHistory: async (wal: { readonly path: string; readonly name: string }) => {
        const history = await inspectLocalWal(wal, this.#scope);
        await new Push(this.#storage, history, this.#options, this.#scope).run();
      },
    };
    return await enterTimeline(this.#storage, request, this.#scope);
  }

  async #requireOwnCluster(memory: ArchiveMemory): Promise<ArchiveMemory> {
    const { systemId } = this.#local;
    if (systemId === undefined || systemId === memory.systemId) return {};
    this.#scope.begin(`asking ${this.#storage.name} which cluster it belongs to`);
    await ensureRepositoryIdentity(this.#storage, systemId, this.#scope);
    return { systemId };
  }

  /** The usual case: one request, which itself finds out whether the object is there. */
  async #store(): Promise<PushOutcome> {
    for (let attempt = 1; ; attempt++) {
      try {
        await this.#put({ ifAbsent: true });
        return "archived";
      } catch (error) {
        if (!(error instanceof ObjectExistsError)) throw error;
      }
      // Also where the answer to our own put was lost and a retry finds its object.
      const comparison = await this.#compare(this.#own);
      if (comparison === "same") return "already archived";
      if (comparison === "leftover") {
        await this.#put({ ifAbsent: false });
        return "leftover replaced";
      }
      if (attempt === STORE_ATTEMPTS) {
        throw new StorageError(
          `object ${this.#own.key} in ${this.#storage.name} was there and gone again ` +
            `${attempt} times`,
          { isRetryable: false, hint: "Does something else delete objects there right now?" },
        );
      }
    }
  }

  /** What a create-only put can't see: the same file under another extension. */
  async #storeAmongOthers(isFollower: boolean): Promise<PushOutcome> {
    const leftovers: string[] = [];
    const found = await this.#listStored();
    for (const stored of found) {
      if (stored.key === this.#own.key) continue;
      const comparison = await this.#compare(stored);
      if (comparison === "same") return "already archived";
      if (comparison === "leftover") leftovers.push(stored.key);
    }
    const isThere = found.some(({ key }) => key === this.#own.key);
    if (isFollower && !isThere && (await this.#isNotFull())) return "nothing to archive";
    const outcome = await this.#store();
    // Another server may have stored its own copy since: FAILOVER.md.
    for (const stored of await this.#listStored()) {
      const isNew = stored.key !== this.#own.key && !leftovers.includes(stored.key);
      if (isNew) await this.#compare(stored);
    }
    if (leftovers.length === 0) return outcome;
    // Only now is the whole file safe under our key.
    this.#scope.begin(`deleting ${leftovers.join(", ")} from ${this.#storage.name}`);
    await this.#storage.delete(leftovers, this.#scope);
    return "leftover replaced";
  }

  /** A standby was given what there is of it, and PostgreSQL hands it over once more. */
  async #isNotFull(): Promise<boolean> {
    const { codecJobs, dataDirectory } = this.#options;
    this.#scope.begin(`looking whether ${this.#local.path} is full`);
    const own = { local: this.#local, dataDirectory };
    return await isStoredUnfinished(this.#storage, own, { signal: this.#scope.signal, codecJobs });
  }

  async #listStored(): Promise<readonly StoredWal[]> {
    const { name } = this.#local;
    this.#scope.begin(`listing the objects of ${name} in ${this.#storage.name}`);
    return await listStoredWal(this.#storage, name, this.#scope);
  }

  async #put({ ifAbsent }: { readonly ifAbsent: boolean }): Promise<void> {
    this.#scope.begin(`storing ${this.#own.key} in ${this.#storage.name}`);
    const { signal } = this.#scope;
    // Whoever can't read what is stored could not compare it, should it be there already.
    const isNoted = this.#storage.isWriteOnly === true;
    const note = isNoted ? { note: await makeContentNote(this.#local, { signal }) } : {};
    await this.#storage.put(this.#own.key, this.#body(), { signal, ifAbsent, ...note });
  }

  #body(): ByteSource {
    const { codec: configured, level, codecJobs: jobs, pack } = this.#options;
    const { signal } = this.#scope;
    const isConfigured = this.#own.extension === configured.extension;
    if (pack !== undefined && isConfigured) return pack(this.#local, { signal });
    const codec = isConfigured ? configured : requireCodec(this.#storage, this.#own);
    const settings = { jobs, signal, ...(level === undefined || !isConfigured ? {} : { level }) };
    return {
      ...(codec.method === "none" ? { sizeBytes: this.#local.sizeBytes } : {}),
      isReopenable: true,
      open: () =>
        codec.compress(readLocalWal(this.#local, { signal, mustBeStill: true }), settings),
    };
  }

  /** Throws ConflictError for other content. */
  async #compare(stored: StoredWal): Promise<"same" | "leftover" | "gone"> {
    this.#scope.begin(`comparing ${stored.key} in ${this.#storage.name}`);
    const options = { codecJobs: this.#options.codecJobs, signal: this.#scope.signal };
    try {
      const pair = { stored, local: this.#local };
      const comparison = await compareWithStored(this.#storage, pair, options);
      if (comparison.kind !== "different") return comparison.kind;
      await this.#settle(stored, comparison);
      return "same";
    } catch (error) {
      if (error instanceof ObjectNotFoundError) return "gone";
      if (!(error instanceof WrongKeyError) || error.note === undefined) throw error;
      await requireContentOf(error.note, { stored, local: this.#local }, options);
      return "same";
    }
  }

  /** Throws ConflictError, unless what differs is behind the end of the timeline: FAILOVER.md. */
  async #settle({ key }: StoredWal, different: Different): Promise<void> {
    const { serverName, dataDirectory, log } = this.#options;
    const { name } = this.#local;
    const pair = { local: this.#local, different, dataDirectory };
    const settled = await settledAs(pair, this.#scope);
    if (settled === "covered") return;
    const server = { local: this.#local, serverName, dataDirectory };
    const parties = await findParties(this.#storage, server, this.#scope);
    this.#scope.begin(`keeping ${name} in quarantine in ${this.#storage.name}`);
    const keptAs = await quarantine(
      this.#storage,
      {
        local: this.#local,
        storedKey: key,
        sides: different,
        parties,
        extension: this.#own.extension,
        body: () => this.#body(),
      },
      { signal: this.#scope.signal, log },
    );
    if (settled === undefined || keptAs === undefined) {
      throw conflictError({ ...different, ...parties, key, name, keptAs }, this.#storage);
    }
    log.warning("WAL behind the end of its timeline was kept aside", { wal: name, keptAs });
  }
}

/** A changed bit in a partial's last record looks like the end of what there is of the segment. */
function vouchingExtension(extension: string): string {
  const codec = codecByExtension(extension);
  return codec === undefined ? extension : vouchingCodec(codec).extension;
}

function conflictError(
  collision: Different &
    Parties & {
      readonly name: string;
      readonly key: string;
      readonly keptAs: string | undefined;
    },
  storage: Storage,
): ConflictError {
  const { stored, local, name, key, keptAs, archivedBy, pushedBy } = collision;
  const ends =
    stored.endOfRecords === undefined || local.endOfRecords === undefined
      ? ""
      : `; valid records end at byte ${stored.endOfRecords} there, ${local.endOfRecords} here`;
  const kept = keptAs === undefined ? "" : ` This server's file is in quarantine, see ${keptAs}.`;
  const whose = partiesText({
    archivedSystemId: stored.systemId?.toString(),
    systemId: local.systemId?.toString(),
    archivedBy,
    pushedBy,
  });
  return new ConflictError(
    `WAL file ${name} is archived with other content as ${key} in ${storage.name} ` +
      `(archived sha256 ${stored.sha256.slice(0, 12)}, ` +
      `local sha256 ${local.sha256.slice(0, 12)}${ends}; ${whose})`,
    {
      hint:
        `Nothing was overwritten; PostgreSQL keeps its file.${kept} Either two servers archive into ` +
        "one prefix, or one was put back to an earlier state and went on without a new timeline. " +
        "docs/failover.md tells how to find out which one is right, and what to do then.",
    },
  );
}
