import {
  closeSync,
  mkdirSync,
  openSync,
  readSync,
  readdirSync,
  rmdirSync,
  writeSync,
} from "node:fs";
import { existsSync, fstatSync, lstatSync, renameSync, statSync, unlinkSync } from "node:fs";
import type { Stats } from "node:fs";
import { once } from "node:events";
import { join } from "node:path";
import ssh2 from "ssh2";
import type { SFTPWrapper } from "ssh2";

const { STATUS_CODE, OPEN_MODE } = ssh2.utils.sftp;

/**
 * An SFTP server without any extension, and with pieces of 32 KiB: what appliances and old servers
 * are like. It lets everybody in, and keeps files where its clients say.
 */
export class PlainSftpServer implements AsyncDisposable {
  /** Refuses writes that begin behind this byte of a file. */
  refusesWritesAfter = Number.POSITIVE_INFINITY;
  /** Gives no more than this in one answer to a read. */
  readBytesMax = Number.POSITIVE_INFINITY;
  readonly #server: ssh2.Server;

  private constructor(hostKey: Buffer) {
    this.#server = new ssh2.Server({ hostKeys: [hostKey], ident: "plain" }, (client) => {
      client.on("error", () => {});
      client.on("authentication", (context) => context.accept());
      client.on("session", (accept) => {
        accept().on("sftp", (acceptSftp) => this.#serve(acceptSftp()));
      });
    });
  }

  /** `hostKey` is a private key in OpenSSH's format. */
  static async start(hostKey: Buffer): Promise<PlainSftpServer> {
    const server = new PlainSftpServer(hostKey);
    server.#server.listen(0, "127.0.0.1");
    await once(server.#server, "listening");
    return server;
  }

  get port(): number {
    const address: unknown = this.#server.address();
    const port: unknown =
      typeof address === "object" && address !== null ? Reflect.get(address, "port") : undefined;
    if (typeof port !== "number") throw new Error("the server has no port");
    return port;
  }

  async [Symbol.asyncDispose](): Promise<void> {
    this.#server.close();
  }

  #serve(channel: SFTPWrapper): void {
    const files = new Map<number, number>();
    const folders = new Map<number, string[] | undefined>();
    let count = 0;
    const opened = (): { number: number; handle: Buffer } => {
      const handle = Buffer.alloc(4);
      handle.writeUInt32BE(++count);
      return { number: count, handle };
    };
    const file = (handle: Buffer): number => files.get(handle.readUInt32BE()) ?? -1;
    const on = (id: number, work: () => void): void => {
      try {
        work();
      } catch (error) {
        channel.status(id, statusOf(error));
      }
    };
    const done = (id: number, work: () => void): void =>
      on(id, () => {
        work();
        channel.status(id, STATUS_CODE.OK);
      });

    channel.on("OPEN", (id, path, flags) =>
      on(id, () => {
        const isNew = (flags & OPEN_MODE.EXCL) !== 0;
        const { number, handle } = opened();
        files.set(number, openSync(path, isNew ? "wx" : "r"));
        channel.handle(id, handle);
      }),
    );
    channel.on("READ", (id, handle, offset, length) =>
      on(id, () => {
        const buffer = Buffer.alloc(Math.min(length, this.readBytesMax));
        const readBytes = readSync(file(handle), buffer, 0, buffer.length, offset);
        if (readBytes === 0) channel.status(id, STATUS_CODE.EOF);
        else channel.data(id, buffer.subarray(0, readBytes));
      }),
    );
    channel.on("WRITE", (id, handle, offset, data) =>
      done(id, () => {
        if (offset > this.refusesWritesAfter) throw new Error("refused");
        writeSync(file(handle), data, 0, data.length, offset);
      }),
    );
    channel.on("CLOSE", (id, handle) =>
      done(id, () => {
        const number = handle.readUInt32BE();
        if (!folders.delete(number)) closeSync(file(handle));
        files.delete(number);
      }),
    );
    channel.on("FSTAT", (id, handle) =>
      on(id, () => channel.attrs(id, facts(fstatSync(file(handle))))),
    );
    channel.on("STAT", (id, path) => on(id, () => channel.attrs(id, facts(statSync(path)))));
    channel.on("OPENDIR", (id, path) =>
      on(id, () => {
        const names = readdirSync(path);
        const { number, handle } = opened();
        folders.set(
          number,
          names.map((name) => join(path, name)),
        );
        channel.handle(id, handle);
      }),
    );
    channel.on("READDIR", (id, handle) => {
      const paths = folders.get(handle.readUInt32BE())?.splice(0, 50) ?? [];
      if (paths.length === 0) {
        channel.status(id, STATUS_CODE.EOF);
        return;
      }
      const entries = paths.map((path) => {
        const filename = path.slice(path.lastIndexOf("/") + 1);
        return { filename, longname: filename, attrs: facts(lstatSync(path)) };
      });
      channel.name(id, entries);
    });
    channel.on("REMOVE", (id, path) => done(id, () => unlinkSync(path)));
    channel.on("MKDIR", (id, path) => done(id, () => mkdirSync(path)));
    channel.on("RMDIR", (id, path) => done(id, () => rmdirSync(path)));
    channel.on("RENAME", (id, from, to) =>
      done(id, () => {
        if (existsSync(to)) throw new Error("it exists");
        renameSync(from, to);
      }),
    );
  }
}

function facts({ mode, uid, gid, size, atimeMs, mtimeMs }: Stats) {
  return {
    mode,
    uid,
    gid,
    size,
    atime: Math.floor(atimeMs / 1000),
    mtime: Math.floor(mtimeMs / 1000),
  };
}

function statusOf(error: unknown): number {
  const code = error instanceof Error && "code" in error ? error.code : undefined;
  if (code === "ENOENT" || code === "ENOTDIR") return STATUS_CODE.NO_SUCH_FILE;
  return code === "EACCES" ? STATUS_CODE.PERMISSION_DENIED : STATUS_CODE.FAILURE;
}
