import { posix } from "node:path";
import type { FolderEntry } from "./folder-list.ts";
import { isBareFailure, isNoSuchFile } from "./sftp-errors.ts";
import type { SftpSession } from "./sftp-session.ts";

const { dirname } = posix;

/** Type bits of a mode. @source stat.h */
const TYPE_MASK = 0o170000;
const REGULAR = 0o100000;
const DIRECTORY = 0o040000;
const LINK = 0o120000;

const OPEN_ATTEMPTS = 5;

/** Opens a new file; directories that are missing between `root` and it are made. */
export async function createFile(
  session: SftpSession,
  path: string,
  root: string,
): Promise<{ readonly handle: Buffer; readonly areDirectoriesNew: boolean }> {
  // Several times, because a concurrent delete may remove the directory while it is empty.
  for (let attempt = 1; ; attempt++) {
    try {
      return { handle: await session.open(path, "wx"), areDirectoriesNew: attempt > 1 };
    } catch (error) {
      if (!isNoSuchFile(error) || attempt === OPEN_ATTEMPTS) throw error;
    }
    await makeBelow(session, dirname(path), root);
  }
}

/**
 * Gives a written file its final name, in place of what is there. Where the server can't do that at
 * once, what was there is moved away first: a crash in between leaves both under temporary names.
 */
export async function replaceFile(
  session: SftpSession,
  temporary: string,
  path: string,
): Promise<void> {
  if (session.canReplace) {
    await session.replace(temporary, path);
    return;
  }
  try {
    await session.rename(temporary, path);
  } catch (error) {
    if (isNoSuchFile(error) || !(await exists(session, path))) throw error;
    // As a temporary name it must end in 16 hex digits: another writer's is another.
    const previous = temporary.replace(/.{8}$/, "00000000");
    await session.rename(path, previous);
    await session.rename(temporary, path);
    await session.unlink(previous).catch(() => {});
  }
}

/** The same, unless the name is taken: then gives false. Keeps the temporary file in that case. */
export async function claimName(
  session: SftpSession,
  temporary: string,
  path: string,
): Promise<boolean> {
  if (session.canLink) {
    try {
      await session.link(temporary, path);
      await session.unlink(temporary).catch(() => {});
      return true;
    } catch (error) {
      if (isNoSuchFile(error)) throw error;
      if (await exists(session, path)) return false;
      // The file system there knows no hard links.
    }
  }
  if (await exists(session, path)) return false;
  try {
    await session.rename(temporary, path);
    return true;
  } catch (error) {
    if (isBareFailure(error) && (await exists(session, path))) return false;
    throw error;
  }
}

/** Makes a directory's names durable, as far as the server lets a directory be opened. */
export async function syncDirectory(session: SftpSession, path: string): Promise<void> {
  try {
    const handle = await session.open(path, "r");
    try {
      await session.fsync(handle);
    } finally {
      await session.close(handle);
    }
  } catch {
    // It can't be opened as a file, or was removed by a delete: not every server can do this.
    session.connection.broken.throwIfAborted();
  }
}

/** Gives whether there was such a file; a directory of that name is no object. */
export async function removeFile(session: SftpSession, path: string): Promise<boolean> {
  try {
    await session.unlink(path);
    return true;
  } catch (error) {
    if (isNoSuchFile(error) || (await isDirectory(session, path))) return false;
    throw error;
  }
}

/** Removes `directory` and those above it while they are empty; gives the one that remains. */
export async function removeEmptyDirectories(
  session: SftpSession,
  directory: string,
  root: string,
): Promise<string> {
  for (let current = directory; current !== root; current = dirname(current)) {
    try {
      await session.removeDirectory(current);
    } catch (error) {
      session.connection.broken.throwIfAborted();
      if (!isNoSuchFile(error)) return current;
    }
  }
  return root;
}

/** What a directory holds; symbolic links are followed. A missing one is empty. */
export async function readFolder(session: SftpSession, path: string): Promise<FolderEntry[]> {
  try {
    const entries = await session.readDirectory(path);
    const read = entries.map(async ({ name, attributes }): Promise<FolderEntry[]> => {
      // Version 3 leaves attributes out that it does not know: then the type is asked for.
      const isKnown = typeof attributes.mode === "number" && !isType(attributes.mode, LINK);
      const facts = isKnown ? attributes : await statOrNothing(session, posix.join(path, name));
      if (facts === undefined) return [];
      if (isType(facts.mode, DIRECTORY)) return [{ kind: "folder", name }];
      if (!isType(facts.mode, REGULAR)) return [];
      const modifiedAt = new Date(facts.mtime * 1000);
      return [{ kind: "file", name, sizeBytes: facts.size, modifiedAt }];
    });
    return (await Promise.all(read)).flat();
  } catch (error) {
    if (isNoSuchFile(error)) return [];
    // A file of that name: OpenSSH says no more than "Failure".
    if (isBareFailure(error) && !(await isDirectory(session, path))) return [];
    throw error;
  }
}

/** Whether the path is a directory, links followed. */
export async function isDirectory(session: SftpSession, path: string): Promise<boolean> {
  const facts = await statOrNothing(session, path);
  return facts !== undefined && isType(facts.mode, DIRECTORY);
}

/** Whether a mode is that of a regular file. */
export function isRegular(mode: number): boolean {
  return isType(mode, REGULAR);
}

function isType(mode: number, type: number): boolean {
  return (mode & TYPE_MASK) === type;
}

async function statOrNothing(session: SftpSession, path: string) {
  try {
    return await session.stat(path);
  } catch (error) {
    if (isNoSuchFile(error)) return undefined;
    throw error;
  }
}

/** Whether there is anything of this name, links followed. */
export async function exists(session: SftpSession, path: string): Promise<boolean> {
  return (await statOrNothing(session, path)) !== undefined;
}

async function makeBelow(session: SftpSession, directory: string, root: string): Promise<void> {
  if (directory === root) {
    await session.stat(root);
    return;
  }
  try {
    await session.makeDirectory(directory);
  } catch (error) {
    if (isBareFailure(error) && (await isDirectory(session, directory))) return;
    if (!isNoSuchFile(error)) throw error;
    await makeBelow(session, dirname(directory), root);
    await makeBelow(session, directory, root);
  }
}
