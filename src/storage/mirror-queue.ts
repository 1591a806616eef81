import { open, readdir, readFile, rename, rm, stat } from "node:fs/promises";
import { dirname, join } from "node:path";
import { systemErrorCode } from "../errors.ts";
import type { Clock } from "../io/clock.ts";
import { writeCacheFile } from "../io/cache-file.ts";
import { fsyncDirectory, writeFileDurably } from "../io/durable.ts";
import { handOver, makeDirectories } from "../io/handed-over.ts";
import { describeProcess, isProcessAlive } from "../io/process-identity.ts";
import { randomHex } from "../io/random.ts";
import { sha256Hex } from "../io/runtime.ts";
import { localFileError } from "../io/system-error.ts";
import { MirrorOverflow } from "./mirror-overflow.ts";
import type { CallOptions, ObjectKey } from "./storage.ts";

/**
 * What is done to the keys of a note: a put that is create-only, another one, a delete; "check":
 * nothing, but a mirror may lack the object.
 */
export type NoteKind = "create" | "replace" | "delete" | "check";

/** These keys may differ between the primary and a mirror; MIRROR.md tells the whole story. */
export interface Note {
  /** Of its file. */
  readonly name: string;
  readonly kind: NoteKind;
  readonly keys: readonly ObjectKey[];
  /** By the local clock, in milliseconds since 1970. */
  readonly beganAt: number;
  /** When the primary acknowledged it; absent unless it is due. */
  readonly acknowledgedAt?: number;
  readonly state: NoteState;
}

/** "begun": its process is at it. "unsure": whether the primary did it, and when, is not known. */
export type NoteState = "begun" | "due" | "unsure";

/** A note of something that is being done. */
export interface OpenNote {
  /** The primary has done it. */
  acknowledge(): Promise<void>;
  /** The primary gave an error: it may have done it, or may do it yet. */
  doubt(): Promise<void>;
  /** Nothing was done. */
  withdraw(): Promise<void>;
  /** The mirror has it, too: removes the note. False if it stays: another one names a key of it. */
  finish(): Promise<boolean>;
}

export interface QueueStatus {
  readonly notes: number;
  /** Of the oldest note; absent where there is none. */
  readonly oldestAt?: number;
  /** There were too many notes: the stores have to be compared. */
  readonly isOverflowing: boolean;
  /** The last thing that was tried with the mirror failed. */
  readonly away?: Away;
}

export interface Away {
  readonly at: number;
  readonly message: string;
}

export interface QueueOptions {
  /** Notes of puts; those of deletes are not limited. */
  readonly notesMax: number;
  readonly clock: Clock;
}

const NOTE_NAME = /^(\d{14})-[0-9a-f]{16}-(many|[0-9a-f]{16})\.(?:(begun)|(unsure)|due-(\d{14}))$/;
const AWAY = "away";
const LOCK = "lock";
/** How long a count of notes is believed. */
const COUNT_MS = 1000;

/** The durable notes of one mirror. Several processes may use one directory. */
export class MirrorQueue {
  readonly directory: string;
  readonly #options: QueueOptions;
  readonly #overflow: MirrorOverflow;
  #isMade = false;
  #counted: { readonly atMs: number; count: number } | undefined;

  /** `directory`: made when the first note is written. */
  constructor(directory: string, options: QueueOptions) {
    this.directory = directory;
    this.#options = options;
    this.#overflow = new MirrorOverflow(directory, options.clock);
  }

  /** Durable once it is resolved. Rejects with LocalFileError. */
  async begin(kind: NoteKind, keys: readonly ObjectKey[], options: CallOptions): Promise<OpenNote> {
    await this.#make();
    const counted = await this.#count();
    if (kind !== "delete" && counted.count >= this.#options.notesMax) {
      return { ...(await this.#overflow.begin(options)), finish: async () => true };
    }
    counted.count += 1;
    const now = this.#options.clock.now();
    const stem = `${digits(now)}-${randomHex(8)}-${hashOf(keys)}`;
    const content = { version: 1, kind, keys, process: describeProcess() ?? null };
    const path = join(this.directory, `${stem}.begun`);
    await writeFileDurably(path, Buffer.from(`${JSON.stringify(content)}\n`), options);
    return this.#open(stem, keys);
  }

  /** All notes that can be read, the oldest first; and of those begun, whose process has gone. */
  async notes(): Promise<readonly Note[]> {
    const notes: Note[] = [];
    for (const name of await this.#names()) {
      const note = await this.#read(name);
      if (note !== undefined) notes.push(note);
    }
    return notes;
  }

  /** Tells of keys whether a note names them now. */
  async named(): Promise<(key: ObjectKey) => boolean> {
    const hashes = new Set<string>();
    const keys = new Set<ObjectKey>();
    for (const name of await this.#names()) {
      const [, , hash = ""] = NOTE_NAME.exec(name) ?? [];
      if (hash !== "many") hashes.add(hash);
      else for (const key of (await this.#read(name))?.keys ?? []) keys.add(key);
    }
    return (key) => keys.has(key) || (hashes.size > 0 && hashes.has(hashOf([key])));
  }

  async remove({ name }: Pick<Note, "name">): Promise<void> {
    await rm(join(this.directory, name), { force: true });
    this.#counted = undefined;
  }

  async status(): Promise<QueueStatus> {
    const names = await this.#names();
    const away = await this.#readAway();
    const isOverflowing = await this.#overflow.isThere();
    const oldest = names[0];
    return {
      notes: names.length,
      isOverflowing,
      ...(oldest === undefined ? {} : { oldestAt: Number(oldest.slice(0, 14)) }),
      ...(away === undefined ? {} : { away }),
    };
  }

  /** Undefined when notes were never left out; else to be called when the stores were compared. */
  async beginComparison(): Promise<(() => Promise<void>) | undefined> {
    return await this.#overflow.beginComparison();
  }

  /** Remembers that the mirror failed, or that it works. What can't be written is not remembered. */
  async setAway(message: string | undefined): Promise<void> {
    const path = join(this.directory, AWAY);
    try {
      if (message === undefined) return await rm(path, { force: true });
      await this.#make();
      const away: Away = { at: this.#options.clock.now(), message };
      await writeCacheFile(path, JSON.stringify(away));
    } catch {
      // Only costs the next process an attempt.
    }
  }

  /**
   * Undefined while another process that lives has it; else what gives it back. Where processes
   * can't be told apart everybody gets it.
   */
  async lock(): Promise<(() => Promise<void>) | undefined> {
    await this.#make();
    const path = join(this.directory, LOCK);
    const own = describeProcess();
    if (own === undefined) return async () => {};
    const mine = `${own} ${randomHex(4)}`;
    for (let attempt = 1; attempt <= 2; attempt++) {
      try {
        await using handle = await open(path, "wx", 0o600);
        await handOver(handle, path);
        await handle.writeFile(mine);
        return async () => {
          if ((await readText(path)) === mine) await rm(path, { force: true });
        };
      } catch (error) {
        if (systemErrorCode(error) !== "EEXIST") throw localFileError("create", path, error);
      }
      const owner = (await readText(path))?.split(" ")[0];
      // Empty: it is being written, or its process was killed just then.
      if (owner === "" && (await ageMs(path, this.#options.clock)) < 5000) return undefined;
      if (owner !== undefined && isProcessAlive(owner)) return undefined;
      await rm(path, { force: true });
    }
    return undefined;
  }

  #open(stem: string, keys: readonly ObjectKey[]): OpenNote {
    let name = `${stem}.begun`;
    const become = async (next: string): Promise<void> => {
      try {
        await rename(join(this.directory, name), join(this.directory, next));
        name = next;
      } catch (error) {
        // As "begun" it is worked off later: once we have ended.
        if (systemErrorCode(error) === undefined) throw error;
      }
    };
    return {
      acknowledge: () => become(`${stem}.due-${digits(this.#options.clock.now())}`),
      doubt: () => become(`${stem}.unsure`),
      withdraw: () => this.remove({ name }),
      finish: async () => {
        if (await this.#isNamedElsewhere(name, keys)) return false;
        await this.remove({ name });
        return true;
      },
    };
  }

  async #isNamedElsewhere(own: string, keys: readonly ObjectKey[]): Promise<boolean> {
    const hash = hashOf(keys);
    return (await this.#names()).some((name) => {
      const [, , noted] = NOTE_NAME.exec(name) ?? [];
      return name !== own && (hash === "many" || noted === "many" || noted === hash);
    });
  }

  async #read(name: string): Promise<Note | undefined> {
    const [, began, , isBegun, isUnsure, acknowledged] = NOTE_NAME.exec(name) ?? [];
    const text = await readText(join(this.directory, name));
    const content = text === undefined ? undefined : parseContent(text);
    if (content === undefined) return undefined;
    const { kind, keys, process } = content;
    const isDead = isBegun !== undefined && (process === undefined || !isProcessAlive(process));
    return {
      name,
      kind,
      keys,
      beganAt: Number(began),
      state: isUnsure !== undefined || isDead ? "unsure" : isBegun === undefined ? "due" : "begun",
      ...(acknowledged === undefined ? {} : { acknowledgedAt: Number(acknowledged) }),
    };
  }

  async #count(): Promise<{ count: number }> {
    const nowMs = this.#options.clock.monotonicMs();
    if (this.#counted === undefined || nowMs - this.#counted.atMs > COUNT_MS) {
      this.#counted = { atMs: nowMs, count: (await this.#names()).length };
    }
    return this.#counted;
  }

  /** Of notes, the oldest first. */
  async #names(): Promise<readonly string[]> {
    try {
      const names = await readdir(this.directory);
      return names.filter((name) => NOTE_NAME.test(name)).toSorted();
    } catch (error) {
      if (systemErrorCode(error) === "ENOENT") return [];
      throw localFileError("read", this.directory, error);
    }
  }

  async #readAway(): Promise<Away | undefined> {
    const text = await readText(join(this.directory, AWAY));
    const fields = text === undefined ? undefined : parseJson(text);
    if (typeof fields !== "object" || fields === null) return undefined;
    if (!("at" in fields && "message" in fields)) return undefined;
    const { at, message } = fields;
    return typeof at === "number" && typeof message === "string" ? { at, message } : undefined;
  }

  async #make(): Promise<void> {
    if (this.#isMade) return;
    try {
      const first = await makeDirectories(this.directory, 0o700);
      let path = first === undefined ? undefined : this.directory;
      while (path !== undefined) {
        await fsyncDirectory(dirname(path));
        path = path === first || path === dirname(path) ? undefined : dirname(path);
      }
      this.#isMade = true;
    } catch (error) {
      throw localFileError("make directory", this.directory, error);
    }
  }
}

/** Fourteen digits of milliseconds: names sort by time. */
function digits(ms: number): string {
  return String(Math.max(0, Math.trunc(ms))).padStart(14, "0");
}

function hashOf(keys: readonly ObjectKey[]): string {
  const [key, another] = keys;
  return another === undefined && key !== undefined ? sha256Hex(key).slice(0, 16) : "many";
}

interface NoteContent {
  readonly kind: NoteKind;
  readonly keys: readonly ObjectKey[];
  readonly process: string | undefined;
}

/** Undefined for what is no note: it is left alone. */
function parseContent(text: string): NoteContent | undefined {
  const fields = parseJson(text);
  if (typeof fields !== "object" || fields === null) return undefined;
  if (!("kind" in fields && "keys" in fields && "process" in fields)) return undefined;
  const { kind, keys, process } = fields;
  if (!isNoteKind(kind)) return undefined;
  if (!Array.isArray(keys)) return undefined;
  const texts = keys.filter((key) => typeof key === "string");
  return { kind, keys: texts, process: typeof process === "string" ? process : undefined };
}

function isNoteKind(kind: unknown): kind is NoteKind {
  return kind === "create" || kind === "replace" || kind === "delete" || kind === "check";
}

function parseJson(text: string): unknown {
  try {
    return JSON.parse(text);
  } catch {
    return undefined;
  }
}

async function readText(path: string): Promise<string | undefined> {
  try {
    return await readFile(path, "utf8");
  } catch (error) {
    if (systemErrorCode(error) === "ENOENT") return undefined;
    throw localFileError("read", path, error);
  }
}

async function ageMs(path: string, clock: Clock): Promise<number> {
  try {
    return clock.now() - (await stat(path)).mtimeMs;
  } catch {
    return Number.POSITIVE_INFINITY;
  }
}
