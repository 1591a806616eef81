import { RefusedError } from "../errors.ts";
import { type BackupName, formatBackupName, parseBackupName } from "../layout/backup-name.ts";
import type { BackupDocuments } from "./backup-documents.ts";
import { PathSet } from "./path-set.ts";
import {
  type ChainMember,
  isAny,
  isSpecialPath,
  planRestore,
  type PlannedPart,
  type RestorePlan,
  type RestoreStep,
  SPECIAL_PATHS,
} from "./restore-plan.ts";

/** What is done with one backup of the chain. */
export interface MergeStep {
  readonly backup: BackupName;
  /** Whether the backup says that the checksum of each of its pages was verified. */
  readonly isPagesVerified: boolean;
  /** The parts with increments, of which the pages are collected. */
  readonly pages: RestoreStep;
  /** The parts with whole files, which begin where they are. */
  readonly files: RestoreStep;
}

export interface MergePlan {
  /** Of the backup that will exist. */
  readonly name: BackupName;
  readonly newest: BackupDocuments;
  /** From the newest backup to the full one. */
  readonly steps: readonly MergeStep[];
  /** pg_control and the labels. */
  readonly specialStep: RestoreStep;
  /** Content of all files; absent where a chain of WAL-G's does not tell. */
  readonly sizeBytes?: number | undefined;
  /** What is fetched, as stored; absent where a chain of WAL-G's does not tell. */
  readonly fetchedBytes?: number | undefined;
  /** Room that the changed pages need at most; absent as above. */
  readonly spoolBytes?: number | undefined;
  /** Files that are put together of several backups. */
  readonly patchedCount: number;
}

/**
 * Decides how a chain becomes a full backup. `chain` begins with the newest, each followed by its
 * base. Throws RefusedError where there is nothing to merge, and DamagedError for a chain that is
 * not whole.
 */
export function planMerge(chain: readonly ChainMember[]): MergePlan {
  const [newest] = chain;
  if (newest === undefined) throw new RangeError("a chain has at least one backup");
  const { documents } = newest;
  const name = requireMergeable(documents);
  const restore = planRestore(chain);
  const planned = restore.steps.toReversed();
  const steps = chain.flatMap((member, index) => {
    const step = planned[index];
    return step === undefined ? [] : [mergeStep(member, step)];
  });
  const specialStep = planned[0];
  if (specialStep === undefined) throw new RangeError("a plan has at least one step");
  const patched = new PathSet(specialStep.paths);
  for (const { pages } of steps) patched.addAll(pages.increments);
  const patchedCount = patched.size;
  return { name, newest: documents, steps, specialStep, patchedCount, ...sizesOf(restore, steps) };
}

function sizesOf(
  { steps: all, sizeBytes }: RestorePlan,
  steps: readonly MergeStep[],
): Pick<MergePlan, "sizeBytes" | "fetchedBytes" | "spoolBytes"> {
  if (all.some(({ manifest }) => manifest === undefined)) return {};
  const parts = steps.flatMap(({ pages, files }) => [...pages.parts, ...files.parts]);
  const fetchedBytes = parts.reduce((sum, { stored }) => sum + (stored?.sizeBytes ?? 0), 0);
  return { sizeBytes, fetchedBytes, spoolBytes: spoolBytesOf(steps) };
}

function requireMergeable({ name, sentinel }: BackupDocuments): BackupName {
  const { base, checkpointNumber } = sentinel;
  if (base === undefined) {
    throw new RefusedError(`backup ${name} is a full backup: there is nothing to merge`, {
      hint: "Name an increment; backup-list --detail shows which backup is based on which.",
    });
  }
  if (base.name === "" || parseBackupName(name).offset !== undefined) {
    throw new RefusedError(`backup ${name} is no increment on another backup`);
  }
  if (checkpointNumber !== undefined) {
    throw new RefusedError(`backup ${name} has increments of OrioleDB, which can't be merged`, {
      hint: "Take a full backup: backup-push --full.",
    });
  }
  return formatBackupName({ segment: parseBackupName(name).segment });
}

function mergeStep(member: ChainMember, step: RestoreStep): MergeStep {
  const { increments, paths } = step;
  const isIncrement = (path: string): boolean => increments.has(path);
  const isWhole = (path: string): boolean =>
    step.isWanted(path) && !isIncrement(path) && !isSpecialPath(path);
  const expected = new PathSet(paths);
  if (step.expected instanceof PathSet) {
    // What is expected is wanted.
    for (const id of step.expected.ids()) if (!increments.hasId(id)) expected.addId(id);
    for (const path of SPECIAL_PATHS) expected.delete(path);
  } else {
    for (const path of step.expected) if (isWhole(path)) expected.add(path);
  }
  return {
    backup: step.backup,
    isPagesVerified: member.documents.sentinel.own?.isPagesVerified === true,
    pages: {
      ...step,
      isWanted: isIncrement,
      expected: increments,
      parts: partsWith(member, step, increments),
    },
    files: {
      ...step,
      isWanted: isWhole,
      increments: new PathSet(paths),
      expected,
      // Only the parts themselves tell the directories and links of WAL-G's backups.
      parts:
        step.isNewest && step.manifest === undefined
          ? step.parts
          : partsWith(member, step, expected),
    },
  };
}

/** The parts that hold one of `paths`, as far as that is known. */
function partsWith(
  { documents }: ChainMember,
  { parts, manifest }: RestoreStep,
  paths: PathSet,
): readonly PlannedPart[] {
  if (paths.size === 0) return [];
  if (manifest === undefined) {
    const listed = documents.files?.parts;
    return parts.filter(({ name }) => {
      const held = listed?.get(name);
      return held === undefined || isAny(held, (path) => paths.has(path));
    });
  }
  const needed = new Set<string>();
  for (const id of paths.ids()) needed.add(manifest.files.partOfId(id));
  return parts.filter(({ name }) => needed.has(name));
}

/** The increments as they are stored: what newer backups have of them, too, is left out later. */
function spoolBytesOf(steps: readonly MergeStep[]): number {
  let spoolBytes = 0;
  for (const { pages } of steps) {
    for (const id of pages.increments.ids()) {
      spoolBytes += pages.manifest?.files.storedSizeOfId(id) ?? 0;
    }
  }
  return spoolBytes;
}
