import { posix } from "node:path";
import { ObjectExistsError, ObjectNotFoundError, StorageError } from "../errors.ts";
import { untilAborted } from "../io/abort.ts";
import type { ByteSource, ByteStream } from "../io/bytes.ts";
import { randomHex } from "../io/random.ts";
import { Retries } from "../io/retry.ts";
import { listFolders, listTemporaryFiles } from "./folder-list.ts";
import type { ReadFolder } from "./folder-list.ts";
import {
  formatTemporaryName,
  requireValidKey,
  requireValidRange,
  temporaryNameParts,
} from "./key.ts";
import { changedWhileRead } from "./request-errors.ts";
import type { RepeatOptions } from "./repeat.ts";
import type { SftpConfig } from "./sftp-config.ts";
import { SftpConnection } from "./sftp-connection.ts";
import { isBareFailure, isNoSuchFile, sftpError } from "./sftp-errors.ts";
import {
  claimName,
  createFile,
  exists,
  isDirectory,
  isRegular,
  readFolder,
  removeEmptyDirectories,
  removeFile,
  replaceFile,
  syncDirectory,
} from "./sftp-files.ts";
import { readSftpLogin } from "./sftp-login.ts";
import { SftpPool } from "./sftp-pool.ts";
import type { SftpSession } from "./sftp-session.ts";
import { readStream } from "./sftp-transfer.ts";
import { SftpUpload } from "./sftp-upload.ts";
import type {
  CallOptions,
  GetOptions,
  ListOptions,
  ObjectInfo,
  ObjectKey,
  PutOptions,
  SendOptions,
  Storage,
  Upkeep,
} from "./storage.ts";
import type { StoreTraffic } from "./traffic.ts";

const { basename, dirname } = posix;

export interface SftpOptions extends RepeatOptions {
  /** Silence of this length, while something is awaited, ends a connection. */
  readonly requestTimeoutMs: number;
  readonly traffic?: Pick<StoreTraffic, "silence"> | undefined;
}

/** Taking away the temporary file of a failed put is tried for so long. */
const CLEANUP_TIMEOUT_MS = 5_000;
const DELETE_CONCURRENCY = 32;

/** Reads the keys and known hosts; connects with the first call. */
export async function openSftpStorage(config: SftpConfig, options: SftpOptions): Promise<Storage> {
  const login = await readSftpLogin(config);
  const host = config.host.includes(":") ? `[${config.host}]` : config.host;
  const name = config.port === 22 ? `ssh://${host}` : `ssh://${host}:${config.port}`;
  const connect = (call: CallOptions) =>
    SftpConnection.open(config, { ...options, name, login }, call);
  return new SftpStorage(config, { ...options, name, connect });
}

interface SftpStorageOptions extends SftpOptions {
  readonly name: string;
  readonly connect: (options: CallOptions) => Promise<SftpConnection>;
}

/** Objects as files below a directory of another machine: WAL-G's SSH storage. */
class SftpStorage implements Storage {
  readonly name: string;
  readonly upkeep: Upkeep;
  readonly #root: string;
  readonly #options: SftpOptions;
  readonly #pool: SftpPool;
  /** Directories whose own names, up to the root, were made durable. */
  readonly #settled = new Set<string>();
  /** Temporary files that could not be removed: the next connection does. */
  readonly #orphans = new Set<string>();

  constructor(config: SftpConfig, options: SftpStorageOptions) {
    const { name, connect, clock } = options;
    this.#root = config.path.startsWith("/") ? posix.resolve(config.path) : config.path;
    this.name = `${name}${this.#root.startsWith("/") ? "" : "/~/"}${this.#root}`;
    this.#options = options;
    const onConnected = (session: SftpSession) => this.#removeOrphans(session);
    this.#pool = new SftpPool({ clock, connect, onConnected });
    this.upkeep = {
      listUnfinished: (prefix, options) => listTemporaryFiles(this.#readFolder, prefix, options),
      removeUnfinished: ({ key, id }, options) => this.#removeUnfinished(key, id, options),
    };
  }

  async *get(key: ObjectKey, options: GetOptions): ByteStream {
    const { signal, range, onOpened, ifVersion } = options;
    if (range !== undefined) requireValidRange(range);
    requireValidKey(key);
    using lease = await this.#pool.lease({ signal });
    const { session } = lease;

    const handle = await this.#do("open", key, session, () =>
      untilAborted(session.open(this.#path(key), "r"), signal),
    );
    try {
      const { mode, size, mtime } = await this.#do("stat", key, session, () =>
        untilAborted(session.statHandle(handle), signal),
      );
      if (!isRegular(mode)) throw new ObjectNotFoundError(key, this.name);
      const version = `${size}-${mtime}`;
      if (ifVersion !== undefined && ifVersion !== version) throw changedWhileRead(key, this.name);
      onOpened?.({ sizeBytes: size, version });

      const start = range?.start ?? 0;
      const end = Math.min(size, range?.end ?? size);
      let position = start;
      try {
        for await (const chunk of readStream(session, handle, { start, end }, { signal })) {
          position += chunk.length;
          yield chunk;
        }
      } catch (error) {
        throw sftpError("read", this.#path(key), error);
      }
      if (position < end) throw changedWhileRead(key, this.name);
    } finally {
      // Not waited for: the answer is of no interest to the reader.
      session.close(handle).catch(() => {});
    }
  }

  async put(key: ObjectKey, body: ByteSource, options: PutOptions): Promise<void> {
    requireValidKey(key);
    const { signal } = options;
    signal.throwIfAborted();
    const path = this.#path(key);
    const { clock } = this.#options;
    const temporaryName = formatTemporaryName(basename(path), clock.now(), randomHex(8));
    const temporary = posix.join(dirname(path), temporaryName);
    using upload = await this.#upload(temporary, options);
    try {
      await upload.run(() => body.open());
      signal.throwIfAborted();
      const isPublished = await upload.settle(
        async (session, isAgain) =>
          (isAgain && !(await exists(session, temporary))) ||
          (await this.#publish(session, temporary, path, options)),
      );
      if (!isPublished) throw new ObjectExistsError(key, this.name);
      await upload.settle((session) => this.#syncParents(session, dirname(path)));
    } catch (error) {
      const { session } = upload;
      if (session === undefined) {
        this.#orphans.add(temporary);
        throw sftpError("write", path, error);
      }
      await this.#removeTemporary(session, temporary);
      if (isNoSuchFile(error)) await this.#requireRoot(session);
      throw await this.#writeError(session, path, error);
    }
  }

  async stat(key: ObjectKey, { signal }: CallOptions): Promise<ObjectInfo> {
    requireValidKey(key);
    using lease = await this.#pool.lease({ signal });
    const { session } = lease;
    const { mode, size, mtime } = await this.#do("stat", key, session, () =>
      untilAborted(session.stat(this.#path(key)), signal),
    );
    if (!isRegular(mode)) throw new ObjectNotFoundError(key, this.name);
    return { key, sizeBytes: size, modifiedAt: new Date(mtime * 1000) };
  }

  async *list(prefix: string, options: ListOptions): AsyncIterable<ObjectInfo> {
    const { signal } = options;
    signal.throwIfAborted();
    let isEmpty = true;
    for await (const info of listFolders(this.#readFolder, { ...options, prefix })) {
      isEmpty = false;
      yield info;
    }
    if (!isEmpty) return;
    // An unmounted repository must not look like an empty one.
    using lease = await this.#pool.lease({ signal });
    await untilAborted(this.#requireRoot(lease.session), signal);
  }

  async delete(keys: readonly ObjectKey[], { signal }: CallOptions): Promise<void> {
    for (const key of keys) requireValidKey(key);
    signal.throwIfAborted();
    if (keys.length === 0) return;
    using lease = await this.#pool.lease({ signal });
    const { session } = lease;
    const directories = new Set<string>();
    const failures: { path: string; error: unknown }[] = [];
    for (let start = 0; start < keys.length; start += DELETE_CONCURRENCY) {
      signal.throwIfAborted();
      const paths = keys.slice(start, start + DELETE_CONCURRENCY).map((key) => this.#path(key));
      const removals = paths.map(async (path) => {
        try {
          if (await removeFile(session, path)) directories.add(dirname(path));
        } catch (error) {
          failures.push({ path, error });
        }
      });
      await untilAborted(Promise.all(removals), signal);
    }
    await untilAborted(this.#settleAfterDelete(session, directories), signal);

    const [first] = failures;
    if (first === undefined) return;
    const others = failures.length === 1 ? "" : ` and ${failures.length - 1} other objects`;
    throw sftpError("delete", `${first.path}${others}`, first.error);
  }

  async [Symbol.asyncDispose](): Promise<void> {
    this.#pool.close();
  }

  async #upload(temporary: string, { signal, onSent }: SendOptions): Promise<SftpUpload> {
    return await SftpUpload.open({
      path: temporary,
      storageName: this.name,
      signal,
      onSent,
      retries: new Retries(this.#options.retryPolicy, this.#options),
      lease: () => this.#pool.lease({ signal }),
      create: async (session) => {
        const created = createFile(session, temporary, this.#root);
        const { handle, areDirectoriesNew } = await untilAborted(created, signal);
        if (areDirectoriesNew) this.#settled.delete(dirname(temporary));
        return handle;
      },
    });
  }

  async #publish(
    session: SftpSession,
    temporary: string,
    path: string,
    { ifAbsent }: PutOptions,
  ): Promise<boolean> {
    if (ifAbsent === true) return await claimName(session, temporary, path);
    await replaceFile(session, temporary, path);
    return true;
  }

  /** Another writer may have made the directories, and been killed before they were durable. */
  async #syncParents(session: SftpSession, directory: string): Promise<void> {
    await syncDirectory(session, directory);
    if (this.#settled.has(directory)) return;
    for (let current = directory; current !== this.#root;) {
      current = dirname(current);
      await syncDirectory(session, current);
    }
    this.#settled.add(directory);
  }

  /** A crash must not bring a deleted sentinel back after its parts are gone: fsync. */
  async #settleAfterDelete(session: SftpSession, directories: ReadonlySet<string>): Promise<void> {
    const remaining = new Set<string>();
    for (const directory of directories) {
      remaining.add(await removeEmptyDirectories(session, directory, this.#root));
    }
    for (const directory of remaining) await syncDirectory(session, directory);
  }

  /** After a failure: never rejects. */
  async #removeTemporary(session: SftpSession, temporary: string): Promise<void> {
    this.#orphans.add(temporary);
    const timeout = AbortSignal.timeout(CLEANUP_TIMEOUT_MS);
    await untilAborted(this.#removeOrphan(session, temporary), timeout).catch(() => {});
  }

  #removeOrphans(session: SftpSession): void {
    for (const path of this.#orphans) this.#removeOrphan(session, path).catch(() => {});
  }

  async #removeOrphan(session: SftpSession, path: string): Promise<void> {
    await session.unlink(path).catch((error: unknown) => {
      if (!isNoSuchFile(error)) throw error;
    });
    this.#orphans.delete(path);
  }

  async #removeUnfinished(key: ObjectKey, id: string, { signal }: CallOptions): Promise<void> {
    if (temporaryNameParts(id) === undefined) throw new RangeError(`no temporary file: ${id}`);
    using lease = await this.#pool.lease({ signal });
    const path = posix.join(dirname(this.#path(key)), id);
    try {
      await untilAborted(lease.session.unlink(path), signal);
    } catch (error) {
      if (!isNoSuchFile(error)) throw sftpError("delete", path, error);
    }
  }

  readonly #readFolder: ReadFolder = async (folder, { signal }) => {
    using lease = await this.#pool.lease({ signal });
    const path = posix.join(this.#root, folder);
    try {
      return await untilAborted(readFolder(lease.session, path), signal);
    } catch (error) {
      throw sftpError("list", path, error);
    }
  };

  async #do<T>(
    action: string,
    key: ObjectKey,
    session: SftpSession,
    work: () => Promise<T>,
  ): Promise<T> {
    try {
      return await work();
    } catch (error) {
      if (isNoSuchFile(error)) {
        await this.#requireRoot(session);
        throw new ObjectNotFoundError(key, this.name, { cause: error });
      }
      throw sftpError(action, this.#path(key), error);
    }
  }

  async #writeError(session: SftpSession, path: string, error: unknown): Promise<unknown> {
    if (!isBareFailure(error)) return sftpError("write", path, error);
    const isFull = await session.isFull(this.#root).catch(() => false);
    if (!isFull) return sftpError("write", path, error);
    return new StorageError(`cannot write ${path} in ${this.name}: no space left on the device`, {
      isRetryable: false,
      hint: "Free space there, or move to a larger file system; nothing was left half-written.",
      cause: error,
    });
  }

  async #requireRoot(session: SftpSession): Promise<void> {
    try {
      if (await isDirectory(session, this.#root)) return;
    } catch (error) {
      throw sftpError("open", this.#root, error);
    }
    throw new StorageError(`storage directory ${this.name} does not exist`, {
      isRetryable: false,
      hint: "Create it once by hand, or mount it: it is not made automatically, lest backups land beside it.",
    });
  }

  #path(key: ObjectKey): string {
    return posix.join(this.#root, key);
  }
}
