import { DamagedError } from "../errors.ts";
import { type BackupName, parseBackupName, isBackupName } from "../layout/backup-name.ts";
import { parsePartKey, type PartKey, tarFolder } from "../layout/keys.ts";
import type { ManifestPart } from "../layout/manifest.ts";
import type { ObjectKey } from "../storage/storage.ts";
import {
  type BackupDocuments,
  type FilesIndex,
  type FileState,
  type ManifestIndex,
} from "./backup-documents.ts";
import { type Paths, PathSet } from "./path-set.ts";
import { PathTable } from "./path-table.ts";
import { requireLink } from "./restore-chain-link.ts";
import { expectedTree, type ExpectedTree } from "./expected-tree.ts";
import { CONTROL_PATH } from "./restore-marker.ts";

export const LABEL_PATH = "backup_label";
export const TABLESPACE_MAP_PATH = "tablespace_map";
/** Files that are held back until all others are there; kept apart from the parts by backups. */
export const SPECIAL_PATHS: ReadonlySet<string> = new Set([
  CONTROL_PATH,
  LABEL_PATH,
  TABLESPACE_MAP_PATH,
]);

/** Whether the file is one of the three that decide what a server does first. */
export function isSpecialPath(path: string): boolean {
  return SPECIAL_PATHS.has(path);
}

/** One tar to fetch. */
export interface PlannedPart {
  readonly key: ObjectKey;
  /** Last component of the key. */
  readonly name: string;
  readonly kind: PartKey["kind"];
  readonly extension: string;
  /** What our manifest says about it. */
  readonly stored?: ManifestPart | undefined;
}

/** What is done with one backup of the chain. */
export interface RestoreStep {
  readonly backup: BackupName;
  /** The backup that was asked for; the others are its bases. */
  readonly isNewest: boolean;
  /** pg_control and labels: fetched before anything is written, of the newest backup only. */
  readonly specialParts: readonly PlannedPart[];
  readonly parts: readonly PlannedPart[];
  /**
   * Whether a file of this backup is wanted, by path. Directories and links: of the newest only.
   */
  isWanted(path: string): boolean;
  /** Wanted files that are increments here. */
  readonly increments: PathSet;
  /** Wanted files, as far as they are known, that this backup must give. */
  readonly expected: Paths;
  /** What paths of the chain are numbered by. */
  readonly paths: PathTable;
  /** WAL-G's remote backups do not end their archives. */
  readonly isTrailerOptional: boolean;
  readonly manifest?: ManifestIndex | undefined;
}

export interface RestorePlan {
  readonly backup: BackupName;
  /** The full backup first. */
  readonly steps: readonly RestoreStep[];
  /** Whether a server is to start from it: false when a mask leaves pg_control out. */
  readonly isStartable: boolean;
  /** backup_label has to be there: for all but WAL-E's backups. */
  readonly isLabelRequired: boolean;
  /** Content of all wanted files; absent when it is not known. */
  readonly sizeBytes?: number | undefined;
  /** What can be recognised when it is there already; absent when there is not our manifest. */
  readonly expected?: ExpectedTree | undefined;
}

/** One backup of the chain with the keys below its folder of parts. */
export interface ChainMember {
  readonly documents: BackupDocuments;
  readonly partKeys: readonly ObjectKey[];
  /** What the documents of the whole chain were read with. */
  readonly paths?: PathTable | undefined;
}

export interface PlanOptions {
  /** `--mask`; absent = everything. */
  readonly mask?: ((path: string) => boolean) | undefined;
}

/**
 * Decides what to take from which backup. `chain` begins with the newest, each followed by its
 * direct base. Throws DamagedError when what the documents promise can't be there.
 */
export function planRestore(chain: readonly ChainMember[], options: PlanOptions = {}): RestorePlan {
  const [newest] = chain;
  if (newest === undefined) throw new RangeError("a chain has at least one backup");
  const paths = newest.paths ?? newest.documents.manifest?.files.table ?? new PathTable();
  const mask = selection(options.mask, paths);
  const steps: RestoreStep[] = [];
  let needed: PathSet | undefined;
  for (const [index, member] of chain.entries()) {
    const above = chain[index - 1];
    if (above !== undefined && needed !== undefined) {
      requireLink(above.documents, member.documents, needed);
    }
    const isNewest = member === newest;
    const step = planStep(member, needed ?? mask, { isNewest, paths });
    steps.unshift(step);
    needed = neededFromBase(member.documents, needed ?? mask, paths);
  }
  const name = newest.documents.name;
  const isStartable = mask.has(CONTROL_PATH);
  return {
    backup: name,
    steps,
    isStartable,
    isLabelRequired: isStartable && mask.has(LABEL_PATH) && !isWaleBackup(name),
    sizeBytes: sizeOf(chain, mask),
    expected: expectedTree(chain.map(({ documents }) => documents)),
  };
}

/** WAL-E's backups have pg_control and the label in their ordinary parts. */
function isWaleBackup(name: BackupName): boolean {
  return isBackupName(name) && parseBackupName(name).offset !== undefined;
}

/** Files of a chain, by path and by the number of the path in the chain's table. */
interface Selection {
  has(path: string): boolean;
  hasId(id: number): boolean;
}

function selection(mask: PlanOptions["mask"], paths: PathTable): Selection {
  if (mask === undefined) return { has: () => true, hasId: () => true };
  return { has: mask, hasId: (id) => mask(paths.pathOf(id)) };
}

function planStep(
  member: ChainMember,
  wanted: Selection,
  { isNewest, paths }: Pick<RestoreStep, "isNewest" | "paths">,
): RestoreStep {
  const { documents } = member;
  const { name, sentinel, manifest, files } = documents;
  const states = files?.states;
  const isWanted = (path: string): boolean =>
    wanted.has(path) && (states === undefined || isNewest || states.has(path));
  const all = manifest === undefined ? findParts(member) : listParts(member, manifest);
  const needed = neededParts(manifest, wanted);
  const parts = all.filter(
    (part) => isUseful(part, manifest, files, isWanted) && needed?.has(part.name) !== false,
  );
  const control = all.some(({ kind }) => kind === "control");
  if (isNewest && isWanted(CONTROL_PATH) && !control && !isWaleBackup(name)) {
    throw missing(name, "pg_control.tar");
  }
  return {
    backup: name,
    isNewest,
    specialParts: isNewest ? parts.filter(isSpecialPart) : [],
    parts: parts.filter((part) => !isSpecialPart(part)),
    isWanted,
    increments: pathsIn(documents, wanted, { paths, states: ["incremented"] }),
    expected: expectedPaths(documents, wanted, paths),
    paths,
    isTrailerOptional: manifest === undefined && (sentinel.dataCatalogBytes ?? 0) === 0,
    manifest,
  };
}

/** Whether the part holds nothing but pg_control or the labels. */
export function isSpecialPart({ kind }: PlannedPart): boolean {
  return kind === "control" || kind === "label";
}

/** Wanted files of the backup that are in one of `states`. */
function pathsIn(
  { manifest, files }: BackupDocuments,
  wanted: Selection,
  { paths, states }: { readonly paths: PathTable; readonly states: readonly FileState[] },
): PathSet {
  const found = new PathSet(paths);
  if (manifest === undefined) {
    for (const [path, state] of files?.states ?? []) {
      if (states.includes(state) && wanted.has(path)) found.add(path);
    }
    return found;
  }
  const [isHere, isIncremented] = [states.includes("here"), states.includes("incremented")];
  const isSkipped = states.includes("skipped");
  const { files: here, unchanged } = manifest;
  for (let id = 0; id < paths.count; id += 1) {
    const isIn = here.hasId(id)
      ? here.isIncrementId(id)
        ? isIncremented
        : isHere
      : isSkipped && unchanged.hasId(id);
    if (isIn && wanted.hasId(id)) found.addId(id);
  }
  return found;
}

function expectedPaths(documents: BackupDocuments, wanted: Selection, paths: PathTable): Paths {
  const { manifest, files } = documents;
  if (manifest === undefined && files === undefined) {
    return wanted instanceof PathSet ? wanted : new Set();
  }
  return pathsIn(documents, wanted, { paths, states: ["here", "incremented"] });
}

/** What the next older backup has to give. */
function neededFromBase(
  documents: BackupDocuments,
  wanted: Selection,
  paths: PathTable,
): PathSet | undefined {
  const { sentinel, files, manifest, name } = documents;
  const base = sentinel.base;
  if (base === undefined || base.name === "") return undefined;
  if (files === undefined && manifest === undefined) {
    throw new DamagedError(
      `increment ${name} has no files_metadata.json: what it needs of ${base.name} is unknown`,
      { hint: `Restore its base: backup-fetch <destination> ${base.fullName ?? base.name}.` },
    );
  }
  return pathsIn(documents, wanted, { paths, states: ["incremented", "skipped"] });
}

function listParts({ documents }: ChainMember, manifest: ManifestIndex): PlannedPart[] {
  const { name: backup } = documents;
  return [...manifest.parts.values()].map((stored) => {
    const key = `${tarFolder(backup)}${stored.name}`;
    const part = parsePartKey(key);
    if (part === undefined) {
      throw new DamagedError(`manifest of backup ${backup} names the part ${stored.name}`);
    }
    return { key, name: part.name, kind: part.kind, extension: part.extension, stored };
  });
}

function findParts({ documents, partKeys }: ChainMember): PlannedPart[] {
  const { name: backup, files } = documents;
  const parts = partKeys.flatMap((key) => {
    const part = parsePartKey(key);
    if (part === undefined) return [];
    return [{ key, name: part.name, kind: part.kind, extension: part.extension }];
  });
  const present = new Set(parts.map(({ name }) => name));
  for (const part of files?.parts.keys() ?? []) {
    if (!present.has(part)) throw missing(backup, part);
  }
  if (parts.length === 0) throw missing(backup, "every part");
  return parts;
}

function missing(backup: BackupName, part: string): DamagedError {
  return new DamagedError(`${part} of backup ${backup} is missing in the repository`, {
    hint: "Restore another backup, or bring the object back from a copy of the repository.",
  });
}

/** False for a part that is known to hold no wanted file. */
function isUseful(
  part: PlannedPart,
  manifest: ManifestIndex | undefined,
  files: FilesIndex | undefined,
  isWanted: (path: string) => boolean,
): boolean {
  if (part.kind === "control") return isWanted(CONTROL_PATH);
  if (manifest !== undefined) return true;
  const paths = files?.parts.get(part.name);
  return paths === undefined || isAny(paths, isWanted);
}

/** Whether `is` says yes to one of `paths`. */
export function isAny(paths: Iterable<string>, is: (path: string) => boolean): boolean {
  for (const path of paths) if (is(path)) return true;
  return false;
}

/** Names of the parts that hold a wanted file; undefined where our manifest does not tell. */
function neededParts(
  manifest: ManifestIndex | undefined,
  wanted: Selection,
): ReadonlySet<string> | undefined {
  // Directories and links are entries, too, but the manifest lists them.
  if (manifest === undefined) return undefined;
  const names = new Set<string>();
  const { files } = manifest;
  for (let id = 0; id < files.table.count; id += 1) {
    if (files.hasId(id) && wanted.hasId(id)) names.add(files.partOfId(id));
  }
  return names;
}

function sizeOf(chain: readonly ChainMember[], wanted: Selection): number | undefined {
  const newest = chain[0]?.documents;
  if (newest?.manifest !== undefined) {
    let sizeBytes = 0;
    const { files: here, unchanged } = newest.manifest;
    for (let id = 0; id < here.table.count; id += 1) {
      const files = here.hasId(id) ? here : unchanged;
      if (files.hasId(id) && wanted.hasId(id)) sizeBytes += files.sizeOfId(id);
    }
    return sizeBytes;
  }
  const { sentinel } = newest ?? {};
  if (sentinel?.base === undefined) return sentinel?.uncompressedBytes;
  return sentinel.dataCatalogBytes ?? chain.at(-1)?.documents.sentinel.uncompressedBytes;
}
