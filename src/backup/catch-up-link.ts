import { randomBytes } from "node:crypto";
import { once } from "node:events";
import type { Socket } from "node:net";
import { DeadlineError, FormatError, OperationError, TruncatedError } from "../errors.ts";
import { untilAborted } from "../io/abort.ts";
import { ByteCursor } from "../io/byte-cursor.ts";
import type { ByteStream } from "../io/bytes.ts";
import type { Clock } from "../io/clock.ts";
import { isSystemError } from "../io/system-error.ts";
import {
  deriveKeys,
  formatGreeting,
  type Frame,
  FrameOpener,
  FrameSealer,
  type FrameType,
  type LinkKeys,
  type LinkRole,
  NONCE_BYTES,
  readGreeting,
} from "./catch-up-frames.ts";
import { formatFailure, parseFailure } from "./catch-up-messages.ts";

export interface LinkOptions {
  readonly role: LinkRole;
  /** What both ends know. */
  readonly secret: string;
  readonly clock: Clock;
  /** An end that has said nothing for so long counts as gone. */
  readonly idleMs: number;
  readonly signal: AbortSignal;
}

/** Signs of life within the time after which an end counts as gone. */
const SIGNS_OF_LIFE = 4;
/** How long the other end may take to read why we gave up. */
const FAREWELL_MS = 5000;

/**
 * Two walnuts that talk over one connection: frames that are encrypted, authenticated and counted.
 * Disposing closes the connection.
 */
export class CatchUpLink implements AsyncDisposable {
  readonly #socket: Socket;
  readonly #options: LinkOptions;
  readonly #sealer: FrameSealer;
  readonly #opener: FrameOpener;
  readonly #bytes: ByteCursor;
  readonly #gone = new AbortController();
  #waitingSinceMs: number | undefined;
  #heardAtMs: number;
  #sentAtMs: number;

  private constructor(
    socket: Socket,
    options: LinkOptions,
    { bytes, keys }: { readonly bytes: ByteCursor; readonly keys: LinkKeys },
  ) {
    this.#socket = socket;
    this.#options = options;
    const { role } = options;
    this.#sealer = new FrameSealer(keys[role]);
    this.#opener = new FrameOpener(bytes, keys[role === "sender" ? "receiver" : "sender"]);
    this.#bytes = bytes;
    const now = options.clock.monotonicMs();
    this.#heardAtMs = now;
    this.#sentAtMs = now;
  }

  /**
   * Resolves when the other end has proved that it knows the secret. Rejects with WrongKeyError
   * when it does not, and with FormatError when it is something else. Takes over the socket.
   */
  static async open(socket: Socket, options: LinkOptions): Promise<CatchUpLink> {
    socket.setNoDelay(true);
    // Told where it is awaited: reading and writing fail.
    socket.on("error", () => {});
    const { role, secret, clock, idleMs } = options;
    const late = new AbortController();
    const signal = AbortSignal.any([options.signal, late.signal]);
    const timer = new AbortController();
    const deadline = clock.sleep(idleMs, { signal: timer.signal }).then(() => late.abort(silent()));
    deadline.catch(() => {});
    let link: CatchUpLink | undefined;
    try {
      const nonce = randomBytes(NONCE_BYTES);
      socket.write(formatGreeting(nonce));
      const heard: { at?: () => void } = {};
      const bytes = new ByteCursor(received(socket, heard), "the connection");
      const other = await untilAborted(explained(readGreeting(bytes)), signal);
      const nonces =
        role === "sender" ? { sender: nonce, receiver: other } : { sender: other, receiver: nonce };
      const keys = deriveKeys(secret, nonces);
      const opened = new CatchUpLink(socket, options, { bytes, keys });
      link = opened;
      heard.at = () => {
        opened.#heardAtMs = clock.monotonicMs();
      };
      await opened.send("alive", new Uint8Array(0));
      const first = await untilAborted(explained(opened.#opener.read()), signal);
      if (first.type !== "alive") throw new FormatError(`the first frame is ${first.type}`);
      void opened.#live();
      return opened;
    } catch (error) {
      await link?.[Symbol.asyncDispose]();
      socket.destroy();
      throw error;
    } finally {
      timer.abort();
    }
  }

  /** Resolves when the connection takes more. */
  async send(type: FrameType, payload: Uint8Array): Promise<void> {
    const { signal } = this.#options;
    const ended = AbortSignal.any([signal, this.#gone.signal]);
    ended.throwIfAborted();
    this.#sentAtMs = this.#options.clock.monotonicMs();
    if (this.#socket.destroyed) throw broken(undefined);
    if (this.#socket.write(this.#sealer.seal(type, payload))) return;
    const drained = Promise.race([once(this.#socket, "drain"), once(this.#socket, "close")]);
    await untilAborted(explained(drained), ended);
  }

  /**
   * The next frame that says something. Rejects with what the other end gave up for, and with
   * DeadlineError, TruncatedError and FormatError.
   */
  async receive(): Promise<Frame> {
    const { signal, clock } = this.#options;
    const ended = AbortSignal.any([signal, this.#gone.signal]);
    this.#waitingSinceMs = clock.monotonicMs();
    try {
      for (;;) {
        const frame = await untilAborted(explained(this.#opener.read()), ended);
        if (frame.type === "error") throw parseFailure(frame.payload);
        if (frame.type !== "alive") return frame;
      }
    } catch (error) {
      // Whoever is sending meanwhile would wait for an end that does not listen any more.
      this.#gone.abort(error);
      throw error;
    } finally {
      this.#waitingSinceMs = undefined;
    }
  }

  /** A frame of this type. Throws FormatError for another one. */
  async expect(type: FrameType): Promise<Buffer> {
    const frame = await this.receive();
    if (frame.type === type) return frame.payload;
    throw new FormatError(`the other end sent ${frame.type} where ${type} belongs`);
  }

  /** Tells the other end why we give up, as far as it still listens. */
  async giveUp(error: unknown): Promise<void> {
    if (this.#socket.destroyed) return;
    const message = error instanceof Error ? error.message : String(error);
    const hint = error instanceof OperationError ? error.hint : undefined;
    this.#socket.write(this.#sealer.seal("error", formatFailure(message, hint)));
    await this.#close();
  }

  async [Symbol.asyncDispose](): Promise<void> {
    this.#gone.abort(broken(undefined));
    if (!this.#socket.destroyed) await this.#close();
  }

  /** Says no more, and reads on for a while: what is not read would reset the connection. */
  async #close(): Promise<void> {
    this.#socket.end();
    const over = new AbortController();
    const patience = this.#options.clock.sleep(FAREWELL_MS, { signal: over.signal });
    await Promise.race([this.#readOn(), patience]).catch(() => {});
    patience.catch(() => {});
    over.abort();
    this.#socket.destroy();
  }

  async #readOn(): Promise<void> {
    while (await this.#bytes.hasMore()) this.#bytes.takeSome(Number.MAX_SAFE_INTEGER);
  }

  /** Gives signs of life, and looks for the other end's; until the link ends. Never rejects. */
  async #live(): Promise<void> {
    const { clock, idleMs, signal } = this.#options;
    const until = AbortSignal.any([signal, this.#gone.signal]);
    const intervalMs = idleMs / SIGNS_OF_LIFE;
    while (!until.aborted && !this.#socket.destroyed) {
      await clock.sleep(intervalMs, { signal: until }).catch(() => {});
      if (until.aborted || this.#socket.destroyed) return;
      const now = clock.monotonicMs();
      const quietSinceMs = Math.max(this.#waitingSinceMs ?? now, this.#heardAtMs);
      if (now - quietSinceMs > idleMs) this.#gone.abort(silent());
      if (this.#socket.writableNeedDrain || now - this.#sentAtMs < intervalMs) continue;
      this.#sentAtMs = now;
      this.#socket.write(this.#sealer.seal("alive", new Uint8Array(0)));
    }
  }
}

async function* received(socket: Socket, heard: { at?: () => void }): ByteStream {
  for await (const chunk of socket) {
    if (!(chunk instanceof Uint8Array)) throw new TypeError("a socket gave no bytes");
    heard.at?.();
    yield chunk;
  }
}

/** Says what the system says of a connection in our words. */
async function explained<T>(work: Promise<T>): Promise<T> {
  try {
    return await work;
  } catch (error) {
    if (error instanceof TruncatedError || isSystemError(error)) throw broken(error);
    throw error;
  }
}

function broken(cause: unknown): TruncatedError {
  return new TruncatedError("the connection to the other end was lost", {
    hint: "Look at what the other end says, and run both commands again: they go on.",
    ...(cause === undefined ? {} : { cause }),
  });
}

function silent(): DeadlineError {
  return new DeadlineError("the other end does not answer any more", {
    hint: "Is it still running, and the network between? Run both commands again: they go on.",
  });
}
