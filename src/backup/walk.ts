import {
  type BigIntStats,
  lstatSync,
  readdirSync,
  readlinkSync,
  realpathSync,
  statSync,
} from "node:fs";
import { join, relative } from "node:path";
import { isUtf8 } from "node:buffer";
import { LocalFileError, systemErrorCode } from "../errors.ts";
import { collectGarbage } from "../io/runtime.ts";
import { localFileError } from "../io/system-error.ts";
import type { Tablespace } from "../layout/tablespace-spec.ts";
import { parseRelationPath, unloggedRelations } from "../postgres/relation-file.ts";
import { CONTROL_FILE, type Fate, fateOf, isClusterData, neededInEmptied } from "./exclusion.ts";
import { PackedNames } from "./packed-names.ts";

interface WalkedBase {
  /** Of the tar entry: "/", "/base/5/1259", "/pg_tblspc/16385/PG_15_202209061". */
  readonly name: string;
  /** Permission bits with setuid, setgid and sticky. */
  readonly mode: number;
  readonly mtimeNs: bigint;
  readonly uid: number;
  readonly gid: number;
}

export interface WalkedFile extends WalkedBase {
  readonly kind: "file";
  /** To open it; not a symbolic link. */
  readonly path: string;
  /** As it was when it was visited; it may have another size when it is read. */
  readonly sizeBytes: number;
  /** Changed rows of the relation that it belongs to; absent where nobody counted. */
  readonly updatesCount?: bigint | undefined;
}

export interface WalkedDirectory extends WalkedBase {
  readonly kind: "directory";
}

export interface WalkedLink extends WalkedBase {
  readonly kind: "link";
  readonly target: string;
}

export type Walked = WalkedFile | WalkedDirectory | WalkedLink;

export interface WalkOptions {
  /** Absolute, symlinks resolved. */
  readonly dataDirectory: string;
  readonly majorVersion: number;
  /** Name of the server's own directory in a tablespace: "PG_15_202209061". */
  readonly tablespaceDirectory: string;
  /** stats_temp_directory below the data directory, relative to it. */
  readonly statsDirectory?: string | undefined;
  /** Something was met that a restore will not bring back as it is; the reader should know. */
  readonly onNotice: (text: string, path: string) => void;
}

interface Frame {
  /** On disk. */
  readonly directory: string;
  /** What the names are relative to the data directory: "", "base/5/". */
  readonly prefix: string;
  /** Still to be visited. */
  readonly names: PackedNames;
  readonly unlogged: ReadonlySet<string>;
}

const MODE_MASK = 0o7777n;

const TABLESPACE_LINK = /^pg_tblspc\/([1-9][0-9]*)$/;
/**
 * Files after which garbage is collected: with a million names that live the collector would let as
 * much of it come together.
 */
const NAMES_PER_COLLECTION = 4096;
const NO_NAMES: ReadonlySet<string> = new Set();

/**
 * Visits what belongs into a backup of a running cluster: by name within a directory, one directory
 * after the other, with memory for the names of those that it stands in. What disappears meanwhile
 * is passed over. Throws LocalFileError for what can't be read and for names that are not UTF-8.
 */
export class DataDirectoryWalk implements Iterable<Walked> {
  readonly #options: WalkOptions;
  readonly #tablespaces: Tablespace[] = [];
  /** Directories outside the data directory that links in it led to. */
  readonly #followed: string[] = [];
  /** Tablespaces of which there was a link only. */
  readonly #absent: AbsentTablespace[] = [];
  readonly #emptied = new Set<string>();
  #catalogBytes = 0;
  #visitedCount = 0;

  constructor(options: WalkOptions) {
    this.#options = options;
    if (options.statsDirectory !== undefined) this.#emptied.add(options.statsDirectory);
  }

  /** Another walk of the same directory, which says nothing. */
  again(): DataDirectoryWalk {
    return new DataDirectoryWalk({ ...this.#options, onNotice: () => {} });
  }

  /** Sizes of all that was visited so far, also of what was left out. */
  get catalogBytes(): number {
    return this.#catalogBytes;
  }

  /** The tablespaces that were visited so far, but for those within the data directory. */
  get tablespaces(): readonly Tablespace[] {
    return this.#tablespaces;
  }

  /** Only once. */
  *[Symbol.iterator](): Generator<Walked, void, undefined> {
    const { dataDirectory } = this.#options;
    const stats = lstatOf(dataDirectory);
    if (stats === undefined) throw new LocalFileError(`${dataDirectory} does not exist`);
    yield directoryOf("/", stats);
    this.#emptyTablespacesWithin();
    const stack = [this.#open(dataDirectory, "")];
    for (let top = stack.at(-1); top !== undefined; top = stack.at(-1)) {
      const name = top.names.next();
      if (name === undefined) {
        stack.pop();
        continue;
      }
      this.#visitedCount += 1;
      if (this.#visitedCount % NAMES_PER_COLLECTION === 0) collectGarbage();
      const path = `${top.directory}/${name}`;
      const visited = this.#visit(path, `${top.prefix}${name}`, top.unlogged);
      yield* visited.entries;
      if (visited.next !== undefined) stack.push(visited.next);
    }
    this.#requireTablespaces();
  }

  /** A location in the data directory is walked where its link is, not twice. */
  #emptyTablespacesWithin(): void {
    const { dataDirectory } = this.#options;
    const folder = `${dataDirectory}/pg_tblspc`;
    for (const name of readNames(folder)) {
      const path = `${folder}/${name}`;
      const found = lstatOf(path)?.isSymbolicLink() === true && followLink(path, "pg_tblspc");
      if (found && isWithin(found.path, dataDirectory)) {
        this.#emptied.add(relative(dataDirectory, found.path));
      }
    }
  }

  #requireTablespaces(): void {
    for (const { path, oid, directory, target } of this.#absent) {
      if (lstatOf(path) === undefined) continue;
      throw new LocalFileError(`tablespace ${oid} has no directory ${directory}`, {
        hint: `Is the file system of ${target} mounted? A backup would lack this tablespace.`,
      });
    }
  }

  #visit(path: string, relative: string, unlogged: ReadonlySet<string>): Visited {
    const stats = lstatOf(path);
    if (stats === undefined) return NOTHING;
    this.#catalogBytes += Number(stats.size);
    const fate = fateOf(relative, unlogged, { emptied: this.#emptied });
    if (fate === "skip" || relative === CONTROL_FILE) return NOTHING;
    if (stats.isFile()) return { entries: [fileOf(path, `/${relative}`, stats)] };
    if (stats.isDirectory()) return this.#directory(path, relative, { fate, stats });
    if (stats.isSymbolicLink()) return this.#link(path, relative, { fate, stats });
    this.#options.onNotice("a special file is left out", path);
    return NOTHING;
  }

  #directory(path: string, relative: string, { fate, stats }: Judged): Visited {
    const entry = directoryOf(`/${relative}`, stats);
    if (fate === "keep") return { entries: [entry], next: this.#open(path, `${relative}/`) };
    const needed = neededInEmptied(relative, this.#options.majorVersion);
    return {
      entries: [entry, ...needed.map((name) => ({ ...entry, name: `${entry.name}/${name}` }))],
    };
  }

  #link(path: string, relative: string, { fate, stats }: Judged): Visited {
    const target = readLink(path);
    if (target === undefined) return NOTHING;
    const tablespace = TABLESPACE_LINK.exec(relative)?.[1];
    if (tablespace !== undefined) return this.#tablespace(path, tablespace, target);
    const link = { kind: "link" as const, target, ...baseOf(`/${relative}`, stats) };
    const found = followLink(path, relative);
    if (found === undefined) {
      this.#options.onNotice("a symbolic link leads nowhere; it is stored as it is", path);
      return { entries: [link] };
    }
    if (found.stats.isDirectory()) {
      const judged = { fate, stats: found.stats };
      if (fate === "empty") return this.#directory(path, relative, judged);
      // A link to where we are or have been would never end.
      const visited = [this.#options.dataDirectory, ...this.#followed];
      if (visited.some((other) => isWithin(found.path, other) || isWithin(other, found.path))) {
        this.#options.onNotice("a link to a directory of this backup is stored as it is", path);
        return { entries: [link] };
      }
      this.#options.onNotice("a linked directory is stored as a directory", path);
      this.#followed.push(found.path);
      return this.#directory(found.path, relative, judged);
    }
    if (found.stats.isFile() && isClusterData(relative)) {
      this.#options.onNotice("a linked file is stored as a file", path);
      return { entries: [fileOf(found.path, `/${relative}`, found.stats)] };
    }
    this.#options.onNotice("a symbolic link is stored, not the file that it leads to", path);
    return { entries: [link] };
  }

  /** Neither the link nor the directory that it leads to is an entry: the spec tells of them. */
  #tablespace(path: string, oid: string, target: string): Visited {
    const { tablespaceDirectory } = this.#options;
    const relative = `pg_tblspc/${oid}/${tablespaceDirectory}`;
    const directory = join(path, tablespaceDirectory);
    const stats = lstatOf(directory);
    if (stats === undefined) {
      // The server drops the directory before the link: what is dropped is gone at the end.
      this.#absent.push({ path, oid, directory, target });
      return NOTHING;
    }
    this.#tablespaces.push({
      name: oid,
      location: target.length > 1 ? target.replace(/\/+$/, "") : target,
      link: `pg_tblspc/${oid}`,
    });
    this.#catalogBytes += Number(stats.size);
    return this.#directory(directory, relative, { fate: "keep", stats });
  }

  #open(directory: string, prefix: string): Frame {
    const names = readNames(directory);
    const hasInit = names.some((name) => name.endsWith("_init"));
    const unlogged = hasInit
      ? unloggedRelations(
          names.flatMap((name) => {
            const file = name.endsWith("_init") ? parseRelationPath(prefix + name) : undefined;
            return file ?? [];
          }),
        )
      : NO_NAMES;
    return { directory, prefix, names: new PackedNames(names), unlogged };
  }
}

interface AbsentTablespace {
  readonly path: string;
  readonly oid: string;
  readonly directory: string;
  readonly target: string;
}

interface Judged {
  readonly fate: Fate;
  readonly stats: BigIntStats;
}

interface Visited {
  readonly entries: readonly Walked[];
  readonly next?: Frame;
}

const NOTHING: Visited = { entries: [] };

function baseOf(name: string, stats: BigIntStats): WalkedBase {
  return {
    name,
    mode: Number(stats.mode & MODE_MASK),
    mtimeNs: stats.mtimeNs,
    uid: Number(stats.uid),
    gid: Number(stats.gid),
  };
}

function fileOf(path: string, name: string, stats: BigIntStats): WalkedFile {
  // One by one: a spread for each of a million files takes its time.
  return {
    kind: "file",
    path,
    sizeBytes: Number(stats.size),
    name,
    mode: Number(stats.mode & MODE_MASK),
    mtimeNs: stats.mtimeNs,
    uid: Number(stats.uid),
    gid: Number(stats.gid),
  };
}

function directoryOf(name: string, stats: BigIntStats): WalkedDirectory {
  return { kind: "directory", ...baseOf(name, stats) };
}

function lstatOf(path: string): BigIntStats | undefined {
  return unlessMissing("read", path, () => lstatSync(path, { bigint: true }));
}

function readLink(path: string): string | undefined {
  return unlessMissing("read the link", path, () => readlinkSync(path));
}

const NOWHERE_CODES: ReadonlySet<string> = new Set(["ENOENT", "ELOOP", "ENOTDIR"]);

/** Where a link ends; undefined for one that leads nowhere, or to settings that we may not read. */
function followLink(
  path: string,
  relative: string,
): { readonly path: string; readonly stats: BigIntStats } | undefined {
  try {
    const real = realpathSync(path);
    return { path: real, stats: statSync(real, { bigint: true }) };
  } catch (error) {
    const code = systemErrorCode(error) ?? "";
    if (NOWHERE_CODES.has(code)) return undefined;
    if (code === "EACCES" && !isClusterData(relative)) return undefined;
    throw localFileError("follow the link", path, error);
  }
}

function readNames(directory: string): string[] {
  const names = unlessMissing("list", directory, () => readdirSync(directory)) ?? [];
  if (names.some((name) => name.includes("\ufffd"))) requireUtf8Names(directory);
  return names;
}

function requireUtf8Names(directory: string): void {
  for (const name of readdirSync(directory, { encoding: "buffer" })) {
    if (isUtf8(name)) continue;
    const shown = name.toString("latin1").replaceAll(/[^ -~]/g, (character) => {
      return `\\x${character.charCodeAt(0).toString(16).padStart(2, "0")}`;
    });
    throw new LocalFileError(`${directory} holds a name that is not UTF-8: ${shown}`, {
      hint: "PostgreSQL makes no such files. Move it out of the data directory.",
    });
  }
}

function unlessMissing<T>(action: string, path: string, read: () => T): T | undefined {
  try {
    return read();
  } catch (error) {
    if (systemErrorCode(error) === "ENOENT") return undefined;
    throw localFileError(action, path, error);
  }
}

function isWithin(path: string, directory: string): boolean {
  return path === directory || path.startsWith(`${directory}/`);
}
