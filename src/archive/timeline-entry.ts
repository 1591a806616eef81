import { existsSync } from "node:fs";
import { dirname, join } from "node:path";
import { RefusedError } from "../errors.ts";
import type { Log } from "../io/log.ts";
import type { PgControl } from "../postgres/pg-control.ts";
import { formatHistoryName, parseWalFileName } from "../postgres/wal-file.ts";
import type { Storage } from "../storage/storage.ts";
import type { ArchiveMemory } from "./cache.ts";
import type { DeadlineScope } from "./deadline.ts";
import { isFollower, readLocalControl, readLocalHistory } from "./local-control.ts";
import type { LocalWal } from "./local-wal.ts";
import { listStoredWal } from "./stored-wal.ts";
import { describeWriter, type Writer, writerFingerprint } from "./writer.ts";
import { claimTimeline, readWriterClaim } from "./writer-claims.ts";

/** What a push has to know before it writes to a timeline. */
export interface TimelineEntry {
  /** What to store with, without dot: what the timeline's writer uses. */
  readonly extension: string;
  /** Whether others may store the same file at the same time under another extension. */
  readonly isShared: boolean;
  readonly learned: ArchiveMemory;
}

export interface EntryRequest {
  readonly local: LocalWal;
  readonly memory: ArchiveMemory;
  /** That is configured. */
  readonly extension: string;
  readonly serverName: string | undefined;
  /** Two levels above the file unless given. */
  readonly dataDirectory?: string | undefined;
  readonly log: Log;
  /** Resolves when the archive holds this history file. */
  readonly pushHistory: (wal: { readonly path: string; readonly name: string }) => Promise<void>;
}

/**
 * Finds out whether this server may write to a file's timeline, and has the timeline's history
 * stored first. FAILOVER.md tells the whole story. No request in the usual case.
 *
 * Rejects with RefusedError when another server writes this timeline, or when its history is
 * nowhere; with ConflictError when the archive has another history of it.
 */
export async function enterTimeline(
  storage: Storage,
  request: EntryRequest,
  scope: DeadlineScope,
): Promise<TimelineEntry> {
  const { local, extension } = request;
  const file = parseWalFileName(local.name);
  if (file === undefined || file.kind === "backup-label") {
    return { extension, isShared: false, learned: {} };
  }
  return await new Entry(storage, request, scope).enter(file.timeline);
}

class Entry {
  readonly #storage: Storage;
  readonly #request: EntryRequest;
  readonly #scope: DeadlineScope;
  readonly #walDirectory: string;
  readonly #dataDirectory: string;
  readonly #isHistory: boolean;

  constructor(storage: Storage, request: EntryRequest, scope: DeadlineScope) {
    this.#storage = storage;
    this.#request = request;
    this.#scope = scope;
    const { local, dataDirectory } = request;
    const isElsewhere = dataDirectory !== undefined;
    this.#walDirectory = isElsewhere ? join(dataDirectory, "pg_wal") : dirname(local.path);
    this.#dataDirectory = dataDirectory ?? dirname(this.#walDirectory);
    this.#isHistory = request.local.kind === "history";
  }

  async enter(timeline: number): Promise<TimelineEntry> {
    const { memory, extension, serverName } = this.#request;
    const isShared = this.#isHistory;
    if (memory.writerTimeline === timeline && memory.pushExtension === extension) {
      const writer = await describeWriter(this.#dataDirectory, serverName);
      if (memory.writer === writerFingerprint(writer)) return { extension, isShared, learned: {} };
    }
    const control = await readLocalControl(this.#dataDirectory);
    if (control === undefined) {
      const isKnown = await this.#requireHistory(timeline, "warn");
      return { extension, isShared, learned: this.#learnedHistory(timeline, isKnown) };
    }
    if (await isFollower(control, this.#walDirectory, timeline)) {
      const claim = await readWriterClaim(this.#storage, timeline, this.#scope);
      const isKnown = await this.#requireHistory(timeline, "warn");
      return {
        extension: claim?.extension ?? extension,
        isShared: true,
        learned: this.#learnedHistory(timeline, isKnown),
      };
    }
    const writer = await this.#claim(control, timeline);
    await this.#requireHistory(timeline, "refuse");
    const fingerprint = writerFingerprint(writer);
    const learned = { writerTimeline: timeline, writer: fingerprint, historyTimeline: timeline };
    return { extension, isShared, learned: this.#isHistory ? {} : learned };
  }

  async #claim({ systemId }: PgControl, timeline: number): Promise<Writer> {
    const { extension, serverName } = this.#request;
    const writer = await describeWriter(this.#dataDirectory, serverName);
    this.#scope.begin(`asking ${this.#storage.name} who writes timeline ${timeline}`);
    const claim = { ...writer, systemId, timeline, extension };
    await claimTimeline(this.#storage, claim, this.#scope);
    return writer;
  }

  #learnedHistory(timeline: number, isKnown: boolean): ArchiveMemory {
    return this.#isHistory || !isKnown ? {} : { historyTimeline: timeline };
  }

  /**
   * No segment of a timeline before the history that says where it came from. Gives whether the
   * archive has it.
   */
  async #requireHistory(timeline: number, whenMissing: "warn" | "refuse"): Promise<boolean> {
    const { memory, pushHistory, log } = this.#request;
    if (this.#isHistory || timeline === 1 || memory.historyTimeline === timeline) return true;
    const name = formatHistoryName(timeline);
    const path = join(this.#walDirectory, name);
    if (existsSync(path)) {
      await pushHistory({ path, name });
      await this.#bringAncestors(timeline);
      return true;
    }
    this.#scope.begin(`looking for ${name} in ${this.#storage.name}`);
    if ((await listStoredWal(this.#storage, name, this.#scope)).length > 0) return true;
    if (whenMissing === "warn") {
      log.warning("the history of a timeline is neither in pg_wal nor in the archive", { name });
      return false;
    }
    throw new RefusedError(
      `${name} is neither in ${this.#walDirectory} nor in ${this.#storage.name}`,
      {
        hint:
          "Without it no restore finds this timeline. Nothing was stored; PostgreSQL keeps its WAL. " +
          "Copy the file into pg_wal from another server of this cluster, then archiving goes on.",
      },
    );
  }

  /** A server that died may never have stored the history of its own short timeline. */
  async #bringAncestors(timeline: number): Promise<void> {
    const history = await readLocalHistory(this.#walDirectory, timeline);
    for (const { timeline: older } of history?.ancestors ?? []) {
      const name = formatHistoryName(older);
      const path = join(this.#walDirectory, name);
      if (older === 1 || !existsSync(path)) continue;
      this.#scope.begin(`looking for ${name} in ${this.#storage.name}`);
      if ((await listStoredWal(this.#storage, name, this.#scope)).length > 0) continue;
      await this.#request.pushHistory({ path, name });
    }
  }
}
