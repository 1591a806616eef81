import { open, rmdir, stat, unlink } from "node:fs/promises";
import type { FileHandle } from "node:fs/promises";
import { basename, dirname, join, resolve } from "node:path";
import {
  ObjectExistsError,
  ObjectNotFoundError,
  StorageError,
  systemErrorCode,
} from "../errors.ts";
import { CHUNK_BYTES } from "../io/bytes.ts";
import type { ByteSource, ByteStream } from "../io/bytes.ts";
import type { Clock } from "../io/clock.ts";
import { DirectoryFsyncs } from "../io/directory-fsyncs.ts";
import { createFileDurably, fsyncDirectory, writeFileDurably } from "../io/durable.ts";
import { randomHex } from "../io/random.ts";
import { directoryError, isMissing } from "./directory-errors.ts";
import { listDirectory } from "./directory-list.ts";
import { directoryUpkeep } from "./directory-upkeep.ts";
import { formatTemporaryName, requireValidKey, requireValidRange } from "./key.ts";
import { changedWhileRead } from "./request-errors.ts";
import { RootMemory } from "./root-memory.ts";
import { tellingSource } from "./sent-bytes.ts";
import type {
  CallOptions,
  GetOptions,
  ListOptions,
  ObjectInfo,
  ObjectKey,
  PutOptions,
  Storage,
  Upkeep,
} from "./storage.ts";
import { WatchedSource } from "./watched-source.ts";

const ABSENT_ROOT = [
  "does not exist",
  "Create it once by hand, or mount it: it is not made automatically, lest backups land beside it.",
] as const;
const OTHER_ROOT = [
  "is no directory",
  "Name the directory that holds the repository, or move away what is there.",
] as const;

/** Objects as files below a directory: WAL-G's file storage. */
export class DirectoryStorage implements Storage {
  readonly name: string;
  readonly upkeep: Upkeep;
  readonly #root: string;
  readonly #clock: Clock;
  readonly #fsyncs = new DirectoryFsyncs();
  readonly #memory: RootMemory | undefined;

  /** Without a `cacheDirectory` an empty mount point can't be told from a new repository. */
  constructor(root: string, clock: Clock, cacheDirectory?: string) {
    this.#root = resolve(root);
    this.#memory =
      cacheDirectory === undefined ? undefined : new RootMemory(this.#root, cacheDirectory);
    this.name = `file://${this.#root}`;
    this.#clock = clock;
    this.upkeep = directoryUpkeep(this.#root);
  }

  /** Rejects with StorageError unless the root is a directory; it is never made. */
  async requireRoot(): Promise<void> {
    const isDirectory = await stat(this.#root).then(
      (found) => found.isDirectory(),
      (error: unknown) => {
        if (systemErrorCode(error) === "ENOENT") return undefined;
        throw directoryError("open", this.#root, error);
      },
    );
    if (isDirectory === true) return;
    const [what, hint] = isDirectory === undefined ? ABSENT_ROOT : OTHER_ROOT;
    throw new StorageError(`storage directory ${this.#root} ${what}`, { isRetryable: false, hint });
  }

  async *get(key: ObjectKey, options: GetOptions): ByteStream {
    const { signal, range, onOpened, ifVersion } = options;
    if (range !== undefined) requireValidRange(range);
    signal.throwIfAborted();

    await using handle = await this.#openForReading(key);
    const stats = await this.#onDisk("stat", key, () => handle.stat({ bigint: true }));
    if (!stats.isFile()) throw new ObjectNotFoundError(key, this.name);
    const sizeBytes = Number(stats.size);
    const version = `${stats.ino}-${stats.size}-${stats.mtimeNs}`;
    if (ifVersion !== undefined && ifVersion !== version) throw changedWhileRead(key, this.name);
    onOpened?.({ sizeBytes, version });

    const end = Math.min(sizeBytes, range?.end ?? sizeBytes);
    let position = range?.start ?? 0;
    const buffer = Buffer.allocUnsafeSlow(Math.max(0, Math.min(CHUNK_BYTES, end - position)));
    while (position < end) {
      signal.throwIfAborted();
      const wantedBytes = Math.min(buffer.length, end - position);
      const { bytesRead } = await this.#onDisk("read", key, () =>
        handle.read(buffer, 0, wantedBytes, position),
      );
      if (bytesRead === 0) throw changedWhileRead(key, this.name);
      position += bytesRead;
      yield buffer.subarray(0, bytesRead);
    }
  }

  async put(
    key: ObjectKey,
    body: ByteSource,
    { signal, ifAbsent, onSent }: PutOptions,
  ): Promise<void> {
    requireValidKey(key);
    signal.throwIfAborted();
    const path = this.#path(key);
    const temporaryName = formatTemporaryName(basename(path), this.#clock.now(), randomHex(8));
    const options = {
      signal,
      mode: 0o644,
      root: this.#root,
      onMissing: async () => await this.#memory?.requireKept(),
      fsyncs: this.#fsyncs,
      temporaryPath: join(dirname(path), temporaryName),
    };

    // Nothing is made for it; and once it was deleted again, we would take the place for emptied.
    if (!key.includes("/")) await this.#memory?.requireKept();
    const source = new WatchedSource(tellingSource(body, onSent));
    try {
      if (ifAbsent !== true) await writeFileDurably(path, source.open(), options);
      else if (!(await createFileDurably(path, source.open(), options))) {
        throw new ObjectExistsError(key, this.name);
      }
      await this.#memory?.noteFilled();
    } catch (error) {
      if (source.isFailedBy(error)) throw error;
      if (isMissing(error)) await this.requireRoot();
      throw directoryError("write", path, error);
    }
  }

  async stat(key: ObjectKey, { signal }: CallOptions): Promise<ObjectInfo> {
    requireValidKey(key);
    signal.throwIfAborted();
    const stats = await this.#onDisk("stat", key, () => stat(this.#path(key)));
    if (!stats.isFile()) throw new ObjectNotFoundError(key, this.name);
    return { key, sizeBytes: stats.size, modifiedAt: stats.mtime };
  }

  async *list(prefix: string, options: ListOptions): AsyncIterable<ObjectInfo> {
    options.signal.throwIfAborted();
    let isEmpty = true;
    for await (const info of listDirectory(this.#root, { ...options, prefix })) {
      isEmpty = false;
      yield info;
    }
    // An unmounted repository must not look like an empty one.
    if (isEmpty) await this.requireRoot();
  }

  async delete(keys: readonly ObjectKey[], { signal }: CallOptions): Promise<void> {
    for (const key of keys) requireValidKey(key);
    const directories = new Set<string>();
    const failures: { key: ObjectKey; error: unknown }[] = [];
    for (const key of keys) {
      signal.throwIfAborted();
      try {
        if (await removeFile(this.#path(key))) directories.add(dirname(this.#path(key)));
      } catch (error) {
        failures.push({ key, error });
      }
    }
    await this.#settleAfterDelete(directories);
    if (directories.size > 0) await this.#memory?.noteDeleted();

    const [first] = failures;
    if (first === undefined) return;
    const path = this.#path(first.key);
    const others = failures.length === 1 ? "" : ` and ${failures.length - 1} other objects`;
    throw directoryError("delete", `${path}${others}`, first.error);
  }

  async [Symbol.asyncDispose](): Promise<void> {}

  /** A crash must not bring a deleted sentinel back after its parts are gone: fsync. */
  async #settleAfterDelete(directories: ReadonlySet<string>): Promise<void> {
    const remaining = new Set<string>();
    for (const directory of directories) {
      remaining.add(await removeEmptyDirectories(directory, this.#root));
    }
    for (const directory of remaining) {
      try {
        await fsyncDirectory(directory);
      } catch (error) {
        // Removed meanwhile by another delete, which then fsyncs the directory above.
        if (!isMissing(error)) throw directoryError("fsync", directory, error);
      }
    }
  }

  #path(key: ObjectKey): string {
    return join(this.#root, key);
  }

  async #openForReading(key: ObjectKey): Promise<FileHandle> {
    requireValidKey(key);
    return await this.#onDisk("open", key, () => open(this.#path(key), "r"));
  }

  async #onDisk<T>(action: string, key: ObjectKey, work: () => Promise<T>): Promise<T> {
    try {
      return await work();
    } catch (error) {
      if (isMissing(error)) {
        await this.requireRoot();
        throw new ObjectNotFoundError(key, this.name, { cause: error });
      }
      throw directoryError(action, this.#path(key), error);
    }
  }
}

/** Gives false if there was no such file; a directory of that name is no object. */
async function removeFile(path: string): Promise<boolean> {
  try {
    await unlink(path);
    return true;
  } catch (error) {
    if (isMissing(error) || systemErrorCode(error) === "EISDIR") return false;
    throw error;
  }
}

/** Removes `directory` and those above it while they are empty; gives the one that remains. */
async function removeEmptyDirectories(directory: string, root: string): Promise<string> {
  for (let current = directory; current !== root; current = dirname(current)) {
    try {
      await rmdir(current);
    } catch (error) {
      if (!isMissing(error)) return current;
    }
  }
  return root;
}
