import { stat } from "node:fs/promises";
import type { ServerFacts } from "../connection/server-facts.ts";
import { RefusedError } from "../errors.ts";
import type { RateLimit } from "../io/rate-limit.ts";
import { localFileError } from "../io/system-error.ts";
import { parseBackupName } from "../layout/backup-name.ts";
import type { Tablespace } from "../layout/tablespace-spec.ts";
import type { DocumentsSpool } from "./documents-spool.ts";
import { findInterrupted, type Interrupted } from "./interrupted.ts";
import { keepParts, type KeptPartsOptions } from "./kept-parts.ts";
import { type Owner, PartRecords } from "./part-record.ts";
import type { PushSettings, PushWorld } from "./push-settings.ts";
import { RunClaim, type RunFacts } from "./run-claim.ts";
import type { Walked } from "./walk.ts";

/** A backup that can be resumed if it is interrupted, and may resume one itself. */
export interface Resumption {
  readonly run: RunFacts;
  readonly owner: Owner;
  /** Found, and all of its processes seen to be dead. */
  readonly interrupted: Interrupted | undefined;
  /** When that was, by `monotonicMs`. */
  readonly seenMs: number;
}

/** Of parts and records: another one is not resumed. */
const RESUME_FORMAT = 1;

/** Of the data directory. */
export async function ownerOf(path: string): Promise<Owner> {
  try {
    const { uid, gid } = await stat(path);
    return { uid, gid };
  } catch (error) {
    throw localFileError("read", path, error);
  }
}

/**
 * Before the start: looks for a backup to resume. Undefined where that was not asked for, or this
 * backup can't be resumed, of which the log says why.
 */
export async function prepareResumption(
  { facts, dataDirectory }: { readonly facts: ServerFacts; readonly dataDirectory: string },
  settings: PushSettings,
  world: PushWorld,
): Promise<Resumption | undefined> {
  const { resume } = settings;
  if (resume === undefined) return undefined;
  const fault = resumeFault(facts, settings, world);
  const { holder } = resume;
  if (fault !== undefined || holder === undefined) {
    const why = fault ?? "the system does not tell processes apart";
    world.log.info("this backup can't be resumed, and resumes none", { why });
    return undefined;
  }
  const { systemId, timeline } = facts;
  const owner = await ownerOf(dataDirectory);
  const { encryption } = world.storage;
  const { codec, composer } = settings;
  const common = [RESUME_FORMAT, codec.extension, encryption ?? "", composer ?? "regular"];
  const parts = [...common, owner.uid, owner.gid, dataDirectory];
  const run = { systemId, timeline, holder, settings: JSON.stringify(parts) };
  const interrupted = await findInterrupted(run, { ...world, maxAgeMs: resume.maxAgeMs });
  return { run, owner, interrupted, seenMs: world.clock.monotonicMs() };
}

function resumeFault(
  { isInRecovery }: ServerFacts,
  { catchUpFrom, composer }: PushSettings,
  { storage }: PushWorld,
): string | undefined {
  if (isInRecovery) return "the server is a standby";
  if (catchUpFrom !== undefined) return "it brings a standby up";
  if (composer === "copy" || composer === "rating") return `the composer is ${composer}`;
  if (storage.copies !== undefined) return "it goes to several stores";
  if (storage.isWriteOnly === true) return "what is stored can't be read without its key";
  return undefined;
}

/** What is resumed once it is known what the new backup is; undefined for an increment. */
export function fittingInterrupted(
  resumption: Resumption | undefined,
  { segment, isFull }: { readonly segment: string; readonly isFull: boolean },
  { log }: Pick<PushWorld, "log">,
): Interrupted | undefined {
  const interrupted = resumption?.interrupted;
  if (interrupted === undefined) return undefined;
  const { name: backup } = interrupted;
  const named = parseBackupName(backup).segment;
  // The name says from where on WAL is kept.
  const isBefore = named.slice(0, 8) === segment.slice(0, 8) && named <= segment;
  if (isFull && isBefore) return interrupted;
  const why = isFull ? "it began later than this backup" : "this backup is an increment";
  log.info("no interrupted backup is resumed", { why, backup });
  return undefined;
}

/** What a backup needs to be resumed, or to resume one. */
export interface Resuming extends Resumption {
  readonly claim: RunClaim;
  readonly records: PartRecords;
}

/** Takes the folder; before that nothing may be stored in it. */
export async function beginResuming(
  { resumption, interrupted, name, startLsn }: ResumingBackup,
  settings: PushSettings,
  world: PushWorld,
): Promise<Resuming | undefined> {
  if (resumption === undefined) return undefined;
  const { run, owner, seenMs } = resumption;
  const claim = await RunClaim.take(name, run, interrupted?.claims ?? [], world);
  const { systemId } = run;
  const records = new PartRecords({
    ...world,
    ...settings,
    backup: name,
    systemId,
    startLsn,
    owner,
  });
  return { run, owner, interrupted, seenMs, claim, records };
}

interface ResumingBackup {
  /** Absent for what can't be resumed, increments among it. */
  readonly resumption: Resumption | undefined;
  readonly interrupted: Interrupted | undefined;
  readonly name: string;
  readonly startLsn: bigint;
}

/** What was kept of an interrupted backup. */
export interface Kept {
  /** The entries that are still to be packed. */
  rest(entries: Iterable<Walked>): Iterable<Walked>;
  /** After the walk: throws RefusedError for parts with files of tablespaces that are gone. */
  requireTablespaces(found: readonly Tablespace[]): void;
}

const TABLESPACE_ENTRY = /^\/pg_tblspc\/([1-9]\d*)\//;

/** Keeps what is unchanged; undefined where nothing is resumed. */
export async function keepInterrupted(
  resuming: Resuming | undefined,
  options: Omit<KeptPartsOptions, "ownClaim" | "owner" | "systemId" | "documents"> & {
    readonly documents: DocumentsSpool;
    readonly rateLimit?: RateLimit | undefined;
  },
): Promise<Kept | undefined> {
  if (resuming?.interrupted === undefined) return undefined;
  const { claim, owner, run, interrupted } = resuming;
  const kept = await keepParts(interrupted, {
    ...options,
    owner,
    systemId: run.systemId,
    ownClaim: claim.key,
  });
  const tablespaces = new Set<string>();
  for (const path of kept) {
    const oid = TABLESPACE_ENTRY.exec(path)?.[1];
    if (oid !== undefined) tablespaces.add(oid);
  }
  return {
    *rest(entries) {
      for (const entry of entries) if (!kept.has(entry.name)) yield entry;
    },
    requireTablespaces(found) {
      const names = new Set(found.map(({ name }) => name));
      const gone = [...tablespaces].find((oid) => !names.has(oid));
      if (gone === undefined) return;
      throw new RefusedError(`tablespace ${gone} was dropped while the backup was resumed`, {
        hint: "Take the backup again.",
      });
    },
  };
}

/**
 * Waits until nothing that a killed process had sent can arrive any more; what has one name in all
 * runs may be stored only then.
 */
export async function awaitSettled(
  resuming: Resuming | undefined,
  { resume }: PushSettings,
  { clock, log, signal }: Pick<PushWorld, "clock" | "log" | "signal">,
): Promise<void> {
  if (resuming?.interrupted === undefined || resume === undefined) return;
  const leftMs = resuming.seenMs + resume.settleMs - clock.monotonicMs();
  if (leftMs <= 0) return;
  log.info("waiting until nothing of the interrupted run can arrive any more", {
    seconds: Math.ceil(leftMs / 1000),
  });
  await clock.sleep(leftMs, { signal });
}
