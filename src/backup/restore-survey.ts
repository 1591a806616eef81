import { lstatSync, type Stats } from "node:fs";
import { chmod, rm } from "node:fs/promises";
import { basename, dirname, join } from "node:path";
import { listNames } from "../io/directory-names.ts";
import type { Hasher } from "../io/hash.ts";
import { boundedParallel } from "../io/ordered.ts";
import { localFileError } from "../io/system-error.ts";
import { isTablespaceMarker } from "./extract-path.ts";
import type { ExpectedFile, ExpectedTree } from "./expected-tree.ts";
import { openForReading } from "./file-content.ts";
import { PathList, type Paths, PathSet } from "./path-set.ts";
import { PathTable } from "./path-table.ts";
import { isSpecialPath } from "./restore-plan.ts";
import { RESTORE_MARKER_PATH } from "./restore-marker.ts";
import type { TablespacePlan } from "./tablespace-plan.ts";

/** What a look at a file leaves to the collector; see noteMade. */
const THINGS_PER_LOOK = 8;
/** Read and hashed at once: so much stays in a processor's own cache. */
const READ_BYTES = 128 * 1024;
/** Permission bits, and those that no file of a server has. */
const MODE_MASK = 0o7777;

const GLOBAL = dirname(RESTORE_MARKER_PATH);

export interface SurveyOptions {
  /** What the chain's paths are numbered by. */
  readonly paths: PathTable;
  readonly signal: AbortSignal;
  readonly jobs: number;
  /**
   * Whether the tree is one that a server ran on (a delta restore): files that differ stay, to be
   * compared piece by piece, and so does what is none of the backup's business.
   */
  readonly isServers: boolean;
  makeHasher(): Promise<Hasher>;
  onProgress(bytes: number): void;
}

/** A file that may be right: it is listed, whole. */
interface Candidate {
  /** Number of its path. */
  readonly id: number;
  readonly absolute: string;
  readonly listed: ExpectedFile;
}

/**
 * Compares what a killed restore left with what is expected. Removes every link, every file that is
 * not expected and every file that is not right (PostgreSQL would use neither, but nobody should
 * have to think about it); gives the paths of those that need not be fetched again.
 */
export async function surveyDestination(
  destination: string,
  tablespaces: readonly TablespacePlan[],
  expected: ExpectedTree,
  options: SurveyOptions,
): Promise<Paths> {
  const candidates = new PathSet(options.paths);
  const roots: readonly Root[] = [
    { root: destination, prefix: "" },
    ...tablespaces.map(({ oid, location }) => ({ root: location, prefix: `pg_tblspc/${oid}/` })),
  ];
  for (const { root, prefix } of roots) {
    await new Weeding(expected, candidates, options).weed(root, prefix);
  }
  const kept = new PathSet(options.paths);
  const located = locatedFiles(candidates, roots, expected);
  const readers: Reader[] = [];
  const { signal } = options;
  await boundedParallel(
    located,
    options.jobs,
    async (candidate) => {
      options.paths.noteMade(THINGS_PER_LOOK);
      const reader = readers.pop() ?? {
        hasher: await options.makeHasher(),
        buffer: Buffer.allocUnsafeSlow(READ_BYTES),
      };
      if (await isRight(candidate, reader, options)) kept.addId(candidate.id);
      else if (!options.isServers) await rm(candidate.absolute, { force: true });
      readers.push(reader);
    },
    { signal },
  );
  return kept;
}

interface Root {
  readonly root: string;
  /** Of paths below it. */
  readonly prefix: string;
}

/** What one job reads with. */
interface Reader {
  readonly hasher: Hasher;
  readonly buffer: Buffer;
}

function* locatedFiles(
  candidates: PathSet,
  roots: readonly Root[],
  expected: ExpectedTree,
): Generator<Candidate, void, undefined> {
  for (const id of candidates.ids()) {
    const path = candidates.table.pathOf(id);
    const listed = expected.find(id);
    // The data directory's own prefix is empty: it comes first, and takes what no other has.
    const place = roots.findLast(({ prefix }) => path.startsWith(prefix));
    if (listed === undefined || place === undefined) continue;
    yield { id, absolute: join(place.root, path.slice(place.prefix.length)), listed };
  }
}

/** Of a server's own logs nothing is in a backup; they may tell why it is restored. */
const LOG_DIRECTORIES: ReadonlySet<string> = new Set(["log", "pg_log"]);
/** Directories of tablespaces, one for each release that uses the location. */
const RELEASE_DIRECTORY = /^pg_tblspc\/[^/]+\/PG_[^/]+$/;
const WAL_DIRECTORY = "pg_wal";

class Weeding {
  readonly #expected: ExpectedTree;
  readonly #candidates: PathSet;
  readonly #paths: PathTable;
  readonly #options: SurveyOptions;

  constructor(expected: ExpectedTree, candidates: PathSet, options: SurveyOptions) {
    this.#expected = expected;
    this.#candidates = candidates;
    this.#paths = options.paths;
    this.#options = options;
  }

  /**
   * Removes what is no candidate, and directories without any; whether it found one. Holds numbers
   * in place of names while it does.
   */
  async weed(directory: string, prefix: string): Promise<boolean> {
    const known = new PathList(this.#paths);
    const others = new PathTable();
    for await (const names of listNames(directory, this.#options)) {
      for (const name of names) {
        this.#paths.noteMade();
        const id = this.#paths.find(`${prefix}${name}`);
        if (id < 0) others.add(name);
        else known.pushId(id);
      }
    }
    let isAnyUsed = false;
    for (const id of known.sortedIds()) {
      const name = basename(this.#paths.pathOf(id));
      if (await this.#isUsed(name, { directory, prefix, id })) isAnyUsed = true;
    }
    for (let number = 0; number < others.count; number += 1) {
      const name = others.pathOf(number);
      if (await this.#isUsed(name, { directory, prefix, id: -1 })) isAnyUsed = true;
    }
    return isAnyUsed;
  }

  /** Removes it if not. */
  async #isUsed(name: string, { directory, prefix, id }: Listed): Promise<boolean> {
    this.#paths.noteMade(THINGS_PER_LOOK);
    const path = `${prefix}${name}`;
    if (path === RESTORE_MARKER_PATH || isTablespaceMarker(path)) return false;
    const absolute = join(directory, name);
    if (this.#isLeft(path) || (await this.#look({ path, absolute, id }))) return true;
    await onDisk("remove", absolute, rm(absolute, { recursive: true, force: true }));
    return false;
  }

  /** What of a server's tree is not looked into. */
  #isLeft(path: string): boolean {
    if (!this.#options.isServers) return false;
    const isOtherRelease = RELEASE_DIRECTORY.test(path) && !this.#expected.directories.has(path);
    return isOtherRelease || LOG_DIRECTORIES.has(path);
  }

  async #look({ path, absolute, id }: Found): Promise<boolean> {
    const { isServers } = this.#options;
    const entry = statsOf(absolute);
    const kind = id < 0 ? undefined : this.#expected.kindOf(id);
    if (entry.isFile()) {
      if (kind === undefined || isSpecialPath(path)) return false;
      if (kind === "patched") return isServers;
      this.#candidates.addId(id);
      return true;
    }
    if (kind !== undefined) return false;
    // A pg_wal on a disk of its own stays there, empty.
    const isWalLink = isServers && path === WAL_DIRECTORY && entry.isSymbolicLink();
    if (!entry.isDirectory() && !isWalLink) return false;
    const isAnyUsed = await this.weed(absolute, `${path}/`);
    return isAnyUsed || isWalLink || this.#expected.directories.has(path) || path === GLOBAL;
  }
}

/** Where a name was listed. */
interface Listed {
  readonly directory: string;
  /** Of paths in it. */
  readonly prefix: string;
  /** Number of its path; -1 for one that no backup has a file at. */
  readonly id: number;
}

interface Found extends Pick<Listed, "id"> {
  readonly path: string;
  readonly absolute: string;
}

/** In one call for each file: a promise for each would take longer than all that it is for. */
function statsOf(absolute: string): Stats {
  try {
    return lstatSync(absolute);
  } catch (error) {
    throw localFileError("look at", absolute, error);
  }
}

async function isRight(
  { absolute, listed }: Candidate,
  { hasher, buffer }: Reader,
  options: SurveyOptions,
): Promise<boolean> {
  const { size, mode } = statsOf(absolute);
  if (size !== listed.sizeBytes) return false;
  using file = openForReading(absolute);
  if (file === undefined) return false;
  for (let at = 0; at < size; at += buffer.length) {
    options.signal.throwIfAborted();
    const piece = buffer.subarray(0, Math.min(buffer.length, size - at));
    if ((await file.read(piece, at)) < piece.length) {
      hasher.digest();
      return false;
    }
    hasher.update(piece);
  }
  if (hasher.digest() !== listed.hash) return false;
  // It may have been killed between the last byte and the mode.
  const wanted = listed.mode & 0o777;
  if ((mode & MODE_MASK) !== wanted) {
    await onDisk("change the mode of", absolute, chmod(absolute, wanted));
  }
  options.onProgress(size);
  return true;
}

async function onDisk<T>(action: string, path: string, work: Promise<T>): Promise<T> {
  try {
    return await work;
  } catch (error) {
    throw localFileError(action, path, error);
  }
}
