import { lstat, rm } from "node:fs/promises";
import { createConnection, createServer, type Server, type Socket } from "node:net";
import { systemErrorCode } from "../errors.ts";
import { localFileError } from "../io/system-error.ts";
import { formatLine, readLines, socketAddress } from "./drain-protocol.ts";

/** What is said over a socket: lines of JSON, a request and its answers. */
export interface LineProtocol<Request, Answer extends object> {
  /** Undefined for what is no request. */
  readonly parse: (line: string) => Request | undefined;
  /** The answer to that. */
  readonly unknown: Answer;
  /** Takes one request; `answer` may be called several times, also when nobody listens any more. */
  readonly handle: (request: Request, answer: (answer: Answer) => void) => void;
  /**
   * Whether another answer follows; until then this one is repeated every second, so that who waits
   * knows that we live. Absent: nobody has to know.
   */
  readonly isInterim?: (answer: Answer) => boolean;
}

/** The socket of a process that there is once, which is also its lock. */
export class LineServer implements AsyncDisposable {
  readonly #path: string;
  readonly #server: Server;
  readonly #sockets: Set<Socket>;
  readonly #inode: bigint;

  /**
   * Undefined when another process listens there. Whatever else is there is taken over. Rejects
   * with LocalFileError.
   */
  static async listen<Request, Answer extends object>(
    path: string,
    protocol: LineProtocol<Request, Answer>,
  ): Promise<LineServer | undefined> {
    using address = socketAddress(path);
    if (await isAlive(address.path)) return undefined;
    await rm(path, { recursive: true, force: true }).catch((error: unknown) => {
      throw localFileError("remove", path, error);
    });
    const sockets = new Set<Socket>();
    const server = createServer((socket) => serve(socket, sockets, protocol));
    const { promise, resolve, reject } = Promise.withResolvers<void>();
    server.once("error", reject);
    server.listen(address.path, resolve);
    try {
      await promise;
    } catch (error) {
      if (systemErrorCode(error) === "EADDRINUSE") return undefined;
      throw localFileError("listen at", path, error);
    }
    const { ino } = await lstat(path, { bigint: true });
    return new LineServer({ path, server, sockets, inode: ino });
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

const REPEAT_MS = 1000;

function serve<Request, Answer extends object>(
  socket: Socket,
  sockets: Set<Socket>,
  { parse, unknown, handle, isInterim }: LineProtocol<Request, Answer>,
): void {
  let repeating: NodeJS.Timeout | undefined;
  sockets.add(socket);
  socket.on("close", () => {
    clearInterval(repeating);
    sockets.delete(socket);
  });
  socket.on("error", () => socket.destroy());
  const say = (value: Answer): void => {
    if (socket.writable) socket.write(formatLine(value));
  };
  const answer = (value: Answer): void => {
    clearInterval(repeating);
    say(value);
    if (isInterim?.(value) !== true || socket.destroyed) return;
    repeating = setInterval(() => say(value), REPEAT_MS);
  };
  readLines(socket, (line) => {
    const request = parse(line);
    if (request === undefined) answer(unknown);
    else handle(request, answer);
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
