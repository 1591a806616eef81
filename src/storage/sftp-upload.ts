import { StorageError } from "../errors.ts";
import { abortable, untilAborted } from "../io/abort.ts";
import type { ByteStream } from "../io/bytes.ts";
import { createHasher } from "../io/hash.ts";
import type { Hasher } from "../io/hash.ts";
import type { Retries } from "../io/retry.ts";
import { isNoSuchFile } from "./sftp-errors.ts";
import type { SftpLease } from "./sftp-pool.ts";
import type { SftpSession } from "./sftp-session.ts";
import type { SendOptions } from "./storage.ts";
import { AHEAD_BYTES, readStream } from "./sftp-transfer.ts";

export interface SftpUploadOptions extends SendOptions {
  /** Of the file that is written. */
  readonly path: string;
  /** For messages. */
  readonly storageName: string;
  /** Decides how often a connection is made again. */
  readonly retries: Retries;
  lease(): Promise<SftpLease>;
  /** Makes the file, which must be new, and opens it. */
  create(session: SftpSession): Promise<Buffer>;
}

/** Sent and perhaps not stored: kept until the server has acknowledged it and all before it. */
interface Piece {
  readonly position: number;
  readonly bytes: Buffer;
  isStored: boolean;
}

/** The file, opened over one connection. */
interface Link {
  readonly session: SftpSession;
  readonly handle: Buffer;
  /** Aborted by the first request that failed, by the connection's end, or by the caller. */
  readonly stop: AbortSignal;
  readonly failure: AbortController;
  readonly pending: Set<Promise<void>>;
  isClosed: boolean;
}

/** After so many bytes the server is told to make them durable: they need no proof later. */
const CHECKPOINT_BYTES = 256 * 1024 * 1024;

/**
 * Writes one stream into a new file and survives cuts of the connection, as long as the server
 * keeps what it acknowledged:
 *
 * - What is sent is kept until it is acknowledged, and sent again over the next connection.
 * - What was acknowledged and not yet made durable is read back there and compared by its sum,
 *   then made durable: the server may have been restarted meanwhile.
 *
 * Requests of the old connection that the server still has in its hands write the same bytes at the
 * same places.
 */
export class SftpUpload implements Disposable {
  readonly #options: SftpUploadOptions;
  readonly #pieces: Piece[] = [];
  readonly #sum: Hasher;
  readonly #readSum: Hasher;
  #lease: SftpLease | undefined;
  #link: Link | undefined;
  #sentBytes = 0;
  /** All before is acknowledged, and all before `#durableBytes` was made durable. */
  #storedBytes = 0;
  #durableBytes = 0;
  /** The sum of what is between the two, where a proof of it was begun. */
  #unproved: string | undefined;
  /** Why what is in the file can't be gone on with. */
  #loss: StorageError | undefined;

  private constructor(options: SftpUploadOptions, [sum, readSum]: readonly [Hasher, Hasher]) {
    this.#options = options;
    this.#sum = sum;
    this.#readSum = readSum;
  }

  static async open(options: SftpUploadOptions): Promise<SftpUpload> {
    const sums = [await createHasher("xxh64"), await createHasher("xxh64")] as const;
    return new SftpUpload(options, sums);
  }

  /** Writes all of `body`, once; resolves when it is durable and the file closed. */
  async run(body: () => ByteStream): Promise<void> {
    const { signal } = this.#options;
    await this.#surely(() => this.#ready());
    for await (const chunk of abortable(body(), signal)) {
      const { pieceBytes } = this.#current().session.connection;
      for (let start = 0; start < chunk.length; start += pieceBytes) {
        await this.#surely(() => this.#makeRoom());
        // The chunk is the producer's again before all of it is acknowledged.
        const bytes = Buffer.from(chunk.subarray(start, start + pieceBytes));
        const piece = { position: this.#sentBytes, bytes, isStored: false };
        this.#sentBytes += bytes.length;
        this.#pieces.push(piece);
        this.#send(this.#current(), piece);
      }
    }
    await this.#surely(() => this.#finish());
  }

  /**
   * Does with the finished file what is left to do, over another connection after a cut. `isAgain`:
   * an attempt before may have done it.
   */
  async settle<T>(work: (session: SftpSession, isAgain: boolean) => Promise<T>): Promise<T> {
    const { retries, signal } = this.#options;
    for (let isAgain = false; ; isAgain = true) {
      try {
        const session = isAgain ? await this.#connect() : (this.session ?? (await this.#connect()));
        return await untilAborted(work(session, isAgain), signal);
      } catch (error) {
        await retries.afterFailure(error, { signal });
      }
    }
  }

  /** For what is to be cleared up after a failure; undefined without a connection. */
  get session(): SftpSession | undefined {
    return this.#lease?.session;
  }

  [Symbol.dispose](): void {
    // The answer is of no interest; a file that was finished is closed.
    if (this.#link?.isClosed === false) {
      this.#link.session.close(this.#link.handle).catch(() => {});
    }
    this.#leave();
  }

  async #ready(): Promise<void> {
    if (this.#link !== undefined) return;
    const session = await this.#connect();
    this.#link = this.#linkOf(session, await this.#options.create(session));
  }

  async #connect(): Promise<SftpSession> {
    this.#leave();
    this.#lease = await this.#options.lease();
    return this.#lease.session;
  }

  #leave(): void {
    this.#lease?.[Symbol.dispose]();
    this.#lease = undefined;
    this.#link = undefined;
  }

  #current(): Link {
    if (this.#link === undefined) throw new Error("the file is not open");
    return this.#link;
  }

  #linkOf(session: SftpSession, handle: Buffer): Link {
    const failure = new AbortController();
    const { broken } = session.connection;
    const stop = AbortSignal.any([this.#options.signal, failure.signal, broken]);
    return { session, handle, stop, failure, pending: new Set(), isClosed: false };
  }

  /** Repeats `work` over another connection as often as one is cut. */
  async #surely<T>(work: () => Promise<T>): Promise<T> {
    const { retries, signal } = this.#options;
    for (let isCut = false; ; isCut = true) {
      try {
        if (isCut) await this.#reopen();
        return await work();
      } catch (error) {
        // Only from the source's beginning: that is not ours to repeat.
        if (error === this.#loss) throw error;
        await retries.afterFailure(error, { signal });
      }
    }
  }

  async #makeRoom(): Promise<void> {
    const link = this.#current();
    const { pieceBytes } = link.session.connection;
    const mostPieces = Math.max(1, Math.floor(AHEAD_BYTES / pieceBytes));
    while (link.pending.size >= mostPieces) {
      await untilAborted(Promise.race(link.pending), link.stop);
    }
    link.stop.throwIfAborted();
    if (this.#sentBytes - this.#durableBytes >= CHECKPOINT_BYTES) await this.#makeDurable(link);
  }

  #send(link: Link, piece: Piece): void {
    const writing = link.session
      .write(link.handle, piece.bytes, piece.position)
      .then(() => this.#acknowledge(piece))
      .catch((error: unknown) => link.failure.abort(error))
      .finally(() => link.pending.delete(writing));
    link.pending.add(writing);
  }

  #acknowledge(piece: Piece): void {
    if (piece.isStored) return;
    piece.isStored = true;
    this.#options.retries.reset();
    for (let first = this.#pieces[0]; first?.isStored === true; first = this.#pieces[0]) {
      this.#sum.update(first.bytes);
      this.#storedBytes += first.bytes.length;
      this.#pieces.shift();
    }
    this.#options.onSent?.(this.#storedBytes);
  }

  async #makeDurable(link: Link): Promise<void> {
    await untilAborted(Promise.all(link.pending), link.stop);
    link.stop.throwIfAborted();
    await untilAborted(link.session.fsync(link.handle), link.stop);
    this.#sum.digest();
    this.#durableBytes = this.#storedBytes;
  }

  async #finish(): Promise<void> {
    const link = this.#current();
    const { session } = link;
    await this.#makeDurable(link);
    const { size } = await untilAborted(session.statHandle(link.handle), link.stop);
    if (size !== this.#sentBytes) throw this.#lost(`it has ${size} bytes`);
    await untilAborted(session.close(link.handle), link.stop);
    link.isClosed = true;
  }

  async #reopen(): Promise<void> {
    const { path, signal } = this.#options;
    const session = await this.#connect();
    if (this.#sentBytes === 0) {
      // Whether it was made is not known: it is made again.
      await untilAborted(session.unlink(path), signal).catch((error: unknown) => {
        if (!isNoSuchFile(error)) throw error;
      });
      this.#link = this.#linkOf(session, await this.#options.create(session));
      return;
    }
    const handle = await untilAborted(session.open(path, "r+"), signal);
    const link = this.#linkOf(session, handle);
    this.#link = link;
    await this.#prove(link);
    for (const piece of this.#pieces) this.#send(link, piece);
  }

  /** Reads back what was acknowledged, and has it made durable. */
  async #prove({ session, handle, stop }: Link): Promise<void> {
    const expected = (this.#unproved ??= this.#sum.digest());
    const range = { start: this.#durableBytes, end: this.#storedBytes };
    this.#readSum.digest();
    if (range.end > range.start) {
      for await (const chunk of readStream(session, handle, range, { signal: stop })) {
        this.#readSum.update(chunk);
      }
    }
    if (this.#readSum.digest() !== expected) throw this.#lost("other bytes are in it");
    await untilAborted(session.fsync(handle), stop);
    this.#durableBytes = this.#storedBytes;
    this.#unproved = undefined;
  }

  #lost(found: string): StorageError {
    const { path, storageName } = this.#options;
    this.#loss = new StorageError(
      `the server of ${storageName} has lost a part of ${path} that it had acknowledged: ${found}`,
      { isRetryable: true, hint: "It may have been restarted meanwhile. Start again." },
    );
    return this.#loss;
  }
}
