import { lstat, rm } from "node:fs/promises";
import { createConnection, createServer, type Server, type Socket } from "node:net";
import { systemErrorCode } from "../errors.ts";
import { type DrainAnswer, type DrainRequest, formatLine } from "./drain-protocol.ts";
import { parseRequest, readLines, socketAddress } from "./drain-protocol.ts";

/** Takes one request; `answer` may be called several times, also when nobody listens any more. */
export type DrainHandler = (request: DrainRequest, answer: (answer: DrainAnswer) => void) => void;

/** The drainer's socket, which is also its lock. */
export class DrainServer implements AsyncDisposable {
  readonly #path: string;
  readonly #server: Server;
  readonly #sockets: Set<Socket>;
  readonly #inode: bigint;

  /**
   * Undefined when another drainer listens there. A socket that nobody listens at is taken over.
   */
  static async listen(path: string, handler: DrainHandler): Promise<DrainServer | undefined> {
    using address = socketAddress(path);
    if (await isAlive(address.path)) return undefined;
    await rm(path, { force: true });
    const sockets = new Set<Socket>();
    const server = createServer((socket) => serve(socket, { sockets, handler }));
    const { promise, resolve, reject } = Promise.withResolvers<void>();
    server.once("error", reject);
    server.listen(address.path, resolve);
    try {
      await promise;
    } catch (error) {
      if (systemErrorCode(error) === "EADDRINUSE") return undefined;
      throw error;
    }
    const { ino } = await lstat(path, { bigint: true });
    return new DrainServer({ path, server, sockets, inode: ino });
  }

  private constructor(parts: {
    readonly path: string;
    readonly server: Server;
    readonly sockets: Set<Socket>;
    readonly inode: bigint;
  }) {
    this.#path = parts.path;
    this.#server = parts.server;
    this.#sockets = parts.sockets;
    this.#inode = parts.inode;
  }

  /**
   * Whether calls still reach us: of two that took over at the same moment, only the last one's do.
   */
  async isOwn(): Promise<boolean> {
    try {
      return (await lstat(this.#path, { bigint: true })).ino === this.#inode;
    } catch (error) {
      if (systemErrorCode(error) === undefined) throw error;
      return false;
    }
  }

  /** Who waits is left without an answer, which tells it to do the work by itself. */
  async [Symbol.asyncDispose](): Promise<void> {
    if (await this.isOwn()) await rm(this.#path, { force: true });
    const { promise, resolve } = Promise.withResolvers<void>();
    this.#server.close(() => resolve());
    for (const socket of this.#sockets) socket.end();
    const patience = setTimeout(() => {
      for (const socket of this.#sockets) socket.destroy();
      resolve();
    }, CLOSE_MS);
    await promise;
    clearTimeout(patience);
  }
}

/** How long the other side may take to close. */
const CLOSE_MS = 500;

function serve(
  socket: Socket,
  { sockets, handler }: { readonly sockets: Set<Socket>; readonly handler: DrainHandler },
): void {
  sockets.add(socket);
  socket.on("close", () => sockets.delete(socket));
  socket.on("error", () => socket.destroy());
  const answer = (value: DrainAnswer): void => {
    if (socket.writable) socket.write(formatLine(value));
  };
  readLines(socket, (line) => {
    const request = parseRequest(line);
    if (request === undefined) answer({ kind: "declined", reason: "unknown request" });
    else handler(request, answer);
  });
}

async function isAlive(path: string): Promise<boolean> {
  const { promise, resolve } = Promise.withResolvers<boolean>();
  const socket = createConnection({ path });
  socket.on("connect", () => resolve(true));
  socket.on("error", () => resolve(false));
  try {
    return await promise;
  } finally {
    socket.destroy();
  }
}
