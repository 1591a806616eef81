import { ObjectNotFoundError, OperationError, RefusedError } from "../errors.ts";
import { readAll } from "../io/bytes.ts";
import { orderedJobs } from "../io/ordered.ts";
import { type BackupName, isBackupName } from "../layout/backup-name.ts";
import { formatJson } from "../layout/json.ts";
import { isJsonEqual, type JsonValue } from "../layout/json-value.ts";
import { BACKUPS_FOLDER, metadataKey, parseSentinelKey, sentinelKey } from "../layout/keys.ts";
import { type BackupMetadata, parseMetadata } from "../layout/metadata.ts";
import type { Sentinel } from "../layout/sentinel.ts";
import { type TimeNs, timeNsOf } from "../layout/time.ts";
import { readSoundly } from "../storage/copies.ts";
import type { ObjectInfo, Storage } from "../storage/storage.ts";
import { readSentinel, undamaged } from "./backup-documents.ts";

/** A backup as a list shows it. */
export interface CatalogueEntry {
  readonly name: BackupName;
  /** When it was finished, as it says itself; the object's time only where nothing is recorded. */
  readonly timeNs: TimeNs;
  readonly isTimeRecorded: boolean;
  /** The storages that hold it, where there are several. */
  readonly storageNames?: readonly string[] | undefined;
  /** Absent when the sentinel can't be read. */
  readonly sentinel?: Sentinel | undefined;
  /** Absent when it was not asked for, does not exist, or can't be read. */
  readonly metadata?: BackupMetadata | undefined;
  /** What could not be read, and why. */
  readonly problems: readonly string[];
  /** Of these the refusal to let us read. */
  readonly denied?: OperationError | undefined;
}

export interface CatalogueOptions {
  /** Whether to read each metadata.json, too. */
  readonly hasMetadata: boolean;
  readonly signal: AbortSignal;
}

/** Documents of backups that are read at the same time: small ones, so that latency counts. */
const READ_JOBS = 32;

/**
 * After so many objects of one backup's folder the list is asked for what is behind the folder: as
 * much as stores give in one answer.
 */
const MAX_FOLDER_RUN = 1000;

/** Metadata is a few hundred bytes and the user's own words. */
const MAX_METADATA_BYTES = 16 * 1024 * 1024;

/**
 * All backups, oldest first by recorded time; at the same time a full backup that was merged comes
 * after the increment, else by name. Copying objects changes no order.
 */
export async function listBackups(
  storage: Storage,
  options: CatalogueOptions,
): Promise<readonly CatalogueEntry[]> {
  const entries: CatalogueEntry[] = [];
  const { signal } = options;
  const read = ({ name, info }: SentinelInfo): Promise<CatalogueEntry> =>
    readCatalogueEntry(storage, name, { ...options, ...info });
  for await (const entry of orderedJobs(listSentinels(storage, signal), READ_JOBS, read, {
    signal,
  })) {
    entries.push(entry);
  }
  requireAccess(entries);
  return entries.toSorted(compareEntries);
}

/** One backup that we may not read hides no others; where it is all of them, so it is the store. */
export function requireAccess(entries: readonly Pick<CatalogueEntry, "denied">[]): void {
  const [first] = entries;
  if (first?.denied === undefined || entries.some(({ denied }) => denied === undefined)) return;
  throw first.denied;
}

function compareEntries(one: CatalogueEntry, other: CatalogueEntry): number {
  if (one.timeNs !== other.timeNs) return one.timeNs < other.timeNs ? -1 : 1;
  if (one.sentinel?.own?.mergedFrom === other.name) return 1;
  if (other.sentinel?.own?.mergedFrom === one.name) return -1;
  return one.name < other.name ? -1 : 1;
}

interface SentinelInfo {
  readonly name: BackupName;
  readonly info: ObjectInfo;
}

async function* listSentinels(storage: Storage, signal: AbortSignal): AsyncGenerator<SentinelInfo> {
  let startAfter: string | undefined;
  do {
    const options = { signal, ...(startAfter === undefined ? {} : { startAfter }) };
    startAfter = undefined;
    let folder = "";
    let runLength = 0;
    for await (const info of storage.list(BACKUPS_FOLDER, options)) {
      const name = parseSentinelKey(info.key);
      // Whatever else ends like a sentinel is somebody's own: LATEST must not be it.
      if (name !== undefined && isBackupName(name)) yield { name, info };
      const rest = info.key.slice(BACKUPS_FOLDER.length);
      const slash = rest.indexOf("/");
      const current = slash === -1 ? "" : rest.slice(0, slash);
      runLength = current !== "" && current === folder ? runLength + 1 : 0;
      folder = current;
      if (runLength < MAX_FOLDER_RUN) continue;
      // "0" is what follows "/" in the order of bytes: the folder is left out, nothing else.
      startAfter = `${BACKUPS_FOLDER}${folder}0`;
      break;
    }
  } while (startAfter !== undefined);
}

/** Reads one backup's documents; `modifiedAt` counts only where they record no time. */
export async function readCatalogueEntry(
  storage: Storage,
  name: BackupName,
  {
    hasMetadata,
    modifiedAt,
    stores,
    signal,
  }: CatalogueOptions & Pick<ObjectInfo, "modifiedAt" | "stores">,
): Promise<CatalogueEntry> {
  const faults: OperationError[] = [];
  const readOwnMetadata = (into: OperationError[]) =>
    readable(into, () => readSoundly(storage, (one) => readMetadata(one, name, signal)));
  const [sentinel, wanted] = await Promise.all([
    readable(faults, () => readSoundly(storage, (one) => readSentinel(one, name, { signal }))),
    hasMetadata ? readOwnMetadata(faults) : undefined,
  ]);
  // It may record the time that the sentinel can't tell: a copy of it is not the newest backup.
  const isTimeSought = sentinel === undefined && !hasMetadata;
  const metadata = isTimeSought ? await readOwnMetadata([]) : wanted;
  const recordedNs = recordedTime(sentinel, metadata);
  return {
    name,
    timeNs: recordedNs ?? timeNsOf(modifiedAt.getTime()),
    isTimeRecorded: recordedNs !== undefined,
    ...(stores === undefined ? {} : { storageNames: stores }),
    sentinel,
    metadata,
    problems: faults.map(({ message }) => message),
    denied: faults.find(({ code }) => code === "access"),
  };
}

/** Backups before 0001-01-02 are those whose time nobody recorded: Go's zero time. */
const NOTHING_RECORDED_NS = -62_135_510_400n * 1_000_000_000n;

function recordedTime(
  sentinel: Sentinel | undefined,
  metadata: BackupMetadata | undefined,
): TimeNs | undefined {
  return [
    sentinel?.finishTimeNs,
    metadata?.finishTimeNs,
    sentinel?.startTimeNs,
    metadata?.startTimeNs,
  ].find((timeNs) => timeNs !== undefined && timeNs > NOTHING_RECORDED_NS);
}

/** Reads metadata.json of a backup. Throws ObjectNotFoundError and DamagedError. */
export async function readMetadata(
  storage: Storage,
  name: BackupName,
  signal: AbortSignal,
): Promise<BackupMetadata> {
  return await undamaged(name, metadataKey(name), async () => {
    const bytes = await readAll(storage.get(metadataKey(name), { signal }), MAX_METADATA_BYTES);
    return parseMetadata(name, bytes.toString());
  });
}

/** What is wrong with one document must not hide the other backups; a dead store must. */
async function readable<T>(
  faults: OperationError[],
  read: () => Promise<T>,
): Promise<T | undefined> {
  try {
    return await read();
  } catch (error) {
    if (!(error instanceof OperationError && DOCUMENT_FAULTS.has(error.code))) throw error;
    faults.push(error);
    return undefined;
  }
}

const DOCUMENT_FAULTS: ReadonlySet<string> = new Set([
  "format",
  "truncated",
  "damaged",
  "not-found",
  // It was listed, so it may be this one alone: a file's owner and mode, a store's rule for it.
  "access",
]);

/** Which backup is meant. */
export type BackupChoice =
  | { readonly kind: "name"; readonly name: string }
  | { readonly kind: "latest" }
  /** The only one whose user data is this. */
  | { readonly kind: "user-data"; readonly value: JsonValue };

/** The name that means the newest backup. */
export const LATEST = "LATEST";

/** What a user's word for a backup means: LATEST, or its name. */
export function backupChoice(word: string): Extract<BackupChoice, { kind: "name" | "latest" }> {
  return word === LATEST ? { kind: "latest" } : { kind: "name", name: word };
}

/** Finds the backup that is meant. Throws RefusedError, with what there is, if there is no such. */
export async function findBackup(
  storage: Storage,
  choice: BackupChoice,
  { signal }: { readonly signal: AbortSignal },
): Promise<BackupName> {
  if (choice.kind === "name" && (await isThere(storage, choice.name, signal))) return choice.name;
  const entries = await listBackups(storage, { hasMetadata: false, signal });
  const newest = entries.at(-1);
  if (newest === undefined) {
    throw new RefusedError(`there is no backup in ${storage.name}`, {
      hint: "Make one with backup-push, or check the storage prefix.",
    });
  }
  if (choice.kind === "latest") return newest.name;
  if (choice.kind === "name") {
    throw new RefusedError(`backup ${choice.name} does not exist in ${storage.name}`, {
      hint: namesHint(namesOf(entries)),
    });
  }
  const [match, ...others] = entries.filter(({ sentinel }) => {
    const userData = sentinel?.userData;
    return userData !== undefined && isJsonEqual(userData, choice.value);
  });
  if (match !== undefined && others.length === 0) return match.name;
  const shown = formatJson(choice.value).slice(0, 200);
  throw match === undefined
    ? new RefusedError(`no backup in ${storage.name} has the user data ${shown}`, {
        hint: namesHint(namesOf(entries)),
      })
    : new RefusedError(`${others.length + 1} backups have the user data ${shown}`, {
        hint: `Choose one by its name. ${namesHint(namesOf([match, ...others]))}`,
      });
}

async function isThere(storage: Storage, name: string, signal: AbortSignal): Promise<boolean> {
  if (!isBackupName(name)) return false;
  try {
    await storage.stat(sentinelKey(name), { signal });
    return true;
  } catch (error) {
    if (error instanceof ObjectNotFoundError) return false;
    throw error;
  }
}

function namesOf(entries: readonly CatalogueEntry[]): readonly BackupName[] {
  return entries.map(({ name }) => name);
}

const MAX_NAMES = 20;

/** Names as a hint, the newest if there are many; they ascend. */
export function namesHint(all: readonly BackupName[]): string {
  const names = all.slice(-MAX_NAMES);
  const more = all.length > names.length ? `, the newest ${names.length}` : "";
  return `There are${more}: ${names.join(", ")}.`;
}
