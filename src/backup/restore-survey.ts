import { createReadStream, lstatSync, type Stats } from "node:fs";
import { chmod, lstat, readdir, rm } from "node:fs/promises";
import { dirname, join } from "node:path";
import { CHUNK_BYTES } from "../io/bytes.ts";
import type { Hasher } from "../io/hash.ts";
import { boundedParallel } from "../io/ordered.ts";
import { localFileError } from "../io/system-error.ts";
import { isTablespaceMarker } from "./extract-path.ts";
import type { ExpectedFile, ExpectedTree } from "./expected-tree.ts";
import { PackedNames } from "./packed-names.ts";
import { type Paths, PathSet } from "./path-set.ts";
import type { PathTable } from "./path-table.ts";
import { isSpecialPath } from "./restore-plan.ts";
import { RESTORE_MARKER_PATH } from "./restore-marker.ts";
import type { TablespacePlan } from "./tablespace-plan.ts";

/** What a look at a file leaves to the collector; see noteMade. */
const THINGS_PER_LOOK = 8;

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

/** A file that may be right: it is listed and has the size. */
interface Candidate {
  readonly path: string;
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
    await new Weeding(expected, candidates, options.isServers).weed(root, prefix);
  }
  const kept = new PathSet(options.paths);
  const located = locatedFiles(candidates, roots, expected);
  const hashers: Hasher[] = [];
  const { signal } = options;
  await boundedParallel(
    located,
    options.jobs,
    async (candidate) => {
      const hasher = hashers.pop() ?? (await options.makeHasher());
      if (await isRight(candidate, hasher, options)) kept.add(candidate.path);
      else if (!options.isServers) await rm(candidate.absolute, { force: true });
      hashers.push(hasher);
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

function* locatedFiles(
  paths: Iterable<string>,
  roots: readonly Root[],
  expected: ExpectedTree,
): Generator<Candidate, void, undefined> {
  for (const path of paths) {
    const listed = expected.find(path);
    // The data directory's own prefix is empty: it comes first, and takes what no other has.
    const place = roots.findLast(({ prefix }) => path.startsWith(prefix));
    if (listed === undefined || listed === "patched" || place === undefined) continue;
    yield { path, absolute: join(place.root, path.slice(place.prefix.length)), listed };
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
  readonly #isServers: boolean;

  constructor(expected: ExpectedTree, candidates: PathSet, isServers: boolean) {
    this.#expected = expected;
    this.#candidates = candidates;
    this.#isServers = isServers;
  }

  /** Removes what is no candidate, and directories without any; whether it found one. */
  async weed(directory: string, prefix: string): Promise<boolean> {
    // Names only: a million entries with their kinds would take 150 MiB.
    const names = new PackedNames(await onDisk("list", directory, readdir(directory)));
    let isAnyUsed = false;
    for (let name = names.next(); name !== undefined; name = names.next()) {
      this.#candidates.table.noteMade(THINGS_PER_LOOK);
      const path = `${prefix}${name}`;
      if (path === RESTORE_MARKER_PATH || isTablespaceMarker(path)) continue;
      const absolute = join(directory, name);
      const isUsed = this.#isLeft(path) || (await this.#look(kindOf(absolute), path, absolute));
      isAnyUsed ||= isUsed;
      if (!isUsed) await onDisk("remove", absolute, rm(absolute, { recursive: true, force: true }));
    }
    return isAnyUsed;
  }

  /** What of a server's tree is not looked into. */
  #isLeft(path: string): boolean {
    if (!this.#isServers) return false;
    const isOtherRelease = RELEASE_DIRECTORY.test(path) && !this.#expected.directories.has(path);
    return isOtherRelease || LOG_DIRECTORIES.has(path);
  }

  async #look(entry: Stats, path: string, absolute: string): Promise<boolean> {
    const { directories } = this.#expected;
    const listed = this.#expected.find(path);
    if (entry.isFile()) {
      if (listed === undefined || isSpecialPath(path)) return false;
      if (listed === "patched") return this.#isServers;
      this.#candidates.add(path);
      return true;
    }
    if (listed !== undefined) return false;
    // A pg_wal on a disk of its own stays there, empty.
    const isWalLink = this.#isServers && path === WAL_DIRECTORY && entry.isSymbolicLink();
    if (!entry.isDirectory() && !isWalLink) return false;
    const isAnyUsed = await this.weed(absolute, `${path}/`);
    return isAnyUsed || isWalLink || directories.has(path) || path === GLOBAL;
  }
}

/** In one call for each file: a promise for each would take longer than all that it is for. */
function kindOf(absolute: string): Stats {
  try {
    return lstatSync(absolute);
  } catch (error) {
    throw localFileError("look at", absolute, error);
  }
}

async function isRight(
  { absolute, listed }: Candidate,
  hasher: Hasher,
  options: SurveyOptions,
): Promise<boolean> {
  const { signal } = options;
  const { size } = await onDisk("look at", absolute, lstat(absolute));
  if (size !== listed.sizeBytes) return false;
  try {
    for await (const chunk of createReadStream(absolute, { highWaterMark: CHUNK_BYTES, signal })) {
      if (!(chunk instanceof Uint8Array)) throw new TypeError("a file gave no bytes");
      hasher.update(chunk);
    }
  } catch (error) {
    signal.throwIfAborted();
    throw localFileError("read", absolute, error);
  }
  if (hasher.digest() !== listed.hash) return false;
  // It may have been killed between the last byte and the mode.
  await onDisk("change the mode of", absolute, chmod(absolute, listed.mode & 0o777));
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
