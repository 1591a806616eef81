import { listOpenGaps } from "../archive/stored-gaps.ts";
import { stateOfHolder } from "../io/process-identity.ts";
import type { Clock } from "../io/clock.ts";
import type { Log } from "../io/log.ts";
import { type BackupName, isBackupName, parseBackupName } from "../layout/backup-name.ts";
import {
  backupFolder,
  BACKUPS_FOLDER,
  parsePartKey,
  parsePartRecord,
  parseRunClaim,
  parseSentinelKey,
} from "../layout/keys.ts";
import type { ObjectKey, Storage } from "../storage/storage.ts";
import { readRunFacts, type RunFacts } from "./run-claim.ts";

/** A backup that somebody began and nobody will finish. */
export interface Interrupted {
  readonly name: BackupName;
  /** All that is in its folder: bytes as stored, by key. */
  readonly objects: ReadonlyMap<ObjectKey, number>;
  /** Of the runs that worked on it, all of which are over. */
  readonly claims: readonly ObjectKey[];
  /** Numbers of parts up to this one may be in use, or be on their way. */
  readonly usedPartCount: number;
}

export interface InterruptedQuery {
  readonly storage: Storage;
  readonly clock: Clock;
  readonly log: Log;
  readonly signal: AbortSignal;
  /** One that was begun longer ago is left. */
  readonly maxAgeMs: number;
}

/** A part that a killed run began had a number at most this much above those that it stored. */
const NUMBERS_BEGUN = 1000;

/**
 * Finds the backup that can be resumed: the newest of all, without sentinel, of the same cluster,
 * timeline and settings, of a process that is dead. Says why there is none. See RESUME.md.
 */
export async function findInterrupted(
  wanted: RunFacts,
  query: InterruptedQuery,
): Promise<Interrupted | undefined> {
  const { log } = query;
  const none = (why: string, fields: object = {}): undefined => {
    log.info("no interrupted backup is resumed", { why, ...fields });
    return undefined;
  };
  const { newest, folder } = await listNewest(query);
  if (folder === undefined) return none("there is none");
  const found = interruptedOf(folder);
  const { name } = found;
  const fault =
    placeFault(name, newest, wanted) ??
    (await claimsFault(found, wanted, query)) ??
    (await gapFault(name, query));
  return fault === undefined ? found : none(fault, { backup: name });
}

interface Folder {
  readonly name: BackupName;
  readonly objects: Map<ObjectKey, number>;
}

interface Listed {
  /** The last one that exists, by its segment alone and by timeline and segment. */
  readonly newest: { segment: string; named: string };
  /** The last one without sentinel that has a claim. */
  readonly folder: Folder | undefined;
}

/** Folders come before the sentinels of the same name. */
async function listNewest({ storage, signal }: InterruptedQuery): Promise<Listed> {
  const newest = { segment: "", named: "" };
  const candidates: Folder[] = [];
  let current: Folder | undefined;
  const finished = new Set<BackupName>();
  for await (const { key, sizeBytes } of storage.list(BACKUPS_FOLDER, { signal })) {
    const sentinel = parseSentinelKey(key);
    if (sentinel !== undefined) {
      finished.add(sentinel);
      const { segment } = isBackupName(sentinel) ? parseBackupName(sentinel) : { segment: "" };
      if (segment > newest.named) newest.named = segment;
      if (segment.slice(8) > newest.segment) newest.segment = segment.slice(8);
      continue;
    }
    const name = key.slice(BACKUPS_FOLDER.length).split("/")[0] ?? "";
    if (!isBackupName(name)) continue;
    if (current?.name !== name) current = { name, objects: new Map() };
    current.objects.set(key, sizeBytes);
    const isClaim = parseRunClaim(key.slice(backupFolder(name).length)) !== undefined;
    if (isClaim && candidates.at(-1) !== current) candidates.push(current);
  }
  return { newest, folder: candidates.findLast(({ name }) => !finished.has(name)) };
}

function interruptedOf({ name, objects }: Folder): Interrupted {
  const keys = [...objects.keys()];
  const relative = (key: ObjectKey): string => key.slice(backupFolder(name).length);
  const numbers = keys.flatMap((key) => {
    const part = parsePartKey(key)?.name ?? parsePartRecord(relative(key)) ?? "";
    return Number(/^part_(\d+)\./.exec(part)?.[1] ?? 0);
  });
  return {
    name,
    objects,
    claims: keys.filter((key) => parseRunClaim(relative(key)) !== undefined),
    usedPartCount: numbers.reduce((most, number) => Math.max(most, number), 0) + NUMBERS_BEGUN,
  };
}

function placeFault(
  name: BackupName,
  newest: Listed["newest"],
  { timeline }: RunFacts,
): string | undefined {
  const { segment, baseSegment, offset } = parseBackupName(name);
  if (baseSegment !== undefined || offset !== undefined) return "it is no full backup";
  if (Number.parseInt(segment.slice(0, 8), 16) !== timeline) return "it is of another timeline";
  // A retention may take what is older than a backup for abandoned.
  if (newest.named >= segment || newest.segment >= segment.slice(8)) {
    return "there is a later backup";
  }
  return undefined;
}

async function claimsFault(
  { name, claims }: Interrupted,
  wanted: RunFacts,
  { storage, clock, maxAgeMs, signal }: InterruptedQuery,
): Promise<string | undefined> {
  for (const key of claims) {
    const startedMs = parseRunClaim(key.slice(backupFolder(name).length)) ?? 0;
    if (clock.now() - startedMs > maxAgeMs) return "it was begun too long ago";
    const facts = await readRunFacts(key, { storage, signal });
    if (facts === undefined) return `${key} can't be understood`;
    if (facts.systemId !== wanted.systemId) return "it is of another cluster";
    if (facts.timeline !== wanted.timeline) return "it is of another timeline";
    if (facts.settings !== wanted.settings) return "it was taken with other settings";
    const state = stateOfHolder(facts.holder);
    if (state === "alive") return "its process is alive";
    if (state === "unknown") return "it can't be seen from here whether its process is dead";
  }
  return undefined;
}

/** What is said of gaps goes by the names of backups. */
async function gapFault(
  name: BackupName,
  { storage, signal }: InterruptedQuery,
): Promise<string | undefined> {
  const { segment } = parseBackupName(name);
  const gaps = await listOpenGaps(storage, { signal });
  return gaps.some((gap) => gap >= segment) ? "WAL was given up since" : undefined;
}
