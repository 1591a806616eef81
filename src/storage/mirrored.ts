import {
  DeadlineError,
  ObjectExistsError,
  ObjectNotFoundError,
  OperationError,
  StorageError,
} from "../errors.ts";
import type { ByteSource, ByteStream } from "../io/bytes.ts";
import type { Clock } from "../io/clock.ts";
import type { Log } from "../io/log.ts";
import { mergeLists } from "./merged-list.ts";
import { carry, type MirrorPair } from "./mirror-catch-up.ts";
import { AWAY_MS, MirrorFollower } from "./mirror-follower.ts";
import type { MirrorQueue, NoteKind, OpenNote } from "./mirror-queue.ts";
import { isPassing, MirroredReading, Verdict, versionIndex } from "./mirrored-reading.ts";
import { mirrorView } from "./mirror-view.ts";
import { mirroredUpkeep } from "./mirrored-upkeep.ts";
import type {
  CallOptions,
  GetOptions,
  ListOptions,
  ObjectInfo,
  ObjectKey,
  PutOptions,
  Storage,
  Upkeep,
} from "./storage.ts";

/** Who must have an object before it is acknowledged. */
export type MirrorPolicy = "all" | "primary";

export interface Primary {
  readonly storage: Storage;
  /** The same, that gives up soon: others may have what is asked for. Closed with the other. */
  readonly reading: Storage;
  /** No other store takes its place when it is away. */
  readonly isAlone?: boolean;
}

export interface Mirror {
  /** As it is called in the settings. */
  readonly title: string;
  readonly storage: Storage;
  readonly queue: MirrorQueue;
}

export interface MirroredOptions {
  readonly policy: MirrorPolicy;
  /** Nothing is decided by what a list lacks: it may be made without the primary. */
  readonly isReader: boolean;
  readonly clock: Clock;
  readonly log: Log;
}

interface Copy {
  readonly mirror: Mirror;
  /** What it may be asked for. */
  readonly view: Storage;
  readonly follower: MirrorFollower;
}

/** A store and how its versions are told from those of the others. */
interface Source {
  readonly index: number;
  readonly storage: Storage;
}

/**
 * A primary store and mirrors of it; MIRROR.md tells what is durable when. Owns all of them. Its
 * name is the primary's.
 */
export class MirroredStorage implements Storage {
  readonly name: string;
  readonly #primary: Primary;
  readonly #copies: readonly Copy[];
  readonly #options: MirroredOptions;
  #isPrimaryTold = false;
  readonly #lastFailures = new Map<number, { readonly atMs: number; readonly error: unknown }>();

  constructor(primary: Primary, mirrors: readonly Mirror[], options: MirroredOptions) {
    this.name = primary.storage.name;
    this.#primary = primary;
    this.#options = options;
    this.#copies = mirrors.map((mirror) => {
      const pair = { primary: primary.reading, mirror: mirror.storage };
      return {
        mirror,
        view: mirrorView(mirror.storage, mirror.queue),
        follower: new MirrorFollower(pair, mirror.queue, options),
      };
    });
  }

  /** Works off what other processes have left, from now on. */
  start(): void {
    for (const { follower } of this.#copies) follower.wake();
  }

  async *get(key: ObjectKey, options: GetOptions): ByteStream {
    const reading = new MirroredReading(key, options);
    const verdict = new Verdict();
    for (const source of this.#sources(options.ifVersion)) {
      if (this.#isUseless(source, verdict)) continue;
      try {
        for await (const chunk of source.storage.get(key, reading.optionsFor(source.index))) {
          reading.advance(chunk.length);
          yield chunk;
        }
        return;
      } catch (error) {
        options.signal.throwIfAborted();
        this.#note(source, error, verdict);
        if (reading.isComplete()) return;
      }
    }
    throw this.#unread(verdict.error, options);
  }

  async stat(key: ObjectKey, options: CallOptions): Promise<ObjectInfo> {
    const verdict = new Verdict();
    for (const source of this.#sources()) {
      if (this.#isUseless(source, verdict)) continue;
      try {
        return await source.storage.stat(key, options);
      } catch (error) {
        options.signal.throwIfAborted();
        this.#note(source, error, verdict);
      }
    }
    throw this.#unread(verdict.error, options);
  }

  async *list(prefix: string, options: ListOptions): AsyncIterable<ObjectInfo> {
    const { onUnanswered, ...rest } = options;
    const { storage, reading } = this.#primary;
    const isLenient = this.#options.isReader || onUnanswered !== undefined;
    const views = this.#copies.map(({ view }, place) => ({ index: place + 1, storage: view }));
    const asked = views.filter(({ index }) => !this.#hasJustFailed(index));
    for (const { index } of views) {
      if (this.#hasJustFailed(index)) onUnanswered?.(this.#lastFailures.get(index)?.error);
    }
    const sources = [{ index: 0, storage: isLenient ? reading : storage }, ...asked];
    let failureCount = 0;
    const onFailed = (place: number, error: unknown): void => {
      const source = sources[place];
      failureCount += 1;
      const isVital = (place === 0 && !isLenient) || failureCount === sources.length;
      if (source === undefined || isVital || !isPassing(error)) throw this.#unread(error, rest);
      this.#noteFailure(source, error);
      onUnanswered?.(error);
    };
    const storages = sources.map((source) => source.storage);
    for await (const entry of mergeLists(storages, prefix, { ...rest, onFailed })) {
      const info = entry.find((one) => one !== undefined);
      if (info !== undefined) yield info;
    }
  }

  async put(key: ObjectKey, body: ByteSource, options: PutOptions): Promise<void> {
    const kind = options.ifAbsent === true ? "create" : "replace";
    const notes = await this.#begin(kind, [key], options);
    try {
      await this.#primary.storage.put(key, body, options);
    } catch (error) {
      this.#tellOfPrimary(error, options);
      if (!(error instanceof ObjectExistsError)) await doubt(notes);
      // Its caller may take it for an acknowledgement: the mirrors must not lack the object.
      else await this.#follow("check", [key], await this.#exchange(notes, key, options), options);
      throw error;
    }
    await this.#follow(kind, [key], notes, options);
  }

  async delete(keys: readonly ObjectKey[], options: CallOptions): Promise<void> {
    if (keys.length === 0) return;
    const notes = await this.#begin("delete", keys, options);
    try {
      await this.#primary.storage.delete(keys, options);
    } catch (error) {
      this.#tellOfPrimary(error, options);
      await doubt(notes);
      throw error;
    }
    await this.#follow("delete", keys, notes, options);
  }

  /** Each store by itself: the primary, then the mirrors, as far as they may be asked. */
  get copies(): readonly Storage[] {
    return [this.#primary.reading, ...this.#copies.map(({ view }) => view)];
  }

  get primary(): Storage {
    return this.#primary.storage;
  }

  get unseen(): readonly string[] {
    const isAway = this.#primary.isAlone === true && this.#hasJustFailed(0);
    return isAway ? ["default"] : (this.#primary.storage.unseen ?? []);
  }

  /** Each mirror with the primary, to look at both sides of it. */
  get pairs(): readonly (MirrorPair & Mirror)[] {
    const primary = this.#primary.storage;
    return this.#copies.map(({ mirror }) => ({ ...mirror, primary, mirror: mirror.storage }));
  }

  get upkeep(): Upkeep | undefined {
    const others = this.#copies.map(({ mirror }) => mirror.storage);
    return mirroredUpkeep([this.#primary.storage, ...others], this.#options.log);
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await Promise.all(this.#copies.map(({ follower }) => follower.end()));
    const mirrors = this.#copies.map(({ mirror }) => mirror.storage);
    const all = [this.#primary.storage, ...mirrors];
    await Promise.all(all.map((one) => one[Symbol.asyncDispose]()));
  }

  /** In the order in which they are read; the patient primary comes last. */
  #sources(version?: string): readonly Source[] {
    const { storage, reading } = this.#primary;
    const views = this.#copies.map(({ view }, place) => ({ index: place + 1, storage: view }));
    const first = { index: 0, storage: reading };
    const all = this.#hasJustFailed(0) ? [...views, first] : [first, ...views];
    const patient = storage === reading ? all : [...all, { index: 0, storage }];
    const index = version === undefined ? undefined : versionIndex(version);
    return index === undefined ? patient : patient.filter((source) => source.index === index);
  }

  /** What the primary does not have is not asked of it twice, or of a mirror that has just failed. */
  #isUseless({ index }: Source, { isMissing }: Verdict): boolean {
    return isMissing && (index === 0 || this.#hasJustFailed(index));
  }

  #hasJustFailed(index: number): boolean {
    const failure = this.#lastFailures.get(index);
    return failure !== undefined && this.#options.clock.monotonicMs() - failure.atMs < AWAY_MS;
  }

  #note(source: Source, error: unknown, verdict: Verdict): void {
    if (!isPassing(error)) throw error;
    verdict.add(source.index, error);
    if (!(error instanceof ObjectNotFoundError)) this.#noteFailure(source, error);
  }

  #noteFailure({ index, storage }: Source, error: unknown): void {
    if (!this.#hasJustFailed(index)) {
      this.#options.log.warning("a store does not answer; the other ones are asked", {
        store: storage.name,
        reason: error instanceof Error ? error.message : String(error),
      });
    }
    this.#lastFailures.set(index, { atMs: this.#options.clock.monotonicMs(), error });
  }

  /** For who is about to put, and has to know first what is there. */
  #unread(error: unknown, options: CallOptions): unknown {
    if (!this.#options.isReader) this.#tellOfPrimary(error, options);
    return error;
  }

  /** Once: nobody should have to find out that mirrors don't take what the first store does not. */
  #tellOfPrimary(error: unknown, { signal }: CallOptions): void {
    const isMissing = error instanceof ObjectNotFoundError;
    const isAway = (isPassing(error) && !isMissing) || signal.reason instanceof DeadlineError;
    if (!isAway || this.#isPrimaryTold || this.#primary.isAlone !== true) return;
    this.#isPrimaryTold = true;
    this.#options.log.warning("the first store must take every object: its mirrors only follow", {
      store: this.name,
      reason: (error instanceof Error ? error : signal.reason).message,
      hint:
        "Until it answers, nothing is stored and WAL waits in pg_wal; wal-fetch and backup-fetch go " +
        "on from the mirrors. If it stays away, add a storage to WALG_FAILOVER_STORAGES, or make a " +
        "mirror the first store in the settings (docs/storage.md, Mirrors).",
    });
  }

  /** Undefined in the place of a mirror whose note could not be written. */
  async #begin(
    kind: NoteKind,
    keys: readonly ObjectKey[],
    { signal }: CallOptions,
  ): Promise<readonly (OpenNote | undefined)[]> {
    signal.throwIfAborted();
    return await Promise.all(
      this.#copies.map(async ({ mirror }) => {
        try {
          return await mirror.queue.begin(kind, keys, { signal });
        } catch (error) {
          signal.throwIfAborted();
          if (!(error instanceof OperationError)) throw error;
          this.#options.log.warning("what the mirror lacks can't be noted: it has to take it now", {
            mirror: mirror.storage.name,
            reason: error.message,
          });
          return undefined;
        }
      }),
    );
  }

  /** For a create-only put that changed nothing: only what a mirror lacks is of interest. */
  async #exchange(
    notes: readonly (OpenNote | undefined)[],
    key: ObjectKey,
    options: CallOptions,
  ): Promise<readonly (OpenNote | undefined)[]> {
    const checks = await this.#begin("check", [key], options);
    await Promise.all(notes.map(async (note) => await note?.withdraw()));
    return checks;
  }

  /** The primary has it. Resolves when the policy is satisfied. */
  async #follow(
    kind: NoteKind,
    keys: readonly ObjectKey[],
    notes: readonly (OpenNote | undefined)[],
    { signal }: CallOptions,
  ): Promise<void> {
    const work = this.#copies.map(async ({ mirror, follower }, place) => {
      const note = notes[place];
      await note?.acknowledge();
      if (note !== undefined && this.#options.policy === "primary") return follower.wake();
      const pair = { primary: this.#primary.storage, mirror: mirror.storage };
      try {
        if (kind === "delete") await mirror.storage.delete(keys, { signal });
        else for (const key of keys) await carry(pair, key, new Set([kind]), { signal });
      } catch (error) {
        follower.wake();
        throw notTaken(mirror, error);
      }
      if ((await note?.finish()) === false) follower.wake();
    });
    const results = await Promise.allSettled(work);
    signal.throwIfAborted();
    for (const result of results) if (result.status === "rejected") throw result.reason;
  }
}

async function doubt(notes: readonly (OpenNote | undefined)[]): Promise<void> {
  await Promise.all(notes.map(async (note) => await note?.doubt()));
}

function notTaken({ storage }: Mirror, error: unknown): unknown {
  if (!(error instanceof StorageError)) return error;
  return new StorageError(`mirror ${storage.name} did not take it: ${error.message}`, {
    isRetryable: error.isRetryable,
    hint:
      "WALNUT_MIRROR_POLICY=primary acknowledges without the mirrors and catches them up later. " +
      (error.hint ?? ""),
    cause: error,
  });
}
