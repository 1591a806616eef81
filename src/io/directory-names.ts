import { once } from "node:events";
import { readdir, stat } from "node:fs/promises";
import { LocalFileError } from "../errors.ts";
import { childProcess } from "./builtin.ts";
import { localFileError } from "./system-error.ts";

/**
 * Of a directory itself, as most file systems tell it: some thousand names. Few directories of a
 * cluster have so many.
 */
const LARGE_BYTES = 64 * 1024;
const NUL = 0;
/** What find puts before each name. */
const PREFIX_LENGTH = "./".length;

export interface ListNamesOptions {
  readonly signal: AbortSignal;
  /** What makes a directory large; 64 KiB unless told. */
  readonly largeBytes?: number;
}

/**
 * All names in a directory but "." and "..", in no order, a few thousand at a time. Rejects with
 * LocalFileError.
 *
 * The runtime lists a directory at once, also where it is asked to open one and read on: a million
 * names are 90 MiB. So `find` lists large ones; where there is none, that memory is needed.
 */
export async function* listNames(
  directory: string,
  { signal, largeBytes = LARGE_BYTES }: ListNamesOptions,
): AsyncGenerator<readonly string[], void, undefined> {
  const isLarge = (await onDisk(directory, stat(directory))).size >= largeBytes;
  if (isLarge && (yield* namesByFind(directory, signal))) return;
  signal.throwIfAborted();
  yield await onDisk(directory, readdir(directory));
}

/** Gives false if nothing was given, because there is no such program or it is another one. */
async function* namesByFind(
  directory: string,
  signal: AbortSignal,
): AsyncGenerator<readonly string[], boolean, undefined> {
  const words = [".", "-mindepth", "1", "-maxdepth", "1", "-print0"];
  const child = childProcess().spawn("find", words, {
    cwd: directory,
    stdio: ["ignore", "pipe", "ignore"],
  });
  const ended = once(child, "close");
  // Told below; until then nobody may call it unhandled.
  ended.catch(() => {});
  const isStarted = await once(child, "spawn").then(
    () => true,
    () => false,
  );
  if (!isStarted) return false;
  let isAny = false;
  let rest = Buffer.alloc(0);
  try {
    for await (const chunk of child.stdout) {
      signal.throwIfAborted();
      if (!Buffer.isBuffer(chunk)) throw new TypeError("a pipe gave no bytes");
      const bytes = rest.length === 0 ? chunk : Buffer.concat([rest, chunk]);
      const end = bytes.lastIndexOf(NUL) + 1;
      rest = Buffer.from(bytes.subarray(end));
      if (end === 0) continue;
      isAny = true;
      const names = bytes.toString("utf8", 0, end - 1).split("\0");
      yield names.map((name) => name.slice(PREFIX_LENGTH));
    }
  } finally {
    if (child.exitCode === null) child.kill("SIGKILL");
  }
  const [code, killedBy]: readonly unknown[] = await ended;
  if (code === 0 && rest.length === 0) return true;
  if (!isAny) return false;
  throw new LocalFileError(
    `cannot list ${directory}: find ended with ${String(code ?? killedBy)}`,
    {
      hint: "Run `find` on it by hand: it says what is wrong.",
    },
  );
}

async function onDisk<T>(directory: string, work: Promise<T>): Promise<T> {
  try {
    return await work;
  } catch (error) {
    throw localFileError("list", directory, error);
  }
}
