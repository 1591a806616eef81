import type { HashAlgorithm } from "../io/hash.ts";
import type { BackupDocuments, ManifestIndex } from "./backup-documents.ts";
import type { Paths } from "./path-set.ts";

/** A file as it is to become, known before it is fetched. */
export interface ExpectedFile {
  readonly sizeBytes: number;
  /** Permission bits. */
  readonly mode: number;
  /** Of the whole content, in the tree's algorithm. */
  readonly hash: string;
}

/** What our manifests tell of a restored tree. */
export interface ExpectedTree {
  readonly hash: HashAlgorithm;
  /**
   * What is to be at the path: a file that one backup holds whole; or one that is put together from
   * increments, which has no hash of its own; undefined where there is to be no file.
   */
  find(path: string): ExpectedFile | "patched" | undefined;
  readonly directories: Pick<Paths, "has">;
}

/**
 * `chain` begins with the newest backup. Undefined where one of them has not our manifest: then
 * nothing can be recognised.
 */
export function expectedTree(chain: readonly BackupDocuments[]): ExpectedTree | undefined {
  const manifests = chain.flatMap(({ manifest }) => manifest ?? []);
  const [newest] = manifests;
  if (newest === undefined || manifests.length < chain.length) return undefined;
  const { header, directories } = newest;
  return { hash: header.hash, find: (path) => findExpected(manifests, path), directories };
}

/** From the newest backup to the first that holds more than "as before". */
function findExpected(
  manifests: readonly ManifestIndex[],
  path: string,
): ExpectedFile | "patched" | undefined {
  const [newest] = manifests;
  const mode = newest?.unchanged.get(path)?.mode;
  for (const { header, files, unchanged } of manifests) {
    if (unchanged.has(path)) continue;
    const file = files.get(path);
    if (file === undefined) return mode === undefined ? undefined : "patched";
    if (file.fullBytes !== undefined || header.hash !== newest?.header.hash) return "patched";
    return { sizeBytes: file.sizeBytes, hash: file.hash, mode: mode ?? file.mode };
  }
  return undefined;
}
