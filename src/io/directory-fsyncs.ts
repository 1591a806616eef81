import { open } from "node:fs/promises";
import type { FileHandle } from "node:fs/promises";
import { systemErrorCode } from "../errors.ts";

/**
 * A directory younger than this may have been made by a writer who has not fsynced its parent yet,
 * or was killed before it could; then we do it. Compared by the file system's own clock.
 */
const SETTLED_NS = 10n * 60n * 1_000_000_000n;

/** More directories than a repository gets in the life of a process. */
const MAX_REMEMBERED = 10_000;

/** A directory of which the names were made durable. */
export interface SyncedDirectory {
  /** Tells it from every other one that there ever was; undefined where nothing does. */
  readonly identity: string | undefined;
  /** Whether the directory's own name is surely durable. */
  readonly isDurable: boolean;
}

interface Turn {
  /** It may have begun before the names of those who come now were there. */
  readonly running: Promise<SyncedDirectory>;
  next: Promise<SyncedDirectory> | undefined;
}

/**
 * Makes names in directories durable for many writers at once: who comes while a directory is being
 * fsynced shares the next fsync with all others who came meanwhile. Remembers which directories
 * have durable names themselves. Its owner is who owns the writers.
 */
export class DirectoryFsyncs {
  readonly #turns = new Map<string, Turn>();
  readonly #durable = new Set<string>();

  /**
   * All names that are in the directory at the time of the call. At the top it does not matter
   * whether its own name is durable. Rejects with the error of the system.
   */
  async sync(directory: string, isTop: boolean): Promise<SyncedDirectory> {
    const turn = this.#turns.get(directory);
    if (turn === undefined) return await this.#begin(directory, isTop);
    const begin = async (): Promise<SyncedDirectory> => await this.#begin(directory, isTop);
    turn.next ??= turn.running.then(begin, begin);
    return await turn.next;
  }

  /** The directory's own name is durable. */
  remember({ identity }: SyncedDirectory): void {
    if (identity === undefined) return;
    if (this.#durable.size >= MAX_REMEMBERED) this.#durable.clear();
    this.#durable.add(identity);
  }

  async #begin(directory: string, isTop: boolean): Promise<SyncedDirectory> {
    const running = this.#syncOnce(directory, isTop);
    const turn: Turn = { running, next: undefined };
    this.#turns.set(directory, turn);
    try {
      return await running;
    } finally {
      if (turn.next === undefined) this.#turns.delete(directory);
    }
  }

  async #syncOnce(directory: string, isTop: boolean): Promise<SyncedDirectory> {
    await using handle = await open(directory, "r");
    await syncDirectoryHandle(handle);
    if (isTop) return { identity: undefined, isDurable: true };
    const { dev, ino, birthtimeNs, mtimeNs } = await handle.stat({ bigint: true });
    if (birthtimeNs <= 0n) return { identity: undefined, isDurable: false };
    const identity = `${dev}:${ino}:${birthtimeNs}`;
    const isDurable = mtimeNs - birthtimeNs > SETTLED_NS || this.#durable.has(identity);
    return { identity, isDurable };
  }
}

/** Like PostgreSQL's fsync_fname: some file systems can't fsync a directory, and say so thus. */
const NO_DIRECTORY_FSYNC_CODES: ReadonlySet<string> = new Set(["EINVAL", "EBADF", "ENOTSUP"]);

/** Makes the names in an open directory durable, where the file system can. */
export async function syncDirectoryHandle(handle: FileHandle): Promise<void> {
  try {
    await handle.sync();
  } catch (error) {
    if (!NO_DIRECTORY_FSYNC_CODES.has(systemErrorCode(error) ?? "")) throw error;
  }
}
