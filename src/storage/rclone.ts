import { posix } from "node:path";
import { ObjectExistsError, ObjectNotFoundError, StorageError } from "../errors.ts";
import type { ByteSource, ByteStream } from "../io/bytes.ts";
import type { Clock } from "../io/clock.ts";
import { randomHex } from "../io/random.ts";
import { deleteSingly } from "./delete-singly.ts";
import { listFolders, listTemporaryFiles } from "./folder-list.ts";
import type { FolderEntry, ReadFolder } from "./folder-list.ts";
import {
  formatTemporaryName,
  requireValidKey,
  requireValidRange,
  temporaryNameParts,
} from "./key.ts";
import { RcloneClient } from "./rclone-client.ts";
import type { RcloneConfig } from "./rclone-config.ts";
import { isDirectoryMissing, isFolder, isMissing } from "./rclone-errors.ts";
import { changedWhileRead } from "./request-errors.ts";
import { tellingSource } from "./sent-bytes.ts";
import type {
  ByteRange,
  CallOptions,
  GetOptions,
  ListOptions,
  ObjectInfo,
  ObjectKey,
  PutOptions,
  Storage,
  UnfinishedPut,
  Upkeep,
} from "./storage.ts";

export interface RcloneOptions {
  /** Silence of this length ends a request. */
  readonly requestTimeoutMs: number;
  readonly clock: Clock;
}

/** Removing what a failed put left is tried for so long. */
const CLEANUP_TIMEOUT_MS = 5_000;
/** Times of the store: others cost a request for each object with some providers. */
const PLAIN_TIMES = { UseServerModTime: true };
const LIST_OPTIONS = { noMimeType: true };

/** Starts rclone with the first call. */
export async function openRcloneStorage(
  config: RcloneConfig,
  options: RcloneOptions,
): Promise<Storage> {
  return new RcloneStorage(config, options);
}

/** What rclone tells of one path. */
type Item = FolderEntry & { readonly version: string };

/** Objects as files of one of rclone's remotes. */
class RcloneStorage implements Storage {
  readonly name: string;
  readonly upkeep: Upkeep;
  readonly #remote: string;
  readonly #clock: Clock;
  readonly #client: RcloneClient;

  constructor(config: RcloneConfig, options: RcloneOptions) {
    this.name = `rclone:${config.remote}`;
    this.#remote = config.remote;
    this.#clock = options.clock;
    this.#client = new RcloneClient(config, { ...options, name: this.name });
    this.upkeep = {
      listUnfinished: (prefix, call) => listTemporaryFiles(this.#readFolder, prefix, call),
      removeUnfinished: (put, call) => this.#removeUnfinished(put, call),
    };
  }

  async *get(key: ObjectKey, options: GetOptions): ByteStream {
    const { signal, range, onOpened, ifVersion } = options;
    if (range !== undefined) requireValidRange(range);
    requireValidKey(key);
    const { sizeBytes, version } = await this.#find(key, { signal });
    if (ifVersion !== undefined && ifVersion !== version) throw changedWhileRead(key, this.name);
    onOpened?.({ sizeBytes, version });

    const start = range?.start ?? 0;
    const end = Math.min(sizeBytes, range?.end ?? sizeBytes);
    if (start >= end) return;
    const { body } = await this.#client.open(key, formatRange({ start, end }, sizeBytes), {
      signal,
    });
    let receivedBytes = 0;
    try {
      for await (const chunk of body) {
        if (!(chunk instanceof Uint8Array)) continue;
        receivedBytes += chunk.length;
        yield chunk;
      }
    } catch (error) {
      signal.throwIfAborted();
      throw this.#client.bodyError(error, { verb: "get", key });
    }
    signal.throwIfAborted();
    if (receivedBytes === end - start) return;
    throw new StorageError(
      `cannot get ${key} in ${this.name}: ${receivedBytes} of ${end - start} bytes arrived`,
      { isRetryable: true },
    );
  }

  async put(
    key: ObjectKey,
    body: ByteSource,
    { signal, ifAbsent, onSent }: PutOptions,
  ): Promise<void> {
    requireValidKey(key);
    signal.throwIfAborted();
    if (ifAbsent === true && (await this.#isThere(key, { signal }))) {
      throw new ObjectExistsError(key, this.name);
    }
    const folder = folderOf(key);
    // Of characters that every provider takes, whatever the key has.
    const final = posix.basename(key).replaceAll(/[^\w.-]/g, "_");
    const name = formatTemporaryName(final, this.#clock.now(), randomHex(8));
    const temporary = folder === "" ? name : `${folder}/${name}`;
    try {
      const source = tellingSource(body, onSent);
      const sizeBytes = await this.#client.upload(folder, name, source.open(), { signal });
      const stored = await this.#find(temporary, { signal });
      if (stored.sizeBytes !== sizeBytes) {
        throw new StorageError(
          `cannot put ${key} in ${this.name}: ${stored.sizeBytes} of ${sizeBytes} bytes are there`,
          { isRetryable: true },
        );
      }
      if (ifAbsent === true && (await this.#isThere(key, { signal }))) {
        throw new ObjectExistsError(key, this.name);
      }
      await this.#move(temporary, key, { signal });
    } catch (error) {
      await this.#removeTemporary(temporary);
      throw error;
    }
  }

  async stat(key: ObjectKey, options: CallOptions): Promise<ObjectInfo> {
    requireValidKey(key);
    const { sizeBytes, modifiedAt } = await this.#find(key, options);
    return { key, sizeBytes, modifiedAt };
  }

  async *list(prefix: string, options: ListOptions): AsyncIterable<ObjectInfo> {
    options.signal.throwIfAborted();
    let isEmpty = true;
    for await (const info of listFolders(this.#readFolder, { ...options, prefix })) {
      isEmpty = false;
      yield info;
    }
    if (isEmpty) await this.#requireRoot(options);
  }

  async delete(keys: readonly ObjectKey[], { signal }: CallOptions): Promise<void> {
    for (const key of keys) requireValidKey(key);
    // Of files that were there only: rclone's rmdir takes a file of that name away, too.
    const folders = new Set<string>();
    await deleteSingly(keys, { signal }, async (key, call) => {
      if (await this.#deleteFile(key, call)) folders.add(folderOf(key));
    });
    for (const folder of folders) await this.#removeEmptyFolders(folder, { signal });
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.#client.close();
  }

  async #find(key: ObjectKey, options: CallOptions): Promise<Item & { kind: "file" }> {
    const item = await this.#stat(key, options);
    if (item?.kind === "file") return item;
    await this.#requireRoot(options);
    throw new ObjectNotFoundError(key, this.name);
  }

  async #isThere(key: ObjectKey, options: CallOptions): Promise<boolean> {
    return (await this.#stat(key, options))?.kind === "file";
  }

  async #stat(key: string, options: CallOptions): Promise<Item | undefined> {
    const parameters = {
      fs: this.#remote,
      remote: key,
      opt: { ...LIST_OPTIONS, filesOnly: true },
      _config: PLAIN_TIMES,
    };
    const action = { verb: "stat", key };
    try {
      const answer = await this.#client.call("operations/stat", parameters, action, options);
      return parseItem(property(answer, "item"));
    } catch (error) {
      if (isMissing(error)) return undefined;
      throw error;
    }
  }

  async #move(from: string, to: string, options: CallOptions): Promise<void> {
    const parameters = {
      srcFs: this.#remote,
      srcRemote: from,
      dstFs: this.#remote,
      dstRemote: to,
      // Else an object that seems to be the same would be left as it is.
      _config: { IgnoreTimes: true },
    };
    await this.#client.call("operations/movefile", parameters, { verb: "put", key: to }, options);
  }

  /** Gives whether there was such a file. */
  async #deleteFile(key: string, options: CallOptions): Promise<boolean> {
    const parameters = { fs: this.#remote, remote: key };
    const action = { verb: "delete", key };
    try {
      await this.#client.call("operations/deletefile", parameters, action, options);
      return true;
    } catch (error) {
      // A folder of that name is no object.
      if (isMissing(error) || isFolder(error)) return false;
      throw error;
    }
  }

  async #removeEmptyFolders(folder: string, options: CallOptions): Promise<void> {
    for (let current = folder; current !== ""; current = folderOf(current)) {
      const parameters = { fs: this.#remote, remote: current };
      const action = { verb: "remove the folder", key: current };
      try {
        await this.#client.call("operations/rmdir", parameters, action, options);
      } catch (error) {
        options.signal.throwIfAborted();
        // Not empty: rclone has no code that would tell this from anything else.
        if (!isMissing(error)) return;
      }
    }
  }

  /** After a failure: never rejects. */
  async #removeTemporary(temporary: string): Promise<void> {
    const options = { signal: AbortSignal.timeout(CLEANUP_TIMEOUT_MS) };
    await this.#deleteFile(temporary, options).catch(() => {});
  }

  async #removeUnfinished({ key, id }: UnfinishedPut, options: CallOptions): Promise<void> {
    if (temporaryNameParts(id) === undefined) throw new RangeError(`no temporary file: ${id}`);
    await this.#deleteFile(posix.join(folderOf(key), id), options);
  }

  readonly #readFolder: ReadFolder = async (folder, options) => {
    const key = folder.slice(0, -1);
    const parameters = { fs: this.#remote, remote: key, opt: LIST_OPTIONS, _config: PLAIN_TIMES };
    try {
      const action = { verb: "list", key: folder };
      const answer = await this.#client.call("operations/list", parameters, action, options);
      const items = property(answer, "list");
      return Array.isArray(items) ? items.flatMap((item) => parseItem(item) ?? []) : [];
    } catch (error) {
      if (isDirectoryMissing(error)) return [];
      throw error;
    }
  };

  /** Where there are folders, a missing root is an error: an unmounted disk is no empty store. */
  async #requireRoot(options: CallOptions): Promise<void> {
    const parameters = { fs: this.#remote, remote: "", opt: { ...LIST_OPTIONS, dirsOnly: true } };
    const action = { verb: "list", key: "/" };
    try {
      await this.#client.call("operations/list", parameters, action, options);
    } catch (error) {
      if (!isDirectoryMissing(error)) throw error;
      throw new StorageError(`storage directory ${this.name} does not exist`, {
        isRetryable: false,
        hint: `Create it once by hand, lest backups land elsewhere: rclone mkdir ${this.#remote}`,
        cause: error,
      });
    }
  }
}

function folderOf(key: string): string {
  const folder = posix.dirname(key);
  return folder === "." ? "" : folder;
}

function formatRange({ start, end }: Required<ByteRange>, sizeBytes: number): string | undefined {
  return start === 0 && end === sizeBytes ? undefined : `bytes=${start}-${end - 1}`;
}

function parseItem(item: unknown): Item | undefined {
  const name = property(item, "Name");
  const time = property(item, "ModTime");
  const size = property(item, "Size");
  if (typeof name !== "string") return undefined;
  if (property(item, "IsDir") === true) return { kind: "folder", name, version: "" };
  // Documents that exist only when they are read have no length.
  if (typeof size !== "number" || size < 0 || typeof time !== "string") return undefined;
  return {
    kind: "file",
    name,
    sizeBytes: size,
    modifiedAt: new Date(time),
    version: `${size}-${time}`,
  };
}

function property(value: unknown, name: string): unknown {
  return typeof value === "object" && value !== null ? Reflect.get(value, name) : undefined;
}
