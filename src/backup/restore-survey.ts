import { createReadStream } from "node:fs";
import { chmod, lstat, readdir, rm } from "node:fs/promises";
import { dirname, join } from "node:path";
import { CHUNK_BYTES } from "../io/bytes.ts";
import type { Hasher } from "../io/hash.ts";
import { boundedParallel } from "../io/ordered.ts";
import { localFileError } from "../io/system-error.ts";
import { isTablespaceMarker } from "./extract-path.ts";
import type { ExpectedFile, ExpectedTree } from "./expected-tree.ts";
import { isSpecialPath } from "./restore-plan.ts";
import { RESTORE_MARKER_PATH } from "./restore-marker.ts";
import type { TablespacePlan } from "./tablespace-plan.ts";

const GLOBAL = dirname(RESTORE_MARKER_PATH);

export interface SurveyOptions {
  readonly signal: AbortSignal;
  readonly jobs: number;
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
): Promise<ReadonlySet<string>> {
  const candidates: Candidate[] = [];
  const roots = [
    { root: destination, prefix: "" },
    ...tablespaces.map(({ oid, location }) => ({ root: location, prefix: `pg_tblspc/${oid}/` })),
  ];
  for (const { root, prefix } of roots) {
    await weed(root, prefix, expected, candidates);
  }
  const kept = new Set<string>();
  const hashers: Hasher[] = [];
  const { signal } = options;
  await boundedParallel(
    candidates,
    options.jobs,
    async (candidate) => {
      const hasher = hashers.pop() ?? (await options.makeHasher());
      if (await isRight(candidate, hasher, options)) kept.add(candidate.path);
      else await rm(candidate.absolute, { force: true });
      hashers.push(hasher);
    },
    { signal },
  );
  return kept;
}

/** Gives how many candidates it found; removes what is none, and directories without any. */
async function weed(
  directory: string,
  prefix: string,
  expected: ExpectedTree,
  candidates: Candidate[],
): Promise<number> {
  const before = candidates.length;
  const entries = await onDisk("list", directory, readdir(directory, { withFileTypes: true }));
  for (const entry of entries) {
    const path = `${prefix}${entry.name}`;
    const absolute = join(directory, entry.name);
    const listed = expected.files.get(path);
    if (path === RESTORE_MARKER_PATH || isTablespaceMarker(path)) continue;
    let isUsed = false;
    if (entry.isDirectory() && listed === undefined) {
      const count = await weed(absolute, `${path}/`, expected, candidates);
      isUsed = count > 0 || expected.directories.has(path) || path === GLOBAL;
    } else if (entry.isFile() && listed !== undefined && !isSpecialPath(path)) {
      candidates.push({ path, absolute, listed });
      isUsed = true;
    }
    if (!isUsed) await onDisk("remove", absolute, rm(absolute, { recursive: true, force: true }));
  }
  return candidates.length - before;
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
