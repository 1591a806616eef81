import { readdir, rm, stat } from "node:fs/promises";
import { join } from "node:path";
import { StorageError, systemErrorCode } from "../errors.ts";
import { writeCacheFile } from "../io/cache-file.ts";
import { sha256Hex } from "../io/runtime.ts";

/**
 * Remembers, in the cache directory of this machine, that a directory has held objects. A mount
 * point whose file system is away is an empty directory: what is put there is hidden once the file
 * system is back, and lost with it if it was the only copy.
 */
export class RootMemory {
  readonly #root: string;
  readonly #path: string;
  #isNoted = false;

  /** `root`: absolute. */
  constructor(root: string, cacheDirectory: string) {
    this.#root = root;
    this.#path = join(cacheDirectory, `directory-${sha256Hex(root).slice(0, 16)}`);
  }

  /** Something was put. Never rejects: without a cache nothing is remembered. */
  async noteFilled(): Promise<void> {
    if (this.#isNoted) return;
    this.#isNoted = true;
    if (await isThere(this.#path)) return;
    await writeCacheFile(this.#path, `${this.#root}\n`).catch(() => {});
  }

  /** Something was deleted: where nothing is left, we know why it is empty. Never rejects. */
  async noteDeleted(): Promise<void> {
    if ((await readdir(this.#root).catch(() => [""])).length > 0) return;
    this.#isNoted = false;
    await rm(this.#path, { force: true }).catch(() => {});
  }

  /**
   * Before a directory is made for an object, and before an object is put into the root itself.
   * Rejects with StorageError if something was put before and nothing is there.
   */
  async requireKept(): Promise<void> {
    if (!(await isThere(this.#path))) return;
    const names = await readdir(this.#root).catch(() => [""]);
    if (names.length > 0) return;
    throw new StorageError(`storage directory ${this.#root} is empty, and it was not before`, {
      isRetryable: false,
      hint:
        "Is its file system mounted? Nothing is written, lest it be hidden by the mount. If the " +
        `repository was removed on purpose, delete ${this.#path}, and the next call begins anew.`,
    });
  }
}

async function isThere(path: string): Promise<boolean> {
  return await stat(path).then(
    () => true,
    (error: unknown) => {
      if (systemErrorCode(error) === undefined) throw error;
      return false;
    },
  );
}
