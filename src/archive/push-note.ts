import { closeSync, existsSync, fstatSync, openSync, readFileSync, readSync } from "node:fs";
import { readdir, rename, rm, stat, symlink, writeFile } from "node:fs/promises";
import { basename, join } from "node:path";
import { FormatError, LocalFileError, systemErrorCode } from "../errors.ts";
import type { Clock } from "../io/clock.ts";
import { createHasher } from "../io/hash.ts";
import { nativeXxh64 } from "../io/runtime.ts";
import { localFileError } from "../io/system-error.ts";
import { parseWalFileName } from "../postgres/wal-file.ts";
import { checkSegmentStart } from "../postgres/wal-segment.ts";
import { ARCHIVER_NAME, type ArchiverName, type CallerName } from "./caller-name.ts";

/** What is hashed of each end: the largest page that PostgreSQL has by default. */
const END_BYTES = 8192;
/** The file system's times move in steps of this length at most, */
const TICK_MS = 20;
/** or of this one where it keeps whole seconds: ext3, small inodes of ext4. */
const WHOLE_TICK_MS = 1000 + TICK_MS;

/** A file's identity, as far as it changes with every write to it and with every copy of it. */
export interface FileIdentity {
  readonly inode: string;
  readonly sizeBytes: string;
  readonly mtimeNs: string;
  readonly ctimeNs: string;
  /** XXH64 of the first and the last 8 KiB. */
  readonly firstHash: string;
  readonly lastHash: string;
  /** From a segment's header, else from the data directory; "" if neither tells. */
  readonly systemId: string;
}

const MEMBERS = [
  "inode",
  "sizeBytes",
  "mtimeNs",
  "ctimeNs",
  "firstHash",
  "lastHash",
  "systemId",
] as const;

/**
 * Looks at a WAL file. Rejects with LocalFileError. The process waits for the two reads: threads of
 * the runtime would take longer, in the call that finds its work done.
 */
export async function readFileIdentity(path: string): Promise<FileIdentity> {
  try {
    const ends = Buffer.alloc(2 * END_BYTES);
    const { stats, endBytes } = readEnds(path, ends);
    const firstPage = ends.subarray(0, endBytes);
    return {
      inode: String(stats.ino),
      sizeBytes: String(stats.size),
      mtimeNs: String(stats.mtimeNs),
      ctimeNs: String(stats.ctimeNs),
      firstHash: await hashOf(firstPage),
      lastHash: await hashOf(ends.subarray(END_BYTES, END_BYTES + endBytes)),
      systemId: String((await systemIdOf(path, firstPage)) ?? ""),
    };
  } catch (error) {
    throw localFileError("read", path, error);
  }
}

/** Fills both halves of `ends`, as far as the file reaches. */
function readEnds(path: string, ends: Uint8Array) {
  const descriptor = openSync(path, "r");
  try {
    const stats = fstatSync(descriptor, { bigint: true });
    const sizeBytes = Number(stats.size);
    const endBytes = Math.min(END_BYTES, sizeBytes);
    readSync(descriptor, ends, 0, endBytes, 0);
    readSync(descriptor, ends, END_BYTES, endBytes, sizeBytes - endBytes);
    return { stats, endBytes };
  } finally {
    closeSync(descriptor);
  }
}

/**
 * The same, of a file that was last written long enough ago for any later write to show in its
 * times: waits for that if need be. Rejects with LocalFileError.
 */
export async function readSettledIdentity(
  path: string,
  { clock, signal }: { readonly clock: Clock; readonly signal: AbortSignal },
): Promise<FileIdentity> {
  const identity = await readFileIdentity(path);
  const waitMs = settlingMs(identity, clock.now());
  if (waitMs > 0) await clock.sleep(waitMs, { signal });
  return identity;
}

/**
 * How long a write may still leave a file the times that it has, in ms. A clock that was set back
 * tells nothing of a file from before.
 */
export function settlingMs(
  { mtimeNs, ctimeNs }: Pick<FileIdentity, "mtimeNs" | "ctimeNs">,
  nowMs: number,
): number {
  const times = [BigInt(mtimeNs), BigInt(ctimeNs)];
  const tickMs = times.every((ns) => ns % 1_000_000_000n === 0n) ? WHOLE_TICK_MS : TICK_MS;
  const ageMs = Math.min(...times.map((ns) => nowMs - Number(ns / 1_000_000n)));
  return ageMs < tickMs ? tickMs : 0;
}

async function systemIdOf(path: string, firstPage: Uint8Array): Promise<bigint | undefined> {
  const name = basename(path);
  const kind = parseWalFileName(name)?.kind;
  if (kind !== "segment" && kind !== "partial") {
    return await (await import("./local-wal.ts")).readSystemId(path);
  }
  try {
    return checkSegmentStart(firstPage, name).systemId;
  } catch (error) {
    // No segment: no cluster. That it can't be pushed is said by the push.
    if (error instanceof FormatError) return undefined;
    throw error;
  }
}

/** Whether both are of one file that nobody has written to in between. */
export function isSameFile(one: FileIdentity, other: FileIdentity): boolean {
  return MEMBERS.every((member) => one[member] === other[member]);
}

/** One line of JSON. */
export function formatNote(identity: FileIdentity, repository?: string): string {
  return `${JSON.stringify({ ...identity, repository })}\n`;
}

/** Undefined for anything that `formatNote` did not write. */
export function parseNote(text: string): FileIdentity | undefined {
  if (!text.endsWith("}\n")) return undefined;
  let members: unknown;
  try {
    members = JSON.parse(text);
  } catch {
    return undefined;
  }
  if (typeof members !== "object" || members === null) return undefined;
  const fields = new Map<string, unknown>(Object.entries(members));
  const [inode, sizeBytes, mtimeNs, ctimeNs, firstHash, lastHash, systemId] = MEMBERS.map(
    (member) => {
      const value = fields.get(member);
      return typeof value === "string" ? value : undefined;
    },
  );
  if (inode === undefined || sizeBytes === undefined || mtimeNs === undefined) return undefined;
  if (ctimeNs === undefined || firstHash === undefined || lastHash === undefined) return undefined;
  if (systemId === undefined) return undefined;
  return { inode, sizeBytes, mtimeNs, ctimeNs, firstHash, lastHash, systemId };
}

/** The shell of an archiver process, or the calls of one caller (ready-call.ts). */
export type NoteReader = ArchiverName | CallerName;

/** Names of links: of archivers, and of callers. */
const READERS = [ARCHIVER_NAME, /^c-/] as const;

/** The notes of one spool: which ready files the store has acknowledged. See DRAIN.md. */
export class PushNotes {
  readonly #directory: string;
  readonly #walDirectory: string;
  readonly #repository: string | undefined;
  /** Where the disk is full, which is when pg_wal has to be emptied. */
  readonly #unwritten = new Map<string, FileIdentity>();

  /**
   * `walDirectory` holds the files that the notes are of. Notes of another `repository` are as
   * untrue as others; without one, those who vouch for the reader have made sure.
   */
  constructor(directory: string, walDirectory: string, repository?: string) {
    this.#directory = directory;
    this.#walDirectory = walDirectory;
    this.#repository = repository;
  }

  /**
   * Whether the store is known to hold this file exactly as it is now. A note that says anything
   * else is deleted.
   */
  async isTrue(name: string): Promise<boolean> {
    if (parseWalFileName(name) === undefined) return false;
    const path = join(this.#directory, name);
    let text: string | undefined;
    try {
      text = readFileSync(path, "utf8");
    } catch (error) {
      if (systemErrorCode(error) === undefined) throw error;
    }
    const note = text === undefined ? this.#unwritten.get(name) : parseNote(text);
    if (text === undefined && note === undefined) return false;
    try {
      const now = await readFileIdentity(join(this.#walDirectory, name));
      if (note !== undefined && isSameFile(note, now) && this.#isOfRepository(text)) return true;
    } catch (error) {
      if (!(error instanceof LocalFileError)) throw error;
    }
    await succeeds(() => this.remove(name));
    return false;
  }

  /**
   * Notes that the store has acknowledged the file, whose identity was taken before it was pushed.
   * Gives false, and makes no note, when the file is not the same any more, or `isWanted` says no.
   * Where the note can't be written it is kept in memory.
   */
  async add(
    name: string,
    before: FileIdentity,
    isWanted: () => Promise<boolean> = async () => true,
  ): Promise<boolean> {
    const temporaryPath = join(this.#directory, `.${name}.tmp`);
    const text = formatNote(before, this.#repository);
    const isWritten = await succeeds(() => writeFile(temporaryPath, text, { mode: 0o600 }));
    // After the note was written: what comes later is newer than the note.
    const isSame = (await this.#isUnchanged(name, before)) && (await isWanted());
    const path = join(this.#directory, name);
    const isNoted = isSame && isWritten && (await succeeds(() => rename(temporaryPath, path)));
    if (isNoted) return true;
    await succeeds(() => rm(temporaryPath, { force: true }));
    if (isSame) this.#unwritten.set(name, before);
    return isSame;
  }

  async #isUnchanged(name: string, before: FileIdentity): Promise<boolean> {
    const path = join(this.#walDirectory, name);
    const now = await stat(path, { bigint: true }).catch((error: unknown) => {
      if (systemErrorCode(error) === undefined) throw error;
      return undefined;
    });
    return (
      String(now?.ino) === before.inode &&
      String(now?.size) === before.sizeBytes &&
      String(now?.mtimeNs) === before.mtimeNs &&
      String(now?.ctimeNs) === before.ctimeNs
    );
  }

  /** Without a text it is a note of this very process. */
  #isOfRepository(text: string | undefined): boolean {
    if (this.#repository === undefined || text === undefined) return true;
    const note: unknown = JSON.parse(text);
    if (typeof note !== "object" || note === null) return false;
    return "repository" in note && note.repository === this.#repository;
  }

  /** Removes a note; it is no error if there is none. */
  async remove(name: string): Promise<void> {
    this.#unwritten.delete(name);
    await rm(join(this.#directory, name), { force: true });
  }

  /** The names of all files that have a note, true or not. */
  async list(): Promise<readonly string[]> {
    const names = await readdir(this.#directory);
    return names.filter((name) => parseWalFileName(name) !== undefined);
  }

  /** Whether this reader believes the notes without asking the drainer. */
  isVouchedFor(reader: NoteReader): boolean {
    return existsSync(join(this.#directory, reader));
  }

  /** From now on nobody believes the notes unasked: they may become those of another repository. */
  async forgetReaders(): Promise<void> {
    for (const name of await readdir(this.#directory)) {
      const isReader = READERS.some((kind) => kind.test(name));
      if (isReader) await rm(join(this.#directory, name), { recursive: true, force: true });
    }
  }

  /**
   * Lets this reader believe the notes, and no longer an earlier one of its kind. The caller has
   * made sure that all notes that are there are true.
   */
  async vouchFor(reader: NoteReader): Promise<void> {
    const kind = READERS.find((one) => one.test(reader));
    let isThere = false;
    for (const name of await readdir(this.#directory)) {
      if (name === reader) isThere = true;
      else if (kind?.test(name) === true) await rm(join(this.#directory, name), { force: true });
    }
    if (!isThere) await symlink(".", join(this.#directory, reader));
  }
}

/** Whether the file system did it. */
async function succeeds(work: () => Promise<void>): Promise<boolean> {
  try {
    await work();
    return true;
  } catch (error) {
    if (systemErrorCode(error) === undefined) throw error;
    return false;
  }
}

async function hashOf(bytes: Uint8Array): Promise<string> {
  const native = nativeXxh64(bytes);
  if (native !== undefined) return native.toString(16).padStart(16, "0");
  return (await createHasher("xxh64")).digestOf(bytes);
}
