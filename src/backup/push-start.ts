import { type BackupStart, startBackup, writeWalMessage } from "../connection/backup-session.ts";
import { connectPostgres } from "../connection/connect.ts";
import type { ServerFacts } from "../connection/server-facts.ts";
import type { Session } from "../connection/session.ts";
import { readSummariesAhead, type SummariesAhead } from "../connection/wal-summaries.ts";
import { OperationError } from "../errors.ts";
import { BackgroundJob } from "../io/background-job.ts";
import { both } from "../io/ordered.ts";
import { type BackupName, formatBackupName, parseBackupName } from "../layout/backup-name.ts";
import { segmentOfEnd } from "../postgres/wal-file.ts";
import { requireReadableArrival, type WalArchive } from "./arrival.ts";
import { requireReached } from "./catch-up-push.ts";
import type { LoadedBase } from "./increment-origin.ts";
import type { Interrupted } from "./interrupted.ts";
import {
  requireCheckpoint,
  requireNewName,
  statsDirectoryOf,
  tablespaceDirectoryOf,
} from "./preflight.ts";
import { findCopySource } from "./push-composition.ts";
import { findPushBase, readBaseServer } from "./push-increment.ts";
import { fittingInterrupted, type Resumption } from "./push-resume.ts";
import type { PushSettings, PushWorld } from "./push-settings.ts";
import { startOnStandby } from "./standby.ts";
import { DataDirectoryWalk } from "./walk.ts";

/** What is known before the start. */
export interface Place {
  readonly facts: ServerFacts;
  /** Symlinks resolved. */
  readonly dataDirectory: string;
  readonly archive: WalArchive;
  /** Absent for a backup that can't be resumed and resumes none. */
  readonly resumption: Resumption | undefined;
}

/** A backup that the server has begun. */
export interface Begun {
  readonly name: BackupName;
  readonly base: LoadedBase | undefined;
  /** A backup whose parts may be copied. */
  readonly copySource: LoadedBase | undefined;
  /** What the server's summaries told while it made its checkpoint. */
  readonly summariesAhead: SummariesAhead | undefined;
  /** A backup that this one resumes, and has the name of. */
  readonly interrupted: Interrupted | undefined;
  readonly start: BackupStart;
}

/**
 * A small backup is read by then: the processor is free for it while the last segment is awaited.
 */
const READ_BACK_DELAY_MS = 500;

/** The release in which servers began to summarize their WAL. */
const SUMMARIES_SINCE = 17;

type Bases = Pick<Begun, "base" | "copySource">;

/** That archiving works: segments arrive in the repository, and the last of them can be read. */
export interface ArchiveProof {
  readonly arrived: Promise<void>;
  /** The copying is done: what was put off may be read now. */
  readonly hasten: () => void;
  /** Both; of a standby `startBesideBase` proves it. */
  readonly job: BackgroundJob<void>;
}

/**
 * Begins the proof: what has just been written arrives as soon as the start of the backup switches
 * to a new segment. It fails with a RefusedError.
 */
export async function beginProof(
  session: Session,
  { facts, archive }: Pick<Place, "facts" | "archive">,
  { archiveCheckTimeoutMs: timeoutMs }: PushSettings,
  world: PushWorld,
): Promise<ArchiveProof> {
  const { isInRecovery, timeline, systemId, walSegmentBytes: segmentBytes } = facts;
  const message = isInRecovery ? undefined : await writeWalMessage(session, world);
  const arrived = Promise.withResolvers<void>();
  const hastened = Promise.withResolvers<void>();
  const onArrived = async (options: CallOptions): Promise<void> => {
    arrived.resolve();
    await Promise.race([hastened.promise, world.clock.sleep(READ_BACK_DELAY_MS, options)]);
  };
  const prove = async (options: CallOptions): Promise<void> => {
    if (message !== undefined) {
      const current = segmentOfEnd(message, segmentBytes);
      const range = { timeline, first: current, last: current, segmentBytes };
      const inner = { ...archive, ...options, systemId, onArrived: () => onArrived(options) };
      await requireReadableArrival(range, inner, timeoutMs);
    }
    arrived.resolve();
  };
  const job = new BackgroundJob(prove, world);
  return { arrived: arrived.promise, hasten: hastened.resolve, job };
}

/**
 * Has the server start the backup, and reads meanwhile what it is to be based on. A base that was
 * asked for by name comes first: when it can't be used, the server was asked for nothing.
 */
export async function startBesideBase(
  session: Session,
  place: Place,
  settings: PushSettings,
  world: PushWorld,
): Promise<Begun> {
  const { dataDirectory } = place;
  const server = await readBaseServer(session, place, settings, world);
  const { catchUpFrom } = settings;
  // The backup of a standby begins before where it stands.
  if (catchUpFrom !== undefined && !place.facts.isInRecovery) {
    requireReached(catchUpFrom, server.currentLsn);
  }
  const load = async (options: CallOptions): Promise<Bases> => {
    const inner = { ...world, ...options };
    const base = await findPushBase(server, settings, inner);
    return { base, copySource: await findCopySource(server, settings, inner) };
  };
  const named = settings.increments.from === undefined ? undefined : await load(world);
  const [start, bases] = await both(
    (options) => startOf(session, place, settings, { ...world, ...options }),
    async (options) => {
      const found = named ?? (await load(options));
      const summariesAhead = await lookAhead(found, place, settings, { ...world, ...options });
      return { ...found, summariesAhead };
    },
    world,
  );
  const what = { segment: start.segment, isFull: bases.base === undefined };
  const interrupted = fittingInterrupted(place.resumption, what, world);
  const name = interrupted?.name ?? nameOf(start, bases.base);
  if (interrupted === undefined) await requireNewName(world.storage, name, world);
  await requireCheckpoint(dataDirectory, start, world);
  world.log.info("backup started", {
    backup: name,
    server: session.address,
    storage: world.storage.name,
  });
  return { name, start, interrupted, ...bases };
}

/**
 * The summaries that there are already, in a session of their own: the backup's waits for the
 * checkpoint. Undefined where they can't be read; why not shows when they are asked for again.
 */
async function lookAhead(
  { base, copySource }: Bases,
  { facts }: Place,
  { connection, increments }: PushSettings,
  { signal }: PushWorld,
): Promise<SummariesAhead | undefined> {
  const from = base ?? copySource;
  const isWanted = increments.ways?.includes("summaries") ?? true;
  if (from === undefined || !isWanted || facts.majorVersion < SUMMARIES_SINCE) return undefined;
  try {
    await using session = await connectPostgres(connection, { signal });
    const { startLsn } = from.choice;
    return await readSummariesAhead(session, { startLsn, history: from.history }, { signal });
  } catch (error) {
    signal.throwIfAborted();
    if (error instanceof OperationError) return undefined;
    throw error;
  }
}

/** Of what belongs into the backup; `onNotice` is told what will not come back as it is. */
export function walkOf(
  { facts, dataDirectory }: Pick<Place, "facts" | "dataDirectory">,
  onNotice: (text: string, path: string) => void,
): DataDirectoryWalk {
  return new DataDirectoryWalk({
    dataDirectory,
    majorVersion: facts.majorVersion,
    tablespaceDirectory: tablespaceDirectoryOf(facts),
    statsDirectory: statsDirectoryOf(facts, dataDirectory),
    onNotice,
  });
}

interface CallOptions {
  readonly signal: AbortSignal;
}

async function startOf(
  session: Session,
  { facts, archive }: Place,
  { archiveCheckTimeoutMs: timeoutMs }: PushSettings,
  { clock, signal }: PushWorld,
): Promise<BackupStart> {
  const label = `walnut ${new Date(clock.now()).toISOString()}`;
  const { majorVersion } = facts;
  if (!facts.isInRecovery) return await startBackup(session, { majorVersion, label }, { signal });
  return await startOnStandby(session, { facts, archive }, { label, timeoutMs }, { signal });
}

function nameOf({ segment }: BackupStart, base: LoadedBase | undefined): BackupName {
  if (base === undefined) return formatBackupName({ segment });
  return formatBackupName({ segment, baseSegment: parseBackupName(base.choice.name).segment });
}
