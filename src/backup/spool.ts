import { closeSync, read, writeSync } from "node:fs";
import { CHUNK_BYTES, type ByteStream } from "../io/bytes.ts";
import { localFileError } from "../io/system-error.ts";
import { openUnnamed } from "./page-file.ts";

/** Text that waits to be written; a spool has this much of it in memory. */
const PENDING_BYTES = 256 * 1024;
/** The same for the names of one part. */
const GROUP_PENDING_LENGTH = 64 * 1024;
/** Of one UTF-16 unit. */
const MAX_UTF8_BYTES = 3;

/**
 * Text that is collected during a backup and read at its end, in a file without a name: it goes
 * away with the process, however that ends.
 */
export class Spool implements Disposable {
  readonly #descriptor: number;
  readonly #directory: string;
  /** Used again and again: strings and buffers made for each piece would fill the heap. */
  readonly #pending = Buffer.allocUnsafeSlow(PENDING_BYTES);
  #pendingBytes = 0;
  #sizeBytes = 0;

  /** `directory` is made when it is not there. */
  constructor(directory: string) {
    this.#directory = directory;
    this.#descriptor = this.#onDisk(() => openUnnamed(directory));
  }

  /** Blocks now and then to write: the page cache takes it at memory speed. */
  append(text: string): void {
    if (text.length * MAX_UTF8_BYTES > PENDING_BYTES - this.#pendingBytes) this.flush();
    if (text.length * MAX_UTF8_BYTES > PENDING_BYTES) {
      this.#write(Buffer.from(text));
      return;
    }
    this.#pendingBytes += this.#pending.write(text, this.#pendingBytes);
  }

  /** Writes what is pending; gives the size in bytes. */
  flush(): number {
    this.#write(this.#pending.subarray(0, this.#pendingBytes));
    this.#pendingBytes = 0;
    return this.#sizeBytes;
  }

  /** All text so far, as UTF-8, or the bytes `[start, end)` of it. */
  async *read(start = 0, end = this.flush()): ByteStream {
    const buffer = Buffer.allocUnsafeSlow(Math.min(CHUNK_BYTES, Math.max(0, end - start)));
    for (let position = start; position < end;) {
      const wanted = Math.min(buffer.length, end - position);
      const count = await this.#readSome(buffer.subarray(0, wanted), position);
      if (count === 0) throw new Error(`spool ends at ${position}, before ${end}`);
      position += count;
      yield buffer.subarray(0, count);
    }
  }

  [Symbol.dispose](): void {
    closeSync(this.#descriptor);
  }

  #write(bytes: Uint8Array): void {
    let written = 0;
    while (written < bytes.length) {
      const position = this.#sizeBytes + written;
      written += this.#onDisk(() =>
        writeSync(this.#descriptor, bytes, written, bytes.length - written, position),
      );
    }
    this.#sizeBytes += bytes.length;
  }

  async #readSome(target: Uint8Array, position: number): Promise<number> {
    return await new Promise<number>((resolve, reject) => {
      read(this.#descriptor, target, 0, target.length, position, (error, count) => {
        if (error === null) resolve(count);
        else reject(localFileError("read temporary file in", this.#directory, error));
      });
    });
  }

  #onDisk<T>(work: () => T): T {
    try {
      return work();
    } catch (error) {
      throw localFileError("write temporary file in", this.#directory, error);
    }
  }
}

interface Group {
  readonly ranges: { readonly start: number; readonly end: number }[];
  pending: string[];
  pendingLength: number;
  isEmpty: boolean;
}

/**
 * Texts in groups that grow at the same time and are read one after the other, with commas between
 * the texts of a group.
 */
export class GroupedSpool implements Disposable {
  readonly #spool: Spool;
  readonly #groups = new Map<string, Group>();

  constructor(directory: string) {
    this.#spool = new Spool(directory);
  }

  append(name: string, text: string): void {
    const group = this.#groups.get(name) ?? this.#begin(name);
    const separated = group.isEmpty ? text : `,${text}`;
    group.isEmpty = false;
    group.pending.push(separated);
    group.pendingLength += separated.length;
    if (group.pendingLength >= GROUP_PENDING_LENGTH) this.#flush(group);
  }

  /** Names of the groups in the order of their first text. */
  names(): readonly string[] {
    return [...this.#groups.keys()];
  }

  async *read(name: string): ByteStream {
    const group = this.#groups.get(name);
    if (group === undefined) return;
    this.#flush(group);
    for (const { start, end } of group.ranges) yield* this.#spool.read(start, end);
  }

  [Symbol.dispose](): void {
    this.#spool[Symbol.dispose]();
  }

  #begin(name: string): Group {
    const group: Group = { ranges: [], pending: [], pendingLength: 0, isEmpty: true };
    this.#groups.set(name, group);
    return group;
  }

  #flush(group: Group): void {
    if (group.pending.length === 0) return;
    const start = this.#spool.flush();
    this.#spool.append(group.pending.join(""));
    group.ranges.push({ start, end: this.#spool.flush() });
    group.pending = [];
    group.pendingLength = 0;
  }
}
