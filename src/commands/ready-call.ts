import { existsSync, lstatSync, realpathSync, statSync } from "node:fs";
import { basename, dirname, extname, join, resolve } from "node:path";
import { queueIn, queueOf } from "../archive/archive-status.ts";
import type { CallerName } from "../archive/caller-name.ts";
import { PushNotes } from "../archive/push-note.ts";
import { putReadySegment } from "../archive/ready-segment.ts";
import { CONFIG_EXTENSIONS, homeConfigPaths } from "../config/home-config.ts";
import { fileState } from "../io/file-state.ts";
import { sha256Hex } from "../io/runtime.ts";
import { parseWalFileName } from "../postgres/wal-file.ts";

/** What a call is known by, before any setting is read. */
export interface CallPlace {
  readonly args: readonly string[];
  readonly environment: Readonly<Record<string, string | undefined>>;
  readonly workingDirectory: string;
  readonly homeDirectory?: string;
  readonly versionText: string;
  readonly userId: number;
}

export interface CallOutcome {
  /** The work had been done ahead, and the call is over. */
  readonly isDone: boolean;
  /**
   * The name of who calls, if a server does: equal for two calls only if the same version is called
   * with the same words, environment and config files by the same run of the server. So both have
   * the same settings.
   */
  readonly caller?: CallerName;
}

/** PostgreSQL's words for one WAL file. */
interface WalCall {
  /** All other words. */
  readonly words: readonly string[];
  readonly dataDirectory: string;
  readonly isDone: (spool: string, caller: CallerName) => Promise<boolean>;
}

/**
 * Answers a wal-push or wal-fetch whose file was archived or fetched ahead for this very caller, by
 * the drainer or prefetcher that leaves a link with the caller's name: what DRAIN.md and FETCH.md
 * say of setup's lines, for calls without them. Settings, and the parts of the program that read
 * them, take longer than all of this. Never rejects; anything unusual is left to the whole program.
 */
export async function answerAtOnce(place: CallPlace): Promise<CallOutcome> {
  try {
    const call = readCall(place);
    if (call === undefined) return { isDone: false };
    const dataDirectory = realpathSync(call.dataDirectory);
    const caller = callerName(place, call.words, join(dataDirectory, "postmaster.pid"));
    if (caller === undefined) return { isDone: false };
    const spool = `${dataDirectory}.walnut`;
    const isDone = isOurs(spool, place.userId) && (await call.isDone(spool, caller));
    return { isDone, caller };
  } catch {
    // A failure here is none of the call.
    return { isDone: false };
  }
}

function readCall({ args, workingDirectory }: CallPlace): WalCall | undefined {
  const [name = "", destination = ""] = args.slice(-2);
  if (args.at(-3) === "wal-fetch" || args.at(-5) === "wal-fetch") {
    const path = resolve(workingDirectory, destination);
    const { dataDirectory, walDirectory } = queueIn(dirname(dirname(path)));
    if (path !== join(walDirectory, "RECOVERYXLOG")) return undefined;
    if (parseWalFileName(name)?.kind !== "segment") return undefined;
    const isDone = (spool: string, caller: CallerName) =>
      takeReady({ name, destination: path, dataDirectory }, join(spool, "prefetch", caller));
    return { words: args.slice(0, -2), dataDirectory, isDone };
  }
  if (args.at(-2) !== "wal-push" && args.at(-4) !== "wal-push") return undefined;
  const path = resolve(workingDirectory, destination);
  const queue = queueOf(path);
  if (queue === undefined) return undefined;
  const { dataDirectory, walDirectory } = queue;
  return {
    words: args.slice(0, -1),
    dataDirectory,
    async isDone(spool, caller) {
      const notes = new PushNotes(join(spool, "notes"), walDirectory);
      if (!notes.isVouchedFor(caller) || !(await notes.isTrue(basename(path)))) return false;
      // A drainer of another repository takes the links away before its first note.
      return notes.isVouchedFor(caller);
    },
  };
}

async function takeReady(
  wanted: {
    readonly name: string;
    readonly destination: string;
    readonly dataDirectory: string;
  },
  directory: string,
): Promise<boolean> {
  const { name, destination, dataDirectory } = wanted;
  const path = join(directory, name);
  const ready = statSync(path, { bigint: true, throwIfNoEntry: false });
  const server = statSync(join(dataDirectory, "postmaster.pid"), { bigint: true });
  if (ready === undefined || ready.mtimeNs <= server.mtimeNs) return false;
  const { signal } = new AbortController();
  await putReadySegment({ name, path }, destination, { isOnWalFileSystem: true, signal });
  return true;
}

/** As spool-directory.ts wants it. Somebody else who can write there could make us believe things. */
function isOurs(spool: string, userId: number): boolean {
  const found = lstatSync(spool, { throwIfNoEntry: false });
  if (found === undefined || !found.isDirectory()) return false;
  return found.uid === userId && (found.mode & 0o022) === 0 && existsSync(join(spool, "gaps"));
}

/** Undefined where no server runs. */
function callerName(
  place: CallPlace,
  words: readonly string[],
  pidFile: string,
): CallerName | undefined {
  const server = fileState(pidFile);
  if (server === undefined) return undefined;
  const { environment, workingDirectory, homeDirectory, versionText } = place;
  const variables = Object.entries(environment).toSorted(([a], [b]) => (a < b ? -1 : 1));
  // Whatever names a config file, by a flag or a variable, and where one is looked for.
  const named = [...words, ...variables.map(([, value = ""]) => value)]
    .map((word) => word.slice(word.startsWith("--") ? word.indexOf("=") + 1 : 0))
    .filter((word) => CONFIG_EXTENSIONS.some((extension) => extname(word) === `.${extension}`))
    .map((path) => resolve(workingDirectory, path));
  const homes = homeDirectory === undefined ? [] : homeConfigPaths(homeDirectory);
  const files = [...named, ...homes].map((path) => fileState(path) ?? "");
  const all = [versionText, words, variables, workingDirectory, pidFile, server, files];
  return `c-${sha256Hex(JSON.stringify(all)).slice(0, 16)}`;
}
