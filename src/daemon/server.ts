import type { Socket } from "node:net";
import { InterruptedError, NotInArchiveError, OperationError } from "../errors.ts";
import type { Clock } from "../io/clock.ts";
import type { Log } from "../io/log.ts";
import { isHungUp } from "../io/runtime.ts";
import { Listener } from "./listener.ts";
import { type DaemonMessage, type DaemonReply, MessageReader } from "./protocol.ts";

interface CallOptions {
  readonly signal: AbortSignal;
}

/** What the daemon does for its clients; called for many of them at the same time. */
export interface DaemonWork {
  /** Resolves when the store holds the file of pg_wal. */
  push(name: string, options: CallOptions): Promise<void>;
  /** Rejects with NotInArchiveError only on proof. */
  fetch(name: string, destination: string, options: CallOptions): Promise<void>;
}

export interface DaemonServerOptions {
  readonly path: string;
  /** Takes connections from this descriptor instead. */
  readonly listenDescriptor?: number | undefined;
  readonly work: DaemonWork;
  /** Asked for each line: it may be another one after a reload. */
  readonly log: () => Log;
  readonly clock: Clock;
  /** Whether this is the data directory that is served, by directoryIdentity; any unless given. */
  readonly isServed?: (dataDirectory: string) => boolean;
  readonly limits?: Partial<DaemonLimits>;
}

export interface DaemonLimits {
  /** Connections; the longest idle one makes room. */
  readonly clients: number;
  /** From the first byte of a message to its last. */
  readonly messageMs: number;
  /** For the client to close after its answer. */
  readonly closeMs: number;
}

const LIMITS: DaemonLimits = { clients: 128, messageMs: 10_000, closeMs: 2000 };
/** What nobody has asked for may be thrown away, but not for ever. */
const JUNK_BYTES_MAX = 1024 * 1024;
/** Answers that a client does not read. */
const UNREAD_BYTES_MAX = 16 * 1024;
const HANG_UP_POLL_MS = 250;
/** How long aborted work may take to clean up before it is left behind. */
const ABORT_MS = 5000;

/** The daemon's end of the protocol: connections, their limits, and the answers. */
export class DaemonServer {
  readonly #options: DaemonServerOptions;
  readonly #limits: DaemonLimits;
  readonly #connections = new Set<Connection>();
  readonly #running = new Map<AbortController, Promise<void>>();
  #listener: Listener | undefined;
  #isStopping = false;
  #progressAtMs = 0;
  readonly counts = { done: 0, failed: 0 };

  /** Rejects with RefusedError when another daemon listens there, and with LocalFileError. */
  static async listen(options: DaemonServerOptions): Promise<DaemonServer> {
    const server = new DaemonServer(options);
    const onConnection = (socket: Socket): void => server.#accept(socket);
    const { path, listenDescriptor } = options;
    server.#listener = await (listenDescriptor === undefined
      ? Listener.open(path, onConnection)
      : Listener.adopt(listenDescriptor, onConnection));
    return server;
  }

  private constructor(options: DaemonServerOptions) {
    this.#options = options;
    this.#limits = { ...LIMITS, ...options.limits };
  }

  get clientCount(): number {
    return this.#connections.size;
  }

  get runningCount(): number {
    return this.#running.size;
  }

  /** For how long there was work and none of it ended, in milliseconds. */
  get stalledMs(): number {
    return this.#running.size === 0 ? 0 : this.#now() - this.#progressAtMs;
  }

  /** Whether clients still find us at the path. */
  async isOwn(): Promise<boolean> {
    return (await this.#listener?.isOwn()) ?? false;
  }

  /**
   * Takes no more connections, lets what is under way go on for `graceMs`, then aborts it. Every
   * client that waits gets an answer.
   */
  async stop({ graceMs }: { readonly graceMs: number }): Promise<void> {
    this.#isStopping = true;
    await this.#listener?.close();
    for (const connection of this.#connections) if (!connection.isWorking) connection.end();
    await this.#ended(graceMs);
    for (const controller of this.#running.keys()) {
      controller.abort(new InterruptedError("the daemon stops"));
    }
    await this.#ended(ABORT_MS);
    for (const connection of this.#connections) connection.end();
    const closed = Promise.all([...this.#connections].map((one) => one.closed));
    await within(closed, this.#limits.closeMs);
    for (const connection of this.#connections) connection.destroy();
  }

  async #ended(ms: number): Promise<void> {
    await within(Promise.all(this.#running.values()), ms);
  }

  #accept(socket: Socket): void {
    if (this.#isStopping) return void socket.destroy();
    if (this.#connections.size >= this.#limits.clients) this.#makeRoom();
    const connection = new Connection(socket, {
      limits: this.#limits,
      nowMs: () => this.#now(),
      isServed: this.#options.isServed ?? (() => true),
      onMessage: (message, isGone) => this.#answer(message, isGone),
      onWrong: (reason) => this.#options.log().warning("client is refused", { reason }),
      onClosed: () => void this.#connections.delete(connection),
    });
    this.#connections.add(connection);
    if (this.#connections.size > this.#limits.clients) {
      this.#options
        .log()
        .warning("client is refused", { reason: "as many as there may be wait for an answer" });
      connection.end("E");
    }
  }

  #makeRoom(): void {
    const idle = [...this.#connections].filter(({ isWorking }) => !isWorking);
    const [longest] = idle.toSorted((one, other) => one.idleSinceMs - other.idleSinceMs);
    longest?.destroy();
    if (longest !== undefined) this.#connections.delete(longest);
  }

  /** Never rejects. */
  async #answer(message: DaemonMessage, isGone: () => boolean): Promise<DaemonReply> {
    if (message.kind === "check") return "O";
    const controller = new AbortController();
    const { promise, resolve } = Promise.withResolvers<void>();
    if (this.#running.size === 0) this.#progressAtMs = this.#now();
    this.#running.set(controller, promise);
    // A late file must not come to a place where somebody else's is expected by now.
    const watch = setInterval(() => {
      if (message.kind !== "fetch" || !isGone()) return;
      controller.abort(new InterruptedError("the client has gone"));
    }, HANG_UP_POLL_MS);
    try {
      await this.#do(message, controller.signal);
      this.counts.done += 1;
      return "O";
    } catch (error) {
      if (message.kind === "fetch" && error instanceof NotInArchiveError) return "N";
      this.counts.failed += 1;
      this.#tell(message, error);
      return "E";
    } finally {
      clearInterval(watch);
      this.#progressAtMs = this.#now();
      this.#running.delete(controller);
      resolve();
    }
  }

  async #do(
    message: Exclude<DaemonMessage, { kind: "check" }>,
    signal: AbortSignal,
  ): Promise<void> {
    const { work } = this.#options;
    if (message.kind === "push") return await work.push(message.name, { signal });
    await work.fetch(message.name, message.destination, { signal });
  }

  #tell({ kind, name }: Exclude<DaemonMessage, { kind: "check" }>, error: unknown): void {
    const log = this.#options.log();
    if (error instanceof OperationError) {
      const { message: reason, code, hint } = error;
      log.error(`${kind} failed`, { wal: name, reason, code, hint });
      return;
    }
    const stack = error instanceof Error ? error.stack : String(error);
    log.error("a bug in walnut; please report this", { wal: name, stack });
  }

  #now(): number {
    return this.#options.clock.monotonicMs();
  }
}

interface ConnectionOptions {
  readonly limits: DaemonLimits;
  readonly nowMs: () => number;
  readonly isServed: (dataDirectory: string) => boolean;
  /** `isGone` tells whether the client has left. */
  readonly onMessage: (message: DaemonMessage, isGone: () => boolean) => Promise<DaemonReply>;
  readonly onWrong: (reason: string) => void;
  readonly onClosed: () => void;
}

class Connection {
  readonly #socket: Socket;
  readonly #options: ConnectionOptions;
  readonly #reader = new MessageReader();
  readonly #closed = Promise.withResolvers<void>();
  /** Runs while a message is not complete, or while the client is to close. */
  #timer: ReturnType<typeof setTimeout> | undefined;
  #state: "listening" | "working" | "ended" = "listening";
  #junkBytes = 0;
  idleSinceMs: number;

  constructor(socket: Socket, options: ConnectionOptions) {
    this.#socket = socket;
    this.#options = options;
    this.idleSinceMs = options.nowMs();
    socket.on("data", (piece: Buffer) => this.#take(piece));
    socket.on("end", () => this.#state === "listening" && this.end("E"));
    socket.on("error", () => this.destroy());
    socket.on("close", () => {
      clearTimeout(this.#timer);
      options.onClosed();
      this.#closed.resolve();
    });
  }

  get isWorking(): boolean {
    return this.#state === "working";
  }

  get closed(): Promise<void> {
    return this.#closed.promise;
  }

  /** The last answer, if any; then the connection is closed, by force if need be. */
  end(reply?: DaemonReply): void {
    if (this.#state === "ended") return;
    this.#state = "ended";
    clearTimeout(this.#timer);
    this.#timer = setTimeout(() => this.destroy(), this.#options.limits.closeMs);
    if (reply === undefined) this.#socket.end();
    else this.#socket.end(reply);
  }

  destroy(): void {
    this.#state = "ended";
    clearTimeout(this.#timer);
    this.#socket.destroy();
  }

  #take(piece: Buffer): void {
    if (this.#state !== "listening") {
      // Read on: closing with unread bytes would reset the connection and take the answer along.
      this.#junkBytes += piece.length;
      if (this.#junkBytes > JUNK_BYTES_MAX) this.destroy();
      return;
    }
    this.#reader.push(piece);
    this.#readMessages();
  }

  #readMessages(): void {
    const { limits, nowMs, isServed, onWrong } = this.#options;
    try {
      for (let next = this.#reader.next(); next !== undefined; next = this.#reader.next()) {
        if (next.kind !== "check") return this.#work(next);
        if (next.dataDirectory !== undefined && !isServed(next.dataDirectory)) {
          onWrong("it is called by the server of another data directory than PGDATA");
          return this.end("N");
        }
        this.#socket.write("O");
        this.idleSinceMs = nowMs();
        clearTimeout(this.#timer);
        this.#timer = undefined;
      }
    } catch (error) {
      if (!(error instanceof OperationError)) throw error;
      onWrong(error.message);
      return this.end("E");
    }
    if (this.#socket.writableLength > UNREAD_BYTES_MAX) return this.destroy();
    if (!this.#reader.isInside) return;
    this.#timer ??= setTimeout(() => {
      onWrong("its message does not get complete");
      this.end("E");
    }, limits.messageMs);
  }

  #work(message: DaemonMessage): void {
    this.#state = "working";
    clearTimeout(this.#timer);
    void this.#answer(message);
  }

  async #answer(message: DaemonMessage): Promise<void> {
    const isGone = (): boolean => this.#socket.destroyed || isHungUp(this.#socket);
    const reply = await this.#options.onMessage(message, isGone);
    if (this.#state === "working") this.end(reply);
  }
}

/** Resolves with the promise, or when the time is up. */
async function within(promise: Promise<unknown>, ms: number): Promise<void> {
  const { promise: over, resolve } = Promise.withResolvers<void>();
  const timer = setTimeout(resolve, ms);
  await Promise.race([promise, over]);
  clearTimeout(timer);
}
