import { link, open, rename, stat, unlink } from "node:fs/promises";
import type { FileHandle } from "node:fs/promises";
import { dirname } from "node:path";
import { systemErrorCode } from "../errors.ts";
import { abortable } from "./abort.ts";
import type { ByteStream } from "./bytes.ts";
import { DirectoryFsyncs, syncDirectoryHandle, type SyncedDirectory } from "./directory-fsyncs.ts";
import { handOver, makeDirectory } from "./handed-over.ts";
import { randomHex } from "./random.ts";
import { localFileError } from "./system-error.ts";
import { writeAll } from "./write-all.ts";
import { WriteBehind } from "./write-behind.ts";

export interface DurableWriteOptions {
  readonly signal: AbortSignal;
  /** Permission bits before the umask; 0o600 unless given. */
  readonly mode?: number;
  /** On the file system of the final path; `<path>.tmp-<16 hex digits>` unless given. */
  readonly temporaryPath?: string;
  /**
   * An existing directory above the file. Directories between the two are made (0755) when they are
   * missing, and made durable; this one never is, so that an unmounted disk is noticed.
   */
  readonly root?: string;
  /** Before directories are made below `root`; what it rejects with ends that. */
  readonly onMissing?: () => Promise<void>;
  /**
   * Given every byte of `body` once, in order, while it is written, and before the next ones are asked
   * for; what it throws ends that.
   */
  readonly alongside?: (piece: Uint8Array) => void;
  /** Written by this thread, with the event loop's turn between pieces; see WriteOptions. */
  readonly isBlocking?: boolean;
  /** Told when all of `body` is written, before it is fsynced. */
  readonly onWritten?: () => void;
  /**
   * Unless false: the name survives a power cut, too. With false the file may be gone after one;
   * under its name there is never a part of it.
   */
  readonly isNameDurable?: boolean;
  /** Shared by writers below the same root, who then wait for each other's fsyncs. */
  readonly fsyncs?: DirectoryFsyncs;
}

/**
 * Puts `body` under `path`, whole or not at all: written beside it, fsynced, renamed, and the
 * directory fsynced. Replaces what is there. Once resolved, the file survives a power cut.
 *
 * Rejects with LocalFileError for what the file system says, and with the body's own error; neither
 * leaves anything behind. A process killed meanwhile leaves its temporary file. What root makes
 * belongs to the owner of the directory that it is in.
 */
export async function writeFileDurably(
  path: string,
  body: Uint8Array | ByteStream,
  options: DurableWriteOptions,
): Promise<void> {
  await publish(path, body, options, async (temporaryPath) => {
    await rename(temporaryPath, path);
    return true;
  });
}

/**
 * Like writeFileDurably, but gives false and writes nothing if `path` exists. Exactly one of
 * several writers wins, except on file systems without hard links, where two that begin within the
 * same instant may both.
 */
export async function createFileDurably(
  path: string,
  body: Uint8Array | ByteStream,
  options: DurableWriteOptions,
): Promise<boolean> {
  return await publish(path, body, options, (temporaryPath) => claimName(temporaryPath, path));
}

/** Makes the names in a directory durable: files that were made, renamed or removed there. */
export async function fsyncDirectory(path: string): Promise<void> {
  try {
    await using handle = await open(path, "r");
    await syncDirectoryHandle(handle);
  } catch (error) {
    throw localFileError("fsync directory", path, error);
  }
}

async function publish(
  path: string,
  body: Uint8Array | ByteStream,
  options: DurableWriteOptions,
  takeName: (temporaryPath: string) => Promise<boolean>,
): Promise<boolean> {
  const { signal, mode = 0o600, root, isNameDurable = true } = options;
  const { fsyncs = new DirectoryFsyncs() } = options;
  const temporaryPath = options.temporaryPath ?? `${path}.tmp-${randomHex(8)}`;

  signal.throwIfAborted();
  const handle = await openNew(temporaryPath, mode, options);
  try {
    try {
      await writeBody(handle, body, { ...options, path });
      options.onWritten?.();
      await onDisk("fsync", path, handle.sync());
    } finally {
      await onDisk("close", path, handle.close());
    }
    signal.throwIfAborted();
    const isPublished = await onDisk("write", path, takeName(temporaryPath));
    if (!isPublished) await unlink(temporaryPath);
    else if (isNameDurable)
      await onDisk("fsync the directory of", path, syncParents(path, root, fsyncs));
    return isPublished;
  } catch (error) {
    await unlink(temporaryPath).catch(() => {});
    throw error;
  }
}

/** Opening comes first: the directory is there in all calls but the first. */
async function openNew(
  temporaryPath: string,
  mode: number,
  { root, onMissing }: Pick<DurableWriteOptions, "root" | "onMissing">,
): Promise<FileHandle> {
  // Several times, because a concurrent delete may remove the directory while it is empty.
  for (let attempt = 1; ; attempt++) {
    try {
      const handle = await open(temporaryPath, "wx", mode);
      await handOver(handle, temporaryPath);
      return handle;
    } catch (error) {
      const isMissing = systemErrorCode(error) === "ENOENT";
      if (!isMissing || root === undefined || attempt === OPEN_ATTEMPTS) {
        throw localFileError("create", temporaryPath, error);
      }
    }
    await onMissing?.();
    await onDisk("make directory", dirname(temporaryPath), makeBelow(dirname(temporaryPath), root));
  }
}

const OPEN_ATTEMPTS = 5;

async function makeBelow(directory: string, root: string): Promise<void> {
  if (directory === root) {
    await stat(root);
    return;
  }
  try {
    await makeDirectory(directory, 0o755);
  } catch (error) {
    const code = systemErrorCode(error);
    if (code === "EEXIST") return;
    if (code !== "ENOENT") throw error;
    await makeBelow(dirname(directory), root);
    await makeBelow(directory, root);
  }
}

/** As much as most segments of WAL have: for less, the buffers of the rest would not pay. */
const LONG_BYTES = 16 * 1024 * 1024;

async function writeBody(
  handle: FileHandle,
  body: Uint8Array | ByteStream,
  { signal, path, alongside, isBlocking }: DurableWriteOptions & { readonly path: string },
): Promise<void> {
  const how = { alongside, isBlocking };
  if (body instanceof Uint8Array) {
    await onDisk("write", path, writeAll(handle, body, how));
    return;
  }
  let writtenBytes = 0;
  let rest: WriteBehind | undefined;
  try {
    for await (const chunk of abortable(body, signal)) {
      if (writtenBytes >= LONG_BYTES && isBlocking !== true) {
        rest ??= new WriteBehind(handle, { alongside, position: writtenBytes });
      }
      const writing = rest?.write(chunk) ?? writeAll(handle, chunk, how);
      await onDisk("write", path, writing);
      writtenBytes += chunk.length;
    }
    if (rest !== undefined) await onDisk("write", path, rest.end());
  } finally {
    await rest?.settled();
  }
}

/** What link(2) answers where the file system knows no hard links. */
const NO_LINK_CODES: ReadonlySet<string> = new Set(["EPERM", "ENOTSUP", "EOPNOTSUPP", "ENOSYS"]);

async function claimName(temporaryPath: string, path: string): Promise<boolean> {
  try {
    await link(temporaryPath, path);
  } catch (error) {
    const code = systemErrorCode(error) ?? "";
    if (code === "EEXIST") return false;
    if (!NO_LINK_CODES.has(code)) throw error;
    if (await exists(path)) return false;
    await rename(temporaryPath, path);
    return true;
  }
  await unlink(temporaryPath);
  return true;
}

async function exists(path: string): Promise<boolean> {
  try {
    await stat(path);
    return true;
  } catch (error) {
    if (systemErrorCode(error) === "ENOENT") return false;
    throw error;
  }
}

async function syncParents(
  path: string,
  root: string | undefined,
  fsyncs: DirectoryFsyncs,
): Promise<void> {
  let below: SyncedDirectory | undefined;
  for (let directory = dirname(path); ; directory = dirname(directory)) {
    const isTop = root === undefined || directory === root;
    const synced = await syncIfPresent(directory, isTop, fsyncs);
    if (synced !== undefined && below !== undefined) fsyncs.remember(below);
    if (isTop || synced?.isDurable === true) return;
    below = synced;
  }
}

async function syncIfPresent(
  directory: string,
  isTop: boolean,
  fsyncs: DirectoryFsyncs,
): Promise<SyncedDirectory | undefined> {
  try {
    return await fsyncs.sync(directory, isTop);
  } catch (error) {
    // Our file was removed already, and the directory that this left empty.
    if (systemErrorCode(error) === "ENOENT") return undefined;
    throw error;
  }
}

async function onDisk<T>(action: string, path: string, work: Promise<T>): Promise<T> {
  try {
    return await work;
  } catch (error) {
    throw localFileError(action, path, error);
  }
}
