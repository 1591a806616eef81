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

/** What our manifests tell of a restored tree; files by the numbers of their paths. */
export interface ExpectedTree {
  readonly hash: HashAlgorithm;
  /**
   * What is to be there: a file that one backup holds "whole"; or one that is put together from
   * increments, which has no hash of its own; undefined where there is to be no file.
   */
  kindOf(id: number): "whole" | "patched" | undefined;
  /** Of a whole one. */
  find(id: number): ExpectedFile | undefined;
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
  return {
    hash: header.hash,
    kindOf: (id) => {
      const holder = holderOf(manifests, id);
      if (holder !== undefined) return isWholeIn(holder, newest, id) ? "whole" : "patched";
      return newest.unchanged.hasId(id) ? "patched" : undefined;
    },
    find: (id) => {
      const holder = holderOf(manifests, id);
      if (holder === undefined || !isWholeIn(holder, newest, id)) return undefined;
      const file = holder.files.getId(id);
      return file && { ...file, mode: newest.unchanged.modeOfId(id) ?? file.mode };
    },
    directories,
  };
}

/** The newest backup that says more of the file than "as before", if that has it. */
function holderOf(manifests: readonly ManifestIndex[], id: number): ManifestIndex | undefined {
  const holder = manifests.find(({ unchanged }) => !unchanged.hasId(id));
  return holder?.files.hasId(id) === true ? holder : undefined;
}

function isWholeIn({ header, files }: ManifestIndex, newest: ManifestIndex, id: number): boolean {
  return !files.isIncrementId(id) && header.hash === newest.header.hash;
}
