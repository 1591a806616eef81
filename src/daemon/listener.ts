import { chmod, lstat, mkdtemp, rename, rm } from "node:fs/promises";
import { createConnection, createServer, type Server, type Socket } from "node:net";
import { basename, dirname, join } from "node:path";
import { socketAddress } from "../archive/drain-protocol.ts";
import { RefusedError, systemErrorCode } from "../errors.ts";
import { localFileError } from "../io/system-error.ts";

type OnConnection = (socket: Socket) => void;

/** A unix socket that others connect to, its file ours alone (0600). */
export class Listener {
  readonly #server: Server;
  /** Absent for a socket that somebody else opened for us. */
  readonly #file: { readonly path: string; readonly inode: bigint } | undefined;

  /**
   * Listens at `path`. The file appears there whole: with its mode, and when connections are taken.
   * That of a daemon that has died is replaced; a living one, and what is no socket, is refused.
   */
  static async open(path: string, onConnection: OnConnection): Promise<Listener> {
    await requireFree(path);
    const place = await onFile(path, () =>
      mkdtemp(join(dirname(path), `.${basename(path).slice(0, 40)}-`)),
    );
    try {
      const temporaryPath = join(place, "s");
      using address = socketAddress(temporaryPath);
      const server = createServer({ allowHalfOpen: true }, onConnection);
      await onFile(path, () => listening(server, { path: address.path }));
      await chmod(temporaryPath, 0o600);
      const { ino } = await lstat(temporaryPath, { bigint: true });
      await rename(temporaryPath, path);
      return new Listener(server, { path, inode: ino });
    } finally {
      await rm(place, { recursive: true, force: true });
    }
  }

  /** Takes connections from a socket that listens already, as systemd hands it over. */
  static async adopt(descriptor: number, onConnection: OnConnection): Promise<Listener> {
    const server = createServer({ allowHalfOpen: true }, onConnection);
    await onFile(`descriptor ${descriptor}`, () => listening(server, { fd: descriptor }));
    return new Listener(server, undefined);
  }

  private constructor(server: Server, file: { path: string; inode: bigint } | undefined) {
    this.#server = server;
    this.#file = file;
  }

  /** Whether the file still leads to us: false once it was removed, or another daemon took over. */
  async isOwn(): Promise<boolean> {
    if (this.#file === undefined) return true;
    try {
      return (await lstat(this.#file.path, { bigint: true })).ino === this.#file.inode;
    } catch (error) {
      if (systemErrorCode(error) === undefined) throw error;
      return false;
    }
  }

  /** Takes no more connections. Those that are open stay so, and nobody waits for them. */
  async close(): Promise<void> {
    if (this.#file !== undefined && (await this.isOwn())) {
      await rm(this.#file.path, { force: true });
    }
    this.#server.close();
  }
}

async function requireFree(path: string): Promise<void> {
  try {
    const found = await lstat(path);
    if (!found.isSocket()) {
      throw new RefusedError(`${path} exists and is no socket`, {
        hint: "Name a path of its own for the daemon's socket; nothing was removed.",
      });
    }
  } catch (error) {
    if (systemErrorCode(error) === "ENOENT") return;
    throw localFileError("look at", path, error);
  }
  if (!(await isAlive(path))) return;
  throw new RefusedError(`a daemon listens at ${path} already`, {
    hint: "Stop that one first, or give this one another path.",
  });
}

/** Whatever keeps us from finding out counts as a living one. */
async function isAlive(path: string): Promise<boolean> {
  using address = socketAddress(path);
  const { promise, resolve } = Promise.withResolvers<boolean>();
  const socket = createConnection({ path: address.path });
  socket.on("connect", () => resolve(true));
  socket.on("error", (error) => {
    const code = systemErrorCode(error) ?? "";
    resolve(code !== "ECONNREFUSED" && code !== "ENOENT");
  });
  try {
    return await promise;
  } finally {
    socket.destroy();
  }
}

async function listening(server: Server, place: { path: string } | { fd: number }): Promise<void> {
  const { promise, resolve, reject } = Promise.withResolvers<void>();
  server.once("error", reject);
  server.listen(place, resolve);
  await promise;
}

async function onFile<T>(path: string, work: () => Promise<T>): Promise<T> {
  try {
    return await work();
  } catch (error) {
    throw localFileError("listen at", path, error);
  }
}
