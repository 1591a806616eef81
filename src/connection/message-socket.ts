import type { Duplex } from "node:stream";
import type { Client, Connection, Submittable } from "pg";
import { DatabaseError } from "../errors.ts";
import { untilAborted } from "../io/abort.ts";
import { type BackendMessage, MessageReader } from "./backend-message.ts";

/** Bytes of messages that may wait to be taken; then the server is told to wait, by TCP. */
const WAITING_BYTES_MAX = 1024 * 1024;

/** Told of each message as it comes, before it is queued; true keeps it out of the queue. */
export type MessageTap = (message: BackendMessage) => boolean;

/**
 * A connected session, message by message: exact bytes, both directions at once, and the server is
 * slowed down when we are. Taken over from npm pg, which connects and authenticates, but decodes
 * every value as UTF-8 and knows no copy in both directions.
 */
export class MessageSocket implements AsyncDisposable {
  readonly #stream: Duplex;
  readonly #reader = new MessageReader();
  readonly #waiting: BackendMessage[] = [];
  #waitingBytes = 0;
  #isPaused = false;
  #failure: Error | undefined;
  #wake: () => void = () => {};
  #tap: MessageTap = () => false;

  /** Takes over `client`, which must be connected and idle. From then on it is of no other use. */
  static async takeOver(
    client: Client,
    options: { readonly signal: AbortSignal },
  ): Promise<MessageSocket> {
    const connection = await untilAborted(
      new Promise<Connection>((resolve, reject) => {
        client.query(new Takeover(resolve, reject));
      }),
      options.signal,
    );
    return new MessageSocket(connection.stream, client);
  }

  private constructor(stream: Duplex, client: Client) {
    this.#stream = stream;
    stream.removeAllListeners("data");
    stream.on("data", (chunk: Buffer) => this.#take(chunk));
    stream.on("error", (error: Error) => this.#fail(connectionLost(error)));
    stream.on("end", () => this.#fail(connectionLost()));
    stream.on("close", () => this.#fail(connectionLost()));
    // pg tells its own listeners of the same loss; we have said it already.
    client.on("error", () => {});
    stream.resume();
  }

  /** Whether nothing more can come but what waits already. */
  get isClosed(): boolean {
    return this.#failure !== undefined;
  }

  /** Whether the server is being held up because we have not taken what came. */
  get isHoldingUp(): boolean {
    return this.#isPaused;
  }

  /** Of messages that came and were not taken yet. */
  get waitingBytes(): number {
    return this.#waitingBytes;
  }

  /** Replaces the tap; it must not throw. */
  setTap(tap: MessageTap): void {
    this.#tap = tap;
  }

  /** The next message; rejects with DatabaseError once the connection is lost and all was taken. */
  async next({ signal }: { readonly signal: AbortSignal }): Promise<BackendMessage> {
    for (;;) {
      signal.throwIfAborted();
      const message = this.#waiting.shift();
      if (message !== undefined) {
        this.#waitingBytes -= message.body.length;
        if (this.#isPaused && this.#waitingBytes < WAITING_BYTES_MAX / 2) {
          this.#isPaused = false;
          this.#stream.resume();
        }
        return message;
      }
      if (this.#failure !== undefined) throw this.#failure;
      const woken = new Promise<void>((resolve) => {
        this.#wake = resolve;
      });
      await untilAborted(woken, signal);
    }
  }

  /** Never waits: what we say is short. Says nothing on a lost connection; `next` tells of it. */
  write(message: Uint8Array): void {
    if (!this.isClosed && this.#stream.writable) this.#stream.write(message);
  }

  /** As `write`, but waits while the server does not take what was written before. */
  async writeGently(
    message: Uint8Array,
    { signal }: { readonly signal: AbortSignal },
  ): Promise<void> {
    this.write(message);
    while (!this.isClosed && this.#stream.writableNeedDrain) {
      signal.throwIfAborted();
      const { promise, resolve } = Promise.withResolvers<void>();
      this.#stream.once("drain", resolve);
      this.#stream.once("close", resolve);
      try {
        await untilAborted(promise, signal);
      } finally {
        this.#stream.off("drain", resolve);
        this.#stream.off("close", resolve);
      }
    }
  }

  /** Ends the connection at once. `reason` is what `next` rejects with. */
  destroy(reason: Error): void {
    this.#fail(reason);
    this.#stream.destroy();
  }

  async [Symbol.asyncDispose](): Promise<void> {
    this.destroy(new DatabaseError("the session was closed"));
  }

  #take(chunk: Buffer): void {
    try {
      for (const message of this.#reader.push(chunk)) {
        if (this.#tap(message)) continue;
        this.#waiting.push(message);
        this.#waitingBytes += message.body.length;
      }
    } catch (error) {
      this.destroy(error instanceof Error ? error : new Error(String(error)));
      return;
    }
    if (this.#waitingBytes >= WAITING_BYTES_MAX && !this.#isPaused) {
      this.#isPaused = true;
      this.#stream.pause();
    }
    this.#wake();
  }

  #fail(error: Error): void {
    this.#failure ??= error;
    this.#wake();
  }
}

function connectionLost(cause?: Error): DatabaseError {
  const why = cause === undefined ? "" : `: ${cause.message}`;
  return new DatabaseError(`the connection to PostgreSQL was lost${why}`, { cause });
}

/** Gets hold of a client's connection by the way that pg has for foreign queries. */
class Takeover implements Submittable {
  readonly #taken: (connection: Connection) => void;
  readonly #failed: (error: Error) => void;

  constructor(taken: (connection: Connection) => void, failed: (error: Error) => void) {
    this.#taken = taken;
    this.#failed = failed;
  }

  submit(connection: Connection): void {
    this.#taken(connection);
  }

  /** pg calls this when the connection is lost, before or after we have it. */
  handleError(error: Error): void {
    this.#failed(error);
  }
}
