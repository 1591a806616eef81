import { existsSync, type FSWatcher, watch } from "node:fs";
import { readdir, readFile, rename, stat } from "node:fs/promises";
import { basename, dirname, join } from "node:path";
import { systemErrorCode } from "../errors.ts";
import { localFileError } from "../io/system-error.ts";
import { parseWalFileName } from "../postgres/wal-file.ts";

const READY = ".ready";

/** Where PostgreSQL and we meet: the files of one data directory that are to be archived. */
export interface ArchiveQueue {
  /** PGDATA. */
  readonly dataDirectory: string;
  /** pg_wal in it. */
  readonly walDirectory: string;
  readonly statusDirectory: string;
}

/**
 * The queue that a file to be archived belongs to; undefined unless PostgreSQL has marked it ready.
 */
export function queueOf(walPath: string): ArchiveQueue | undefined {
  const queue = queueIn(dirname(dirname(walPath)));
  const name = basename(walPath);
  if (join(queue.walDirectory, name) !== walPath) return undefined;
  return isReady(queue, name) ? queue : undefined;
}

/** The queue of a data directory, whether or not there is one. */
export function queueIn(dataDirectory: string): ArchiveQueue {
  const walDirectory = join(dataDirectory, "pg_wal");
  return { dataDirectory, walDirectory, statusDirectory: join(walDirectory, "archive_status") };
}

/** Whether PostgreSQL still waits for this file to be archived. */
export function isReady({ statusDirectory }: ArchiveQueue, name: string): boolean {
  return existsSync(join(statusDirectory, `${name}${READY}`));
}

/**
 * What a call and a drainer must have in common: their settings, and the queue itself. Containers
 * that share a spool directory may have the same path for different servers.
 */
export async function drainSettings(
  settings: string,
  { statusDirectory }: ArchiveQueue,
): Promise<string> {
  try {
    const { dev, ino } = await stat(statusDirectory, { bigint: true });
    return `${settings} ${dev}:${ino}`;
  } catch (error) {
    throw localFileError("look at", statusDirectory, error);
  }
}

/** Every WAL file that waits to be archived. Rejects with LocalFileError. */
export async function listReady({ statusDirectory }: ArchiveQueue): Promise<Set<string>> {
  try {
    const names = new Set<string>();
    for (const entry of await readdir(statusDirectory)) {
      const name = readyName(entry);
      if (name !== undefined) names.add(name);
    }
    return names;
  } catch (error) {
    throw localFileError("list", statusDirectory, error);
  }
}

/**
 * Marks files as archived, as PostgreSQL would, but only so many without hearing from it: an
 * archive_command that is not ours any more must not find its files taken away.
 */
export class DoneMarks {
  readonly #queue: ArchiveQueue;
  readonly #limit: number;
  #markedCount = 0;

  /** `limit` files between two calls; 0 = none. */
  constructor(queue: ArchiveQueue, limit: number) {
    this.#queue = queue;
    this.#limit = limit;
  }

  /** PostgreSQL has called us. */
  heard(): void {
    this.#markedCount = 0;
  }

  /** Does nothing beyond the limit, and for a file that is not marked as ready any more. */
  async add(name: string): Promise<void> {
    if (this.#markedCount >= this.#limit) return;
    this.#markedCount += 1;
    const mark = join(this.#queue.statusDirectory, name);
    try {
      await rename(`${mark}${READY}`, `${mark}.done`);
    } catch (error) {
      if (systemErrorCode(error) === undefined) throw error;
    }
  }
}

/**
 * Calls `onChange` with the name of each WAL file whose mark changes; only ever a hint. Undefined
 * where nothing can be watched.
 */
export function watchMarks(
  { statusDirectory }: ArchiveQueue,
  onChange: (name: string) => void,
): FSWatcher | undefined {
  try {
    const watcher = watch(statusDirectory, (_, entry) => {
      const name = entry?.replace(/\.(ready|done)$/, "");
      if (name !== undefined && parseWalFileName(name) !== undefined) onChange(name);
    });
    watcher.on("error", () => {});
    return watcher;
  } catch {
    return undefined;
  }
}

/**
 * Names the running server: another start has another name. Undefined when no server runs.
 *
 * @source CreateLockFile, src/backend/utils/init/miscinit.c: line 1 is its pid, line 3 its start
 */
export async function serverStart({ dataDirectory }: ArchiveQueue): Promise<string | undefined> {
  try {
    const [pid, , start] = (await readFile(join(dataDirectory, "postmaster.pid"), "utf8")).split(
      "\n",
    );
    return pid === undefined || start === undefined ? undefined : `${pid} ${start}`;
  } catch (error) {
    if (systemErrorCode(error) === undefined) throw error;
    return undefined;
  }
}

function readyName(entry: string): string | undefined {
  if (!entry.endsWith(READY)) return undefined;
  const name = entry.slice(0, -READY.length);
  return parseWalFileName(name) === undefined ? undefined : name;
}
