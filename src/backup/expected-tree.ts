import type { HashAlgorithm } from "../io/hash.ts";
import type { BackupDocuments } from "./backup-documents.ts";

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
   * By path: the files that one backup holds whole. Those that are put together from increments
   * have no hash of their own.
   */
  readonly files: ReadonlyMap<string, ExpectedFile>;
  /** Paths of those that are put together. */
  readonly patched: ReadonlySet<string>;
  /** Permission bits by path. */
  readonly directories: ReadonlyMap<string, number>;
}

/**
 * `chain` begins with the newest backup. Undefined where one of them has not our manifest: then
 * nothing can be recognised.
 */
export function expectedTree(chain: readonly BackupDocuments[]): ExpectedTree | undefined {
  const manifests = chain.flatMap(({ manifest }) => manifest ?? []);
  const [newest, ...bases] = manifests;
  if (newest === undefined || manifests.length < chain.length) return undefined;
  const { hash } = newest.header;
  const files = new Map<string, ExpectedFile>();
  const patched = new Set<string>();
  for (const [path, file] of newest.files) {
    if (file.fullBytes === undefined) files.set(path, file);
    else patched.add(path);
  }
  let open = new Map([...newest.unchanged].map(([path, { mode }]) => [path, mode]));
  for (const { header, files: older, unchanged } of bases) {
    const still = new Map<string, number>();
    for (const [path, mode] of open) {
      const file = older.get(path);
      if (unchanged.has(path)) still.set(path, mode);
      else if (file !== undefined && file.fullBytes === undefined && header.hash === hash) {
        files.set(path, { sizeBytes: file.sizeBytes, hash: file.hash, mode });
      } else patched.add(path);
    }
    open = still;
  }
  return { hash, files, patched, directories: newest.directories };
}
