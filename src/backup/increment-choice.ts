import { type BackupName, isBackupName, parseBackupName } from "../layout/backup-name.ts";
import { isJsonEqual, type JsonValue } from "../layout/json-value.ts";
import type { BackupMetadata } from "../layout/metadata.ts";
import type { Sentinel } from "../layout/sentinel.ts";
import { formatLsn, type Lsn, lsn } from "../postgres/lsn.ts";
import { isOnHistory, type TimelineHistory } from "../postgres/timeline-history.ts";

/** Which base is asked for by name. */
export type NamedBase =
  | { readonly kind: "name"; readonly name: string }
  /** The only one whose user data is this. */
  | { readonly kind: "user-data"; readonly value: JsonValue };

/** What the user wants of a new backup. */
export interface BaseRequest {
  /** Increments after a full backup; 0 = none at all. */
  readonly maxSteps: number;
  /** What an increment is based on: the newest backup, or the full one at its root. */
  readonly origin: "latest" | "latest-full";
  /** Goes before the newest. */
  readonly from?: NamedBase | undefined;
  readonly isPermanent: boolean;
  /** Why it must be a full backup, whatever else is asked for. */
  readonly fullReason?: string | undefined;
}

/** The server that is backed up, before its backup starts. */
export interface BaseServer {
  readonly systemId: bigint;
  readonly majorVersion: number;
  readonly history: TimelineHistory;
  readonly currentLsn: Lsn;
}

/** A backup as a catalogue has it. */
export interface BaseCandidate {
  readonly name: BackupName;
  readonly sentinel?: Sentinel | undefined;
  readonly metadata?: BackupMetadata | undefined;
  /** Why its content can't be used, if that was found out. */
  readonly fault?: BaseFault | undefined;
}

/** Why a backup can't be a base. */
export interface BaseFault {
  /** A clause behind the backup's name. */
  readonly reason: string;
  /** For the same reason it can't be restored. */
  readonly isDamage: boolean;
}

/** A backup that was not taken. */
export interface PassedOver extends BaseFault {
  readonly name: BackupName;
}

export interface ChosenBase {
  readonly kind: "increment";
  readonly name: BackupName;
  readonly startLsn: Lsn;
  /** At the root of the chain: a full backup. */
  readonly fullName: BackupName;
  /** Of the new backup: 1 on a full one. */
  readonly stepCount: number;
  /** From the base to the full backup, both included. */
  readonly chain: readonly BackupName[];
  readonly passedOver: readonly PassedOver[];
}

export type BaseChoice =
  | ChosenBase
  | {
      readonly kind: "full";
      /** A clause: "no earlier backup can be a base". */
      readonly reason: string;
      readonly passedOver: readonly PassedOver[];
    }
  /** A base was named that there is not, or that must not be used. */
  | ({ readonly kind: "refused" } & BaseFault);

const MAX_CHAIN = 10_000;

/**
 * Decides what a new backup is based on. `candidates` are all backups, oldest first. What would
 * make the increment wrong (another cluster, release or history, a missing backup) is never taken:
 * where a base was named it is refused, else an older backup is used or a full one is made.
 */
export function chooseBase(
  candidates: readonly BaseCandidate[],
  request: BaseRequest,
  server: BaseServer,
): BaseChoice {
  const full = (reason: string, passedOver: readonly PassedOver[] = []): BaseChoice => {
    return { kind: "full", reason, passedOver };
  };
  if (request.fullReason !== undefined) return full(request.fullReason);
  if (request.maxSteps === 0) return full("WALG_DELTA_MAX_STEPS is 0");

  const all = new Map(candidates.map((candidate) => [candidate.name, candidate]));
  if (request.from !== undefined) {
    const found = findNamed(candidates, request.from);
    if (typeof found === "string") return { kind: "refused", ...harmless(found) };
    const fault = faultOf(found, all, server);
    if (fault !== undefined) {
      return { kind: "refused", ...fault, reason: `backup ${found.name} ${fault.reason}` };
    }
    return limited(found, { request, server, all, passedOver: [] });
  }
  const passedOver: PassedOver[] = [];
  for (const candidate of candidates.toReversed()) {
    const fault = faultOf(candidate, all, server);
    if (fault === undefined) return limited(candidate, { request, server, all, passedOver });
    passedOver.push({ name: candidate.name, ...fault });
  }
  const reason = candidates.length === 0 ? "there is no earlier backup" : NOTHING_FITS;
  return full(reason, passedOver);
}

const NOTHING_FITS = "no earlier backup can be a base";

function findNamed(candidates: readonly BaseCandidate[], from: NamedBase): BaseCandidate | string {
  if (from.kind === "name") {
    const found = candidates.find(({ name }) => name === from.name);
    return found ?? `backup ${from.name} does not exist`;
  }
  const matching = candidates.filter(({ sentinel }) => {
    const userData = sentinel?.userData;
    return userData !== undefined && isJsonEqual(userData, from.value);
  });
  const [found] = matching;
  if (found !== undefined && matching.length === 1) return found;
  return found === undefined
    ? "no backup has this user data"
    : `${matching.length} backups have this user data: ${matching.map(({ name }) => name).join(", ")}`;
}

type Candidates = ReadonlyMap<BackupName, BaseCandidate>;

interface Limits {
  readonly request: BaseRequest;
  readonly server: BaseServer;
  readonly all: Candidates;
  readonly passedOver: readonly PassedOver[];
}

/** Applies the rules of WAL-G that make a full backup although there is a base. */
function limited(
  candidate: BaseCandidate,
  { request, server, all, passedOver }: Limits,
): BaseChoice {
  const full = (reason: string): BaseChoice => ({ kind: "full", reason, passedOver });
  const isFromFull = request.origin === "latest-full";
  const chain = chainOf(candidate, all);
  const root = chain.at(-1) ?? candidate;
  const steps = isFromFull ? familySize(root.name, all) : chain.length;
  if (steps > request.maxSteps) {
    return full(
      `WALG_DELTA_MAX_STEPS is ${request.maxSteps}, and ${root.name} has as many increments`,
    );
  }
  const isKept = candidate.metadata?.isPermanent === true;
  if (isKept && !request.isPermanent && !isFromFull) {
    return full(`backup ${candidate.name} is permanent, and the new one is not`);
  }
  const base = isFromFull ? root : candidate;
  const fault = faultOf(base, all, server);
  if (fault !== undefined) return full(`backup ${base.name} ${fault.reason}`);
  return {
    kind: "increment",
    name: base.name,
    startLsn: lsn(base.sentinel?.startLsn ?? 0n),
    fullName: root.name,
    stepCount: isFromFull ? 1 : chain.length,
    chain: (isFromFull ? [root] : chain).map(({ name }) => name),
    passedOver,
  };
}

/** The backup and its bases as far as they are there. */
function chainOf(candidate: BaseCandidate, all: Candidates): readonly BaseCandidate[] {
  const chain = [candidate];
  let next = candidate.sentinel?.base?.name;
  while (next !== undefined && next !== "" && chain.length < MAX_CHAIN) {
    const base = all.get(next);
    if (base === undefined) break;
    chain.push(base);
    next = base.sentinel?.base?.name;
  }
  return chain;
}

/** A full backup and all that is directly or indirectly based on it. */
function familySize(fullName: BackupName, all: Candidates): number {
  let count = 1;
  for (const { sentinel } of all.values()) if (sentinel?.base?.fullName === fullName) count += 1;
  return count;
}

function damage(reason: string): BaseFault {
  return { reason, isDamage: true };
}

/** What makes a backup no base, but does it no harm. */
export function harmless(reason: string): BaseFault {
  return { reason, isDamage: false };
}

/** Why a backup can't be a base of this server's. */
function faultOf(
  candidate: BaseCandidate,
  all: Candidates,
  server: BaseServer,
): BaseFault | undefined {
  const own = ownFault(candidate, server);
  if (own !== undefined) return own;
  const chain = chainOf(candidate, all);
  const last = chain.at(-1)?.sentinel?.base?.name;
  if (last === "") return harmless("is based on no backup, but on a position (catchup-push)");
  if (last !== undefined) return damage(`is based on ${last}, which does not exist`);
  for (const member of chain.slice(1)) {
    const fault = ownFault(member, server);
    if (fault === undefined) continue;
    return { ...fault, reason: `is based on ${member.name}, which ${fault.reason}` };
  }
  return undefined;
}

function ownFault(
  { name, sentinel, metadata, fault }: BaseCandidate,
  server: BaseServer,
): BaseFault | undefined {
  if (fault !== undefined) return fault;
  if (sentinel === undefined) return damage("has a sentinel that can't be read");
  if (metadata === undefined) return harmless("has no metadata.json that can be read");
  const { startLsn, finishLsn, systemId, pgVersion = 0 } = sentinel;
  if (startLsn === undefined || finishLsn === undefined) return harmless("does not tell its LSNs");
  if (systemId !== server.systemId) {
    return harmless(`is of cluster ${systemId ?? "unknown"}, not of ${server.systemId}`);
  }
  const majorVersion = Math.trunc(pgVersion / 10_000);
  if (majorVersion !== server.majorVersion) {
    return harmless(`is of PostgreSQL ${majorVersion}, not of ${server.majorVersion}`);
  }
  if (sentinel.isFilesMetadataDisabled) return harmless("has no files_metadata.json");
  const strange = historyFault(name, lsn(finishLsn), server);
  return strange === undefined ? undefined : harmless(strange);
}

function historyFault(
  name: BackupName,
  finishLsn: Lsn,
  { history, currentLsn }: BaseServer,
): string | undefined {
  if (!isBackupName(name)) return "has a name that tells no timeline";
  const { segment, offset } = parseBackupName(name);
  if (offset !== undefined) return "was made by WAL-E";
  const timeline = Number.parseInt(segment.slice(0, 8), 16);
  if (!isOnHistory(history, timeline, finishLsn)) {
    return (
      `ended at ${formatLsn(finishLsn)} on timeline ${timeline}, which is no part of the history ` +
      `of timeline ${history.timeline}`
    );
  }
  if (finishLsn > currentLsn) {
    return (
      `ended at ${formatLsn(finishLsn)}: Finish LSN of backup ${name} greater than current LSN ` +
      formatLsn(currentLsn)
    );
  }
  return undefined;
}
