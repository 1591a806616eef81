import type { CatalogueBackup } from "../catalogue/catalogue.ts";
import { chainOf } from "../catalogue/chain.ts";
import { RefusedError, StorageError } from "../errors.ts";
import type { Log } from "../io/log.ts";
import { type BackupName, isBackupName, parseBackupName } from "../layout/backup-name.ts";
import { BACKUPS_FOLDER, parseSentinelKey, sentinelKey } from "../layout/keys.ts";
import { readSentinel } from "../backup/backup-documents.ts";
import type { ObjectKey, Storage } from "../storage/storage.ts";
import type { BackupFolder } from "../catalogue/backup-folders.ts";
import { checkPlan } from "./plan-check.ts";
import type { RetentionPlan } from "./plan.ts";
import { Deleter, type DeleterOptions, incompleteError } from "./deleter.ts";
import { type RemovalNote, writeRemovalNote } from "./removal-note.ts";

export interface RemovalOptions extends DeleterOptions {
  readonly log: Log;
  /** Makes the plan anew when some backups must stay after all, each with the reason. */
  readonly replan: (pins: ReadonlyMap<BackupName, string>) => RetentionPlan;
  readonly minimumFulls: number;
  /** Where this run writes down what it is about to remove. */
  readonly noteKey: ObjectKey;
  /** What earlier runs left undone. */
  readonly oldNotes: readonly RemovalNote[];
}

/**
 * Carries a plan out; see RETENTION.md for the order and what a kill at each point leaves. Gives
 * the number of removed objects. Rejects with RefusedError before anything was removed, and with
 * StorageError at the end if something could not be.
 */
export async function applyPlan(
  storage: Storage,
  firstPlan: RetentionPlan,
  options: RemovalOptions,
): Promise<number> {
  const { log, signal, minimumFulls } = options;
  checkPlan(firstPlan, minimumFulls);
  await requireUnchanged(storage, firstPlan, signal);

  const deleter = new Deleter(storage, options);
  const doomed = removedBackups(firstPlan);
  const folders = [...doomed.map(({ name }) => name), ...removedFolders(firstPlan)];
  const { noteKey: key } = options;
  const note = { key, backups: folders };
  const isNoted = folders.length === 0 || (await isNoteWritten(storage, note, options));
  const failed = await removeSentinels(deleter, firstPlan);
  // The sentinels have made room, if that was missing.
  if (!isNoted) await isNoteWritten(storage, note, options);
  const plan = failed.size === 0 ? firstPlan : options.replan(failed);
  if (plan !== firstPlan) checkPlan(plan, 0);
  await removeFolders(deleter, plan, failed);
  await deleter.remove(plan.removedKeys);
  await deleter.remove(walKeys(plan));
  await deleter.remove(plan.lastKeys);

  for (const { key: left, reason } of deleter.failures) {
    log.error("an object could not be removed", { key: left, reason });
  }
  if (deleter.failures.length > 0) {
    throw incompleteError(storage.name, deleter.failures, deleter.removedCount);
  }
  const { removedCount } = deleter;
  const notes = options.oldNotes.map((note) => note.key);
  await deleter.remove(folders.length > 0 ? [...notes, key] : notes);
  return removedCount;
}

/**
 * Gives whether the note is there. A store that is full must not keep us from emptying it: without
 * a note only what a kill leaves takes longer to be told from a backup on its way.
 */
async function isNoteWritten(
  storage: Storage,
  note: RemovalNote,
  { log, signal }: Pick<RemovalOptions, "log" | "signal">,
): Promise<boolean> {
  try {
    await writeRemovalNote(storage, note, { signal });
    return true;
  } catch (error) {
    if (!(error instanceof StorageError)) throw error;
    log.warning("the removal can't be noted in the store; it goes on", { reason: error.message });
    return false;
  }
}

/** Every object that the plan removes, in the order in which it does. */
export function* removedKeys(plan: RetentionPlan): Generator<ObjectKey> {
  for (const wave of sentinelWaves(plan)) {
    for (const { name } of wave) yield sentinelKey(name);
  }
  for (const folder of foldersOf(plan)) yield* folder.keys();
  yield* plan.removedKeys;
  yield* walKeys(plan);
  yield* plan.lastKeys;
}

function* walKeys({ survey, wal }: RetentionPlan): Generator<ObjectKey> {
  for (let row = 0; row < survey.catalogue.wal.count; row += 1) {
    if (!wal.isKept(row)) yield survey.catalogue.wal.keyAt(row);
  }
}

function removedBackups({ backups }: RetentionPlan): readonly CatalogueBackup[] {
  return backups.filter(({ isKept }) => !isKept).map(({ backup }) => backup);
}

function removedFolders({ unfinished }: RetentionPlan): readonly BackupName[] {
  return unfinished.filter(({ isKept }) => !isKept).map((judged) => judged.unfinished.name);
}

function foldersOf(plan: RetentionPlan): readonly BackupFolder[] {
  const left = plan.unfinished.filter(({ isKept }) => !isKept);
  return [
    ...removedBackups(plan).flatMap(({ folder }) => folder ?? []),
    ...left.map(({ unfinished }) => unfinished.folder),
  ];
}

/** The ends of the chains first: an increment is never listed without its base. */
function sentinelWaves(plan: RetentionPlan): readonly (readonly CatalogueBackup[])[] {
  const waves: CatalogueBackup[][] = [];
  for (const backup of removedBackups(plan)) {
    const depth = chainOf(plan.survey, backup).length;
    for (let level = waves.length; level < depth; level += 1) waves.push([]);
    waves[depth - 1]?.push(backup);
  }
  return waves.toReversed();
}

/** Gives the backups that are there still, with the reason, and with their bases. */
async function removeSentinels(
  deleter: Deleter,
  plan: RetentionPlan,
): Promise<ReadonlyMap<BackupName, string>> {
  const failed = new Map<BackupName, string>();
  for (const wave of sentinelWaves(plan)) {
    const removable = wave.filter(({ name }) => !failed.has(name));
    const left = await deleter.remove(removable.map(({ name }) => sentinelKey(name)));
    for (const backup of removable) {
      if (!left.has(sentinelKey(backup.name))) continue;
      for (const member of chainOf(plan.survey, backup)) {
        if (typeof member === "string") break;
        failed.set(
          member.name,
          "its sentinel, or that of an increment on it, could not be removed",
        );
      }
    }
  }
  return failed;
}

/** Parts before documents: what is half removed can be told from what is being taken. */
async function removeFolders(
  deleter: Deleter,
  plan: RetentionPlan,
  failed: ReadonlyMap<BackupName, string>,
): Promise<void> {
  const folders = foldersOf(plan).filter(({ name }) => !failed.has(name));
  const left = [...(await deleter.remove(keysIn(folders, isPart)))];
  const empty = folders.filter(({ name }) => !left.some((key) => key.includes(`/${name}/`)));
  await deleter.remove(keysIn(empty, (key) => !isPart(key)));
}

function isPart(key: ObjectKey): boolean {
  return key.includes("/tar_partitions/");
}

function* keysIn(
  folders: readonly BackupFolder[],
  isWanted: (key: ObjectKey) => boolean,
): Generator<ObjectKey> {
  for (const folder of folders) {
    for (const key of folder.keys()) if (isWanted(key)) yield key;
  }
}

/**
 * Between the listing and now somebody may have begun an increment on a backup that is to go, or
 * finished one that had no sentinel.
 */
async function requireUnchanged(
  storage: Storage,
  plan: RetentionPlan,
  signal: AbortSignal,
): Promise<void> {
  const doomed = new Set(removedBackups(plan).map(({ name }) => name));
  const left = new Set(removedFolders(plan));
  if (doomed.size === 0 && left.size === 0) return;
  const segments = new Set([...doomed].map((name) => parseBackupName(name).segment));
  const { byName, catalogue } = plan.survey;
  const seen = new Set(catalogue.unfinished.map(({ name }) => name));
  for await (const { key } of storage.list(BACKUPS_FOLDER, { signal })) {
    const sentinel = parseSentinelKey(key);
    const name = sentinel ?? key.slice(BACKUPS_FOLDER.length).split("/")[0] ?? "";
    if (!isBackupName(name) || byName.has(name)) continue;
    if (sentinel !== undefined && left.has(name)) throw changed(name, "was finished");
    const { baseSegment } = parseBackupName(name);
    if (baseSegment === undefined || !segments.has(baseSegment)) continue;
    if (sentinel === undefined && !seen.has(name)) throw changed(name, "was begun");
    if (sentinel === undefined) continue;
    const { base } = await readSentinel(storage, name, { signal });
    if (base !== undefined && doomed.has(base.name)) throw changed(name, "was finished");
  }
}

function changed(name: BackupName, what: string): RefusedError {
  return new RefusedError(`backup ${name} ${what} while the removal was planned`, {
    hint: "Nothing was removed. Run the command again.",
  });
}
