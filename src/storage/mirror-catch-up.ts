import { ObjectNotFoundError, StorageError } from "../errors.ts";
import type { Clock } from "../io/clock.ts";
import type { Log } from "../io/log.ts";
import type { MirrorQueue, Note, NoteKind } from "./mirror-queue.ts";
import { mergeLists } from "./merged-list.ts";
import { UNSURE_MS } from "./mirror-overflow.ts";
import { statIfThere } from "./object-copy.ts";
import type { CallOptions, ObjectInfo, ObjectKey, OpenedObject, Storage } from "./storage.ts";

/** Both sides of one mirror. */
export interface MirrorPair {
  readonly primary: Storage;
  readonly mirror: Storage;
}

export interface CatchUpOptions extends CallOptions {
  readonly clock: Clock;
  readonly log: Log;
}

export interface CatchUpResult {
  /** Objects that were copied, or removed from the mirror. */
  readonly copied: number;
  readonly removed: number;
  /** The first that went wrong; the notes of what did are still there. */
  readonly failure: Error | undefined;
}

/** Notes that are worked off at the same time. */
const JOBS = 4;
/** After so many failures the mirror is taken for away. */
const FAILURES_MAX = 3;
/** A copy's time may be this much wrong against the time of what it is a copy of. */
const CLOCK_MARGIN_MS = 3_600_000;
/** How often an object may change while it is copied. */
const CARRY_ATTEMPTS = 5;

/**
 * Works the notes off that are there and those that come meanwhile. Only one process should at a
 * time: see `MirrorQueue.lock`.
 */
export async function catchUp(
  pair: MirrorPair,
  queue: MirrorQueue,
  options: CatchUpOptions,
): Promise<CatchUpResult> {
  const round = new CatchUp(pair, queue, options);
  await round.run();
  return round.result();
}

class CatchUp {
  readonly #pair: MirrorPair;
  readonly #queue: MirrorQueue;
  readonly #options: CatchUpOptions;
  readonly #seen = new Set<string>();
  #copied = 0;
  #removed = 0;
  #failures = 0;
  #failure: Error | undefined;

  constructor(pair: MirrorPair, queue: MirrorQueue, options: CatchUpOptions) {
    this.#pair = pair;
    this.#queue = queue;
    this.#options = options;
  }

  result(): CatchUpResult {
    return { copied: this.#copied, removed: this.#removed, failure: this.#failure };
  }

  async run(): Promise<void> {
    while (this.#failures < FAILURES_MAX) {
      const notes = await this.#queue.notes();
      // What is begun by a process that lives will be acknowledged, or doubted.
      const fresh = notes.filter(({ name, state }) => state !== "begun" && !this.#seen.has(name));
      if (fresh.length === 0) break;
      await this.#workOff(fresh, kindsByKey(notes));
    }
    if (this.#failure === undefined) await this.#compareAll();
  }

  /** In order, and at the same time only what was not done one after the other. */
  async #workOff(
    notes: readonly Note[],
    kinds: ReadonlyMap<ObjectKey, ReadonlySet<NoteKind>>,
  ): Promise<void> {
    const running = new Map<Note, Promise<void>>();
    for (const note of notes) {
      this.#seen.add(note.name);
      const before = [...running].filter(([other]) => isBefore(other, note));
      await Promise.all(before.map(([, work]) => work));
      if (running.size >= JOBS) await Promise.race(running.values());
      if (this.#failures >= FAILURES_MAX) break;
      this.#options.signal.throwIfAborted();
      const work = this.#workOffOne(note, kinds).finally(() => running.delete(note));
      running.set(note, work);
    }
    await Promise.all(running.values());
    this.#options.signal.throwIfAborted();
  }

  async #workOffOne(
    note: Note,
    kinds: ReadonlyMap<ObjectKey, ReadonlySet<NoteKind>>,
  ): Promise<void> {
    const { clock, signal } = this.#options;
    try {
      for (const key of note.keys) {
        const outcome = await carry(this.#pair, key, kinds.get(key) ?? new Set(), { signal });
        if (outcome === "copied") this.#copied++;
        if (outcome === "removed") this.#removed++;
      }
      const isSettled = note.state === "due" || clock.now() - note.beganAt > UNSURE_MS;
      if (isSettled) await this.#queue.remove(note);
    } catch (error) {
      this.#fail(error);
    }
  }

  #fail(error: unknown): void {
    if (this.#options.signal.aborted) return;
    if (!(error instanceof Error)) throw error;
    this.#failures++;
    this.#failure ??= error;
  }

  /** Where notes were left out. */
  async #compareAll(): Promise<void> {
    const end = await this.#queue.beginComparison();
    if (end === undefined) return;
    const { signal, log } = this.#options;
    const { primary, mirror } = this.#pair;
    log.info("all objects are compared: too many notes for the mirror were waiting", {
      mirror: mirror.name,
    });
    try {
      for await (const [own, other] of mergeLists([primary, mirror], "", { signal })) {
        if (own === undefined || !isBehind(own, other)) continue;
        const outcome = await carry(this.#pair, own.key, new Set(["replace"]), { signal });
        if (outcome === "copied") this.#copied++;
      }
      await end();
    } catch (error) {
      this.#fail(error);
      signal.throwIfAborted();
    }
  }
}

/** Whether a note was acknowledged before another was begun; of one that is unsure, perhaps. */
function isBefore(one: Note, other: Note): boolean {
  return (one.acknowledgedAt ?? one.beganAt) <= other.beganAt;
}

function kindsByKey(notes: readonly Note[]): ReadonlyMap<ObjectKey, ReadonlySet<NoteKind>> {
  const kinds = new Map<ObjectKey, Set<NoteKind>>();
  for (const { kind, keys } of notes) {
    for (const key of keys) {
      const known = kinds.get(key);
      if (known === undefined) kinds.set(key, new Set([kind]));
      else known.add(kind);
    }
  }
  return kinds;
}

function isBehind(own: ObjectInfo, other: ObjectInfo | undefined): boolean {
  if (other === undefined || own.sizeBytes !== other.sizeBytes) return true;
  return own.modifiedAt.getTime() > other.modifiedAt.getTime() - CLOCK_MARGIN_MS;
}

export type Carried = "copied" | "removed" | "same";

/**
 * Makes the mirror like the primary for one key, of which notes of these kinds are there. Rejects
 * with the error of either store.
 */
export async function carry(
  { primary, mirror }: MirrorPair,
  key: ObjectKey,
  kinds: ReadonlySet<NoteKind>,
  { signal }: CallOptions,
): Promise<Carried> {
  const isNew = !kinds.has("replace") && !kinds.has("delete");
  const isUntouched = isNew && !kinds.has("create");
  let isCopied = false;
  for (let attempt = 1; attempt <= CARRY_ATTEMPTS; attempt++) {
    const object = await openedIfThere(primary, key, { signal });
    if (object === undefined) {
      // What we brought is what somebody else has deleted since.
      if (!isCopied && !kinds.has("delete")) return "same";
      await mirror.delete([key], { signal });
      return "removed";
    }
    if (!isCopied && isNew) {
      const there = await statIfThere(mirror, key, { signal });
      const isThere = there !== undefined;
      if (isThere && (isUntouched || there.sizeBytes === object.sizeBytes)) return "same";
    }
    if (!(await copyVersion({ primary, mirror }, key, object, { signal }))) continue;
    isCopied = true;
    const after = await openedIfThere(primary, key, { signal });
    if (after?.sizeBytes === object.sizeBytes && after.version === object.version) return "copied";
  }
  throw new StorageError(`object ${key} in ${primary.name} was changed again while it was copied`, {
    isRetryable: true,
  });
}

/** False if the object went away meanwhile. */
async function copyVersion(
  { primary, mirror }: MirrorPair,
  key: ObjectKey,
  { sizeBytes, version }: OpenedObject,
  { signal }: CallOptions,
): Promise<boolean> {
  const ifVersion = version === undefined ? {} : { ifVersion: version };
  const body = {
    sizeBytes,
    isReopenable: true,
    open: () => primary.get(key, { signal, ...ifVersion }),
  };
  try {
    await mirror.put(key, body, { signal });
    return true;
  } catch (error) {
    if (error instanceof ObjectNotFoundError) return false;
    if (await isChanged(primary, key, { sizeBytes, ...ifVersion }, { signal })) return false;
    throw error;
  }
}

async function isChanged(
  primary: Storage,
  key: ObjectKey,
  { sizeBytes, ifVersion }: { readonly sizeBytes: number; readonly ifVersion?: string },
  options: CallOptions,
): Promise<boolean> {
  const now = await openedIfThere(primary, key, options);
  return now === undefined || now.sizeBytes !== sizeBytes || now.version !== ifVersion;
}

/** What the store says of an object, its version included; undefined if there is none. */
async function openedIfThere(
  storage: Storage,
  key: ObjectKey,
  { signal }: CallOptions,
): Promise<OpenedObject | undefined> {
  let opened: OpenedObject | undefined;
  const onOpened = (object: OpenedObject): void => {
    opened = object;
  };
  try {
    // No store opens an object without sending a byte of it.
    const range = { start: 0, end: 1 };
    for await (const _ of storage.get(key, { signal, range, onOpened }));
  } catch (error) {
    if (error instanceof ObjectNotFoundError) return undefined;
    throw error;
  }
  return opened;
}
