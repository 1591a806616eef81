import { once } from "node:events";
import { connect, createServer, type Server, type Socket } from "node:net";
import { LocalFileError, OperationError, RefusedError } from "../errors.ts";
import { untilAborted } from "../io/abort.ts";
import type { Clock } from "../io/clock.ts";
import type { Log } from "../io/log.ts";
import { systemErrorText } from "../io/system-error.ts";
import { CatchUpLink } from "./catch-up-link.ts";

export interface CatchUpConnectionOptions {
  /** What both ends know; see `requireSecret`. */
  readonly secret: string;
  /** An end that has said nothing for so long counts as gone. */
  readonly idleMs: number;
  readonly clock: Clock;
  readonly log: Log;
  readonly signal: AbortSignal;
}

export interface HostPort {
  readonly host: string;
  readonly port: number;
}

/** Connections that may prove themselves at the same time: one that says nothing holds up no other. */
const MAX_UNPROVED = 8;

/** Connects to a walnut that waits. Rejects with RefusedError when none does. */
export async function connectCatchUp(
  { host, port }: HostPort,
  options: CatchUpConnectionOptions,
): Promise<CatchUpLink> {
  const socket = connect({ host, port });
  try {
    await untilAborted(once(socket, "connect"), options.signal);
  } catch (error) {
    socket.destroy();
    if (options.signal.aborted) throw error;
    throw new RefusedError(`can't connect to ${host} port ${port}: ${systemErrorText(error)}`, {
      hint:
        "Start catchup-receive there first. It listens on 127.0.0.1 only unless --listen says " +
        "otherwise. Nothing was changed.",
      cause: error,
    });
  }
  return await CatchUpLink.open(socket, { ...options, role: "sender" });
}

/** Waits for the one walnut that is to send. */
export class CatchUpListener implements AsyncDisposable {
  readonly #server: Server;
  readonly #options: CatchUpConnectionOptions;
  readonly #unproved = new Set<Socket>();
  readonly #proved = Promise.withResolvers<CatchUpLink>();
  #isOver = false;

  /** Port 0: one that is free. Rejects with LocalFileError for an address that can't be had. */
  static async open(
    { host, port }: HostPort,
    options: CatchUpConnectionOptions,
  ): Promise<CatchUpListener> {
    const server = createServer();
    const listener = new CatchUpListener(server, options);
    const listening = once(server, "listening");
    server.listen({ host, port });
    try {
      await listening;
    } catch (error) {
      throw new LocalFileError(`can't listen on ${host} port ${port}: ${systemErrorText(error)}`, {
        hint: "Is the port in use, or the address not one of this host's?",
        cause: error,
      });
    }
    return listener;
  }

  private constructor(server: Server, options: CatchUpConnectionOptions) {
    this.#server = server;
    this.#options = options;
    this.#proved.promise.catch(() => {});
    server.on("connection", (socket) => void this.#prove(socket));
  }

  get port(): number {
    const address = this.#server.address();
    return address === null || typeof address === "string" ? 0 : address.port;
  }

  /** The first connection whose other end knows the secret; others are told of in the log. */
  async accept(): Promise<CatchUpLink> {
    return await untilAborted(this.#proved.promise, this.#options.signal);
  }

  async [Symbol.asyncDispose](): Promise<void> {
    this.#isOver = true;
    for (const socket of this.#unproved) socket.destroy();
    if (!this.#server.listening) return;
    const closed = once(this.#server, "close");
    this.#server.close();
    // The connection that was accepted may go on.
    await Promise.race([closed, Promise.resolve()]);
  }

  async #prove(socket: Socket): Promise<void> {
    socket.on("error", () => socket.destroy());
    if (this.#isOver || this.#unproved.size >= MAX_UNPROVED) {
      socket.destroy();
      return;
    }
    const from = socket.remoteAddress;
    this.#unproved.add(socket);
    try {
      const link = await CatchUpLink.open(socket, { ...this.#options, role: "receiver" });
      if (this.#isOver) {
        await link[Symbol.asyncDispose]();
        return;
      }
      this.#isOver = true;
      this.#proved.resolve(link);
    } catch (error) {
      if (this.#isOver || this.#options.signal.aborted) return;
      if (!(error instanceof OperationError)) this.#proved.reject(error);
      else this.#options.log.warning("a connection was refused", { from, reason: error.message });
    } finally {
      this.#unproved.delete(socket);
    }
  }
}

/** Shorter ones can be guessed by who has listened to a connection. */
const SECRET_LENGTH_MIN = 16;

/** Throws RefusedError when there is no secret, or one that is too short. */
export function requireSecret(secret: string | undefined): string {
  if (secret !== undefined && secret.length >= SECRET_LENGTH_MIN) return secret;
  const what =
    secret === undefined
      ? "WALNUT_CATCHUP_SECRET is not set"
      : `WALNUT_CATCHUP_SECRET has less than ${SECRET_LENGTH_MIN} characters`;
  throw new RefusedError(`${what}: anybody could take the database, or write into the standby`, {
    hint: "Make one by `openssl rand -hex 32` and set it on both hosts. Nothing was changed.",
  });
}
