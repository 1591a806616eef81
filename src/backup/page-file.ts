import { randomBytes } from "node:crypto";
import { closeSync, mkdirSync, openSync, readSync, unlinkSync } from "node:fs";
import { join } from "node:path";
import { localFileError } from "../io/system-error.ts";
import { writeAllSync } from "./whole-write.ts";

/**
 * Bytes that wait in a file without a name, at positions of the writer's choice: it goes away with
 * the process, however that ends. Blocks: the page cache takes and gives at memory speed.
 */
export class PageFile implements Disposable {
  readonly #descriptor: number;
  readonly #directory: string;
  #reservedBytes = 0;

  /** `directory` is made when it is not there. */
  constructor(directory: string) {
    this.#directory = directory;
    this.#descriptor = this.#onDisk("write", () => openUnnamed(directory));
  }

  /** Bytes that were reserved so far. */
  get sizeBytes(): number {
    return this.#reservedBytes;
  }

  /** Gives the position of so many bytes, which nobody else gets. */
  reserve(sizeBytes: number): number {
    const position = this.#reservedBytes;
    this.#reservedBytes += sizeBytes;
    return position;
  }

  write(bytes: Uint8Array, position: number): void {
    this.#onDisk("write", () => writeAllSync(this.#descriptor, bytes, position));
  }

  /** Fills `target`, which must have been written. */
  read(target: Uint8Array, position: number): void {
    let filled = 0;
    while (filled < target.length) {
      const count = this.#onDisk("read", () =>
        readSync(this.#descriptor, target, filled, target.length - filled, position + filled),
      );
      if (count === 0) throw new Error(`temporary file ends at ${position + filled}`);
      filled += count;
    }
  }

  [Symbol.dispose](): void {
    closeSync(this.#descriptor);
  }

  #onDisk<T>(action: "read" | "write", work: () => T): T {
    try {
      return work();
    } catch (error) {
      throw localFileError(`${action} temporary file in`, this.#directory, error);
    }
  }
}

/** Opens a file for reading and writing that no directory lists; makes the directory for it. */
export function openUnnamed(directory: string): number {
  mkdirSync(directory, { recursive: true, mode: 0o700 });
  const path = join(directory, `spool-${randomBytes(8).toString("hex")}`);
  const descriptor = openSync(path, "wx+", 0o600);
  unlinkSync(path);
  return descriptor;
}
