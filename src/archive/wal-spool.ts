import { type FileHandle, mkdtemp, open, readdir, rm } from "node:fs/promises";
import { join } from "node:path";
import { LocalFileError } from "../errors.ts";
import { type ByteStream, CHUNK_BYTES } from "../io/bytes.ts";
import { makeDirectories } from "../io/handed-over.ts";
import { describeProcess, isProcessAlive } from "../io/process-identity.ts";
import { localFileError } from "../io/system-error.ts";
import { type Lsn, lsn } from "../postgres/lsn.ts";
import { formatSegmentName, segmentStart } from "../postgres/wal-file.ts";
import type { CallOptions } from "../storage/storage.ts";

const DIRECTORY_PREFIX = "receive-";
const DIRECTORY_NAME = /^receive-(\d+)_(\d+)_([0-9a-f-]{36})-/;

/**
 * A directory of this process for segments on their way to the store; those that killed processes
 * left are removed. What is in it is needed by nobody else: the server has all of it.
 */
export class ReceiveDirectory implements AsyncDisposable {
  readonly path: string;

  /** `parent` is made when it is missing. */
  static async make(parent: string): Promise<ReceiveDirectory> {
    try {
      await makeDirectories(parent, 0o700);
      await removeLeftovers(parent);
      const owner = describeProcess()?.replaceAll(":", "_") ?? "unknown";
      return new ReceiveDirectory(await mkdtemp(join(parent, `${DIRECTORY_PREFIX}${owner}-`)));
    } catch (error) {
      throw localFileError("make a directory in", parent, error);
    }
  }

  private constructor(path: string) {
    this.path = path;
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await rm(this.path, { recursive: true, force: true });
  }
}

async function removeLeftovers(parent: string): Promise<void> {
  for (const name of await readdir(parent)) {
    const [, pid, startTime, boot] = DIRECTORY_NAME.exec(name) ?? [];
    if (pid === undefined || isProcessAlive(`${pid}:${startTime}:${boot}`)) continue;
    await rm(join(parent, name), { recursive: true, force: true });
  }
}

export interface WalSpoolOptions {
  readonly directory: string;
  readonly timeline: number;
  readonly segmentNumber: bigint;
  readonly segmentBytes: number;
}

/**
 * One segment while it is received: a file of the segment's size, zeros where nothing has come yet.
 * Filled from its start, without gaps.
 */
export class WalSpool implements AsyncDisposable {
  /** 24 digits. */
  readonly name: string;
  readonly path: string;
  readonly timeline: number;
  readonly segmentBytes: number;
  readonly startLsn: Lsn;
  readonly #handle: FileHandle;
  #receivedBytes = 0;

  static async create(options: WalSpoolOptions): Promise<WalSpool> {
    const { directory, timeline, segmentNumber, segmentBytes } = options;
    const name = formatSegmentName(timeline, segmentNumber, segmentBytes);
    const path = join(directory, name);
    try {
      const handle = await open(path, "wx+", 0o600);
      const spool = new WalSpool({ ...options, name, path }, handle);
      try {
        await handle.truncate(segmentBytes);
      } catch (error) {
        await spool[Symbol.asyncDispose]();
        throw error;
      }
      return spool;
    } catch (error) {
      throw localFileError("create", path, error);
    }
  }

  private constructor(
    options: WalSpoolOptions & { readonly name: string; readonly path: string },
    handle: FileHandle,
  ) {
    const { name, path, timeline, segmentNumber, segmentBytes } = options;
    this.name = name;
    this.path = path;
    this.timeline = timeline;
    this.segmentBytes = segmentBytes;
    this.startLsn = segmentStart(segmentNumber, segmentBytes);
    this.#handle = handle;
  }

  get receivedBytes(): number {
    return this.#receivedBytes;
  }

  /** Where the next byte belongs. */
  get receivedLsn(): Lsn {
    return lsn(this.startLsn + BigInt(this.#receivedBytes));
  }

  get isComplete(): boolean {
    return this.#receivedBytes === this.segmentBytes;
  }

  /** Takes as much of `bytes` as belongs to this segment; gives how much that was. */
  async append(bytes: Uint8Array): Promise<number> {
    const taken = Math.min(bytes.length, this.segmentBytes - this.#receivedBytes);
    let done = 0;
    try {
      while (done < taken) {
        const position = this.#receivedBytes + done;
        const { bytesWritten } = await this.#handle.write(bytes, done, taken - done, position);
        if (bytesWritten === 0) throw new LocalFileError(`${this.path} takes no more bytes`);
        done += bytesWritten;
      }
    } catch (error) {
      throw localFileError("write", this.path, error);
    }
    this.#receivedBytes += taken;
    return taken;
  }

  /**
   * The segment's whole size: the first `endBytes` as received, zeros behind them, whatever comes
   * in meanwhile. Each chunk is overwritten by the next one.
   */
  async *read(endBytes: number, { signal }: CallOptions): ByteStream {
    for await (const chunk of this.readRange({ start: 0, end: this.segmentBytes, endBytes })) {
      signal.throwIfAborted();
      yield chunk;
    }
  }

  /** The bytes [start, end) of what `read(endBytes)` would give. */
  async *readRange({
    start,
    end,
    endBytes,
  }: {
    readonly start: number;
    readonly end: number;
    readonly endBytes: number;
  }): ByteStream {
    const buffer = Buffer.allocUnsafeSlow(Math.min(CHUNK_BYTES, end - start));
    let position = start;
    const dataEnd = Math.min(end, endBytes);
    while (position < dataEnd) {
      const wanted = Math.min(buffer.length, dataEnd - position);
      const bytesRead = await this.#readAt(buffer.subarray(0, wanted), position);
      position += bytesRead;
      yield buffer.subarray(0, bytesRead);
    }
    buffer.fill(0);
    while (position < end) {
      const chunk = buffer.subarray(0, Math.min(buffer.length, end - position));
      position += chunk.length;
      yield chunk;
    }
  }

  /** Removes the file. */
  async [Symbol.asyncDispose](): Promise<void> {
    await this.#handle.close();
    await rm(this.path, { force: true });
  }

  async #readAt(buffer: Buffer, position: number): Promise<number> {
    try {
      const { bytesRead } = await this.#handle.read(buffer, 0, buffer.length, position);
      if (bytesRead === 0) throw new LocalFileError(`${this.path} became shorter`);
      return bytesRead;
    } catch (error) {
      throw localFileError("read", this.path, error);
    }
  }
}
