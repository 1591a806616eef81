import { DamagedError } from "../errors.ts";
import type { ManifestHash } from "../layout/manifest.ts";
import type { BackupDocuments } from "./backup-documents.ts";
import type { PathSet } from "./path-set.ts";

/** What a backup says of the whole content of a file; absent members are not known. */
interface Content {
  readonly sizeBytes: number;
  readonly hash?: string | undefined;
}

/**
 * Makes sure that two neighbours of a chain fit: the base began where the increment says, and has
 * every file of `needed`, with the size and hash that the increment takes it for. Throws
 * DamagedError. Chains of WAL-G's tell less, and less of them is checked.
 */
export function requireLink(
  increment: BackupDocuments,
  base: BackupDocuments,
  needed: PathSet,
): void {
  const startLsn = increment.sentinel.base?.startLsn;
  const actual = base.sentinel.startLsn;
  if (startLsn !== undefined && actual !== undefined && startLsn !== actual) {
    throw broken(increment, base, `began at ${actual}, not at ${startLsn} as the increment says`);
  }
  if (base.manifest === undefined && base.files === undefined) return;
  for (let id = 0; id < needed.table.count; id += 1) {
    if (!needed.hasId(id) || isKnownSame(increment, base, id)) continue;
    const path = needed.table.pathOf(id);
    const wanted = unchangedContent(increment, path);
    const found = contentOf(base, path);
    if (found === undefined) {
      throw broken(increment, base, `lacks ${path}, of which the increment has only changes`);
    }
    if (found === "unknown" || wanted === undefined) continue;
    if (found.sizeBytes !== wanted.sizeBytes || !isSameHash(found, wanted, [increment, base])) {
      throw broken(increment, base, `has another content of ${path} than the increment needs`);
    }
  }
}

/** What most files are, without a look at their names. */
function isKnownSame(increment: BackupDocuments, base: BackupDocuments, id: number): boolean {
  const unchanged = increment.manifest?.unchanged;
  if (unchanged === undefined || base.manifest === undefined) return false;
  if (hashOf(increment) !== hashOf(base)) return false;
  return base.manifest.files.isSameContent(id, unchanged);
}

function unchangedContent({ manifest }: BackupDocuments, path: string): Content | undefined {
  return manifest?.unchanged.get(path);
}

/** Undefined where the backup does not have the file; of WAL-G's nothing more is known. */
function contentOf(
  { manifest, files }: BackupDocuments,
  path: string,
): Content | "unknown" | undefined {
  if (manifest === undefined) return files?.states.has(path) === true ? "unknown" : undefined;
  const file = manifest.files.get(path);
  if (file === undefined) return manifest.unchanged.get(path);
  if (file.fullBytes !== undefined) return { sizeBytes: file.fullBytes };
  return { sizeBytes: file.sizeBytes, hash: file.hash };
}

function isSameHash(one: Content, other: Content, owners: readonly BackupDocuments[]): boolean {
  const [first, second] = owners.map(hashOf);
  if (first !== second || one.hash === undefined || other.hash === undefined) return true;
  return one.hash === other.hash;
}

function hashOf({ manifest }: BackupDocuments): ManifestHash | undefined {
  return manifest?.header.hash;
}

function broken(increment: BackupDocuments, base: BackupDocuments, what: string): DamagedError {
  return new DamagedError(`base ${base.name} of increment ${increment.name} ${what}`, {
    hint: "The chain is broken: restore a backup from before this one.",
  });
}
