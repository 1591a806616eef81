import { closeSync, constants, fstatSync, openSync, read, readSync } from "node:fs";
import { systemErrorCode } from "../errors.ts";
import { localFileError } from "../io/system-error.ts";

/** A file that is open for reading; to be closed by scope. */
export class OpenFile implements Disposable {
  readonly #path: string;
  readonly #descriptor: number;

  constructor(path: string, descriptor: number) {
    this.#path = path;
    this.#descriptor = descriptor;
  }

  /**
   * Fills `target` from `position` on and gives how many bytes the file had; the rest of `target`
   * is set to zeros. Blocks: for small files only.
   */
  readSync(target: Uint8Array, position: number): number {
    let filled = 0;
    while (filled < target.length) {
      const count = this.#onDisk(() =>
        readSync(this.#descriptor, target, filled, target.length - filled, position + filled),
      );
      if (count === 0) break;
      filled += count;
    }
    target.fill(0, filled);
    return filled;
  }

  /** As `readSync`, without blocking. */
  async read(target: Uint8Array, position: number): Promise<number> {
    let filled = 0;
    while (filled < target.length) {
      const count = await this.#readSome(target.subarray(filled), position + filled);
      if (count === 0) break;
      filled += count;
    }
    target.fill(0, filled);
    return filled;
  }

  /** As it is now. */
  get sizeBytes(): number {
    return this.#onDisk(() => fstatSync(this.#descriptor).size);
  }

  [Symbol.dispose](): void {
    closeSync(this.#descriptor);
  }

  async #readSome(target: Uint8Array, position: number): Promise<number> {
    return await new Promise<number>((resolve, reject) => {
      read(this.#descriptor, target, 0, target.length, position, (error, count) => {
        if (error === null) resolve(count);
        else reject(localFileError("read", this.#path, error));
      });
    });
  }

  #onDisk<T>(work: () => T): T {
    try {
      return work();
    } catch (error) {
      throw localFileError("read", this.#path, error);
    }
  }
}

/** Undefined for a file that has disappeared, or become something else. Follows no link. */
export function openForReading(path: string): OpenFile | undefined {
  try {
    // Without O_NONBLOCK a pipe that took the file's place would hold us.
    const flags = constants.O_RDONLY | constants.O_NOFOLLOW | constants.O_NONBLOCK;
    return new OpenFile(path, openSync(path, flags));
  } catch (error) {
    const code = systemErrorCode(error);
    if (code === "ENOENT" || code === "ELOOP" || code === "ENXIO") return undefined;
    throw localFileError("open", path, error);
  }
}
