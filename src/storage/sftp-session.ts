import type { Attributes, FileEntryWithStats, SFTPWrapper, Stats } from "ssh2";
import type { SftpCallback, SftpConnection } from "./sftp-connection.ts";

/** The file system at the other end of a connection: each method is one request. */
export class SftpSession {
  readonly connection: SftpConnection;

  constructor(connection: SftpConnection) {
    this.connection = connection;
  }

  /** "wx" fails if the name exists; "r" opens directories, too, where the server's system does. */
  async open(path: string, flags: "r" | "r+" | "wx"): Promise<Buffer> {
    return await this.#ask<Buffer>((channel, callback) =>
      flags === "wx"
        ? channel.open(path, flags, FILE_MODE, callback)
        : channel.open(path, flags, callback),
    );
  }

  async close(handle: Buffer): Promise<void> {
    await this.#tell((channel, callback) => channel.close(handle, callback));
  }

  /** Gives how many bytes were read into `target`, which may be fewer; 0 = the file ends there. */
  async read(handle: Buffer, target: Buffer, position: number): Promise<number> {
    return await this.#ask<number>((channel, callback) =>
      channel.read(handle, target, 0, target.length, position, callback),
    );
  }

  /** `bytes` may change as soon as this has returned. */
  async write(handle: Buffer, bytes: Buffer, position: number): Promise<void> {
    await this.#tell((channel, callback) =>
      channel.write(handle, bytes, 0, bytes.length, position, callback),
    );
  }

  async stat(path: string): Promise<Stats> {
    return await this.#ask<Stats>((channel, callback) => channel.stat(path, callback));
  }

  async statHandle(handle: Buffer): Promise<Stats> {
    return await this.#ask<Stats>((channel, callback) => channel.fstat(handle, callback));
  }

  /** All of a directory; links are not followed. */
  async readDirectory(path: string): Promise<{ name: string; attributes: Attributes }[]> {
    const entries = await this.#ask<FileEntryWithStats[]>((channel, callback) =>
      channel.readdir(path, callback),
    );
    return entries.map(({ filename, attrs }) => ({ name: filename, attributes: attrs }));
  }

  async unlink(path: string): Promise<void> {
    await this.#tell((channel, callback) => channel.unlink(path, callback));
  }

  async makeDirectory(path: string): Promise<void> {
    await this.#tell((channel, callback) =>
      channel.mkdir(path, { mode: DIRECTORY_MODE }, callback),
    );
  }

  async removeDirectory(path: string): Promise<void> {
    await this.#tell((channel, callback) => channel.rmdir(path, callback));
  }

  /** Makes a file's or directory's content durable; does nothing where the server can't. */
  async fsync(handle: Buffer): Promise<void> {
    if (!this.connection.supports("fsync@openssh.com")) return;
    await this.#tell((channel, callback) => channel.ext_openssh_fsync(handle, callback));
  }

  get canReplace(): boolean {
    return this.connection.supports("posix-rename@openssh.com");
  }

  /** Like rename(2): replaces what is there. Only if `canReplace`. */
  async replace(from: string, to: string): Promise<void> {
    await this.#tell((channel, callback) => channel.ext_openssh_rename(from, to, callback));
  }

  get canLink(): boolean {
    return this.connection.supports("hardlink@openssh.com");
  }

  /** Like link(2): fails if `to` exists. Only if `canLink`. */
  async link(from: string, to: string): Promise<void> {
    await this.#tell((channel, callback) => channel.ext_openssh_hardlink(from, to, callback));
  }

  /** The protocol's own: fails if `to` exists, says its text; not all servers keep to it. */
  async rename(from: string, to: string): Promise<void> {
    await this.#tell((channel, callback) => channel.rename(from, to, callback));
  }

  /** Whether the file system that holds `path` is full; false where the server can't tell. */
  async isFull(path: string): Promise<boolean> {
    if (!this.connection.supports("statvfs@openssh.com")) return false;
    const facts = await this.#ask<unknown>((channel, callback) =>
      channel.ext_openssh_statvfs(path, callback),
    );
    return typeof facts === "object" && facts !== null && Reflect.get(facts, "f_bavail") === 0;
  }

  async #ask<T>(start: (channel: SFTPWrapper, callback: SftpCallback<T>) => void): Promise<T> {
    return await this.connection.request(start);
  }

  async #tell(
    start: (channel: SFTPWrapper, callback: (error?: Error | null) => void) => void,
  ): Promise<void> {
    await this.connection.request<undefined>((channel, callback) =>
      start(channel, (error) => callback(error, undefined)),
    );
  }
}

const FILE_MODE = 0o644;
const DIRECTORY_MODE = 0o755;
