import { existsSync, type FSWatcher, watch } from "node:fs";
import { mkdir, readdir, rename, rm, statfs, symlink, writeFile } from "node:fs/promises";
import { join } from "node:path";
import { systemErrorCode } from "../errors.ts";
import { randomHex } from "../io/random.ts";
import { localFileError } from "../io/system-error.ts";
import type { ArchiveQueue } from "./archive-status.ts";
import { isCallerName } from "./caller-name.ts";
import { linkServer } from "./server-link.ts";

/** As setup's line calls a recovery: the startup process and a hash of the line's words. */
const RECOVERY = /^\d{1,10}-[0-9a-f]{8}$/;

/** Behind the name of a segment that is under way: the shell waits while there is such a file. */
export const COMING_SUFFIX = ".coming";

/** Beside the directory, where its watch does not see each write. */
const LANDING_SUFFIX = ".landing";

/** Whether a text can be the name of a recovery. */
export function isRecoveryName(text: string): boolean {
  return RECOVERY.test(text);
}

/**
 * Where one prefetcher puts its segments: a directory that no other process has had. The shell
 * finds it through a link with the recovery's name. See FETCH.md.
 */
export class PrefetchDirectory implements AsyncDisposable {
  readonly #parent: string;
  readonly #own: string;
  readonly path: string;
  /** By their kind; each has a link with its name. */
  readonly #readers = new Map<"recovery" | "caller", string>();

  /**
   * Makes it, and removes everything that earlier prefetchers left: only for who holds the socket.
   * Rejects with LocalFileError.
   */
  static async make(parent: string, queue: ArchiveQueue): Promise<PrefetchDirectory> {
    const own = `run-${randomHex(8)}`;
    try {
      for (const name of await readdir(parent)) {
        await rm(join(parent, name), { recursive: true, force: true });
      }
      for (const name of [own, `${own}${LANDING_SUFFIX}`]) {
        await mkdir(join(parent, name), { mode: 0o700 });
      }
    } catch (error) {
      throw localFileError("clear", parent, error);
    }
    await linkServer(queue, join(parent, own));
    return new PrefetchDirectory(parent, own);
  }

  private constructor(parent: string, own: string) {
    this.#parent = parent;
    this.#own = own;
    this.path = join(parent, own);
  }

  pathOf(name: string): string {
    return join(this.path, name);
  }

  /** Where a segment is written before it has its name. */
  temporaryPathOf(name: string): string {
    return join(`${this.path}${LANDING_SUFFIX}`, name);
  }

  /** Whether a segment is still there, or, without a name, the directory itself. */
  holds(name = ""): boolean {
    return existsSync(this.pathOf(name));
  }

  /** Tells the name of each file that comes or goes, until disposed of; on some file systems not. */
  watch(onChange: (name: string) => void): Disposable {
    let watcher: FSWatcher | undefined;
    try {
      watcher = watch(this.path, (_, name) => name !== null && onChange(name));
      watcher.on("error", () => {});
    } catch (error) {
      if (systemErrorCode(error) === undefined) throw error;
    }
    return { [Symbol.dispose]: () => watcher?.close() };
  }

  /** Room on its file system; 0 when the directory is gone. */
  async freeBytes(): Promise<number> {
    try {
      const { bavail, bsize } = await statfs(this.path);
      return bavail * bsize;
    } catch (error) {
      if (systemErrorCode(error) === undefined) throw error;
      return 0;
    }
  }

  /** Tells the shell whether the segment is under way; where it can't, the shell does not wait. */
  async setComing(name: string, isComing: boolean): Promise<void> {
    const path = `${this.pathOf(name)}${COMING_SUFFIX}`;
    try {
      await (isComing ? writeFile(path, "") : rm(path, { force: true }));
    } catch (error) {
      if (systemErrorCode(error) === undefined) throw error;
    }
  }

  async remove(name: string): Promise<void> {
    await rm(this.pathOf(name), { force: true });
  }

  /**
   * Lets the shell of a recovery, or a caller, find what is here, and no other of its kind any
   * more.
   */
  async openTo(reader: string): Promise<void> {
    const kind = isRecoveryName(reader) ? "recovery" : isCallerName(reader) ? "caller" : undefined;
    if (kind === undefined || this.#readers.get(kind) === reader) return;
    const before = this.#readers.get(kind);
    this.#readers.set(kind, reader);
    const temporaryPath = `${this.path}.link-${kind}`;
    if (before !== undefined) await rm(join(this.#parent, before), { force: true });
    await symlink(this.#own, temporaryPath);
    await rename(temporaryPath, join(this.#parent, reader));
  }

  async [Symbol.asyncDispose](): Promise<void> {
    for (const reader of this.holds() ? this.#readers.values() : []) {
      await rm(join(this.#parent, reader), { force: true });
    }
    for (const path of [`${this.path}${LANDING_SUFFIX}`, this.path]) {
      await rm(path, { recursive: true, force: true });
    }
  }
}
