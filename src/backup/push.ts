import { stat } from "node:fs/promises";
import { join } from "node:path";
import type { Codec } from "../codec/codec.ts";
import {
  type BackupStart,
  type BackupStop,
  lockBackup,
  startBackup,
  stopBackup,
  writeWalMessage,
} from "../connection/backup-session.ts";
import { connectPostgres } from "../connection/connect.ts";
import {
  estimateClusterBytes,
  readServerFacts,
  type ServerFacts,
} from "../connection/server-facts.ts";
import type { Session } from "../connection/session.ts";
import { SessionWatch } from "../connection/session-watch.ts";
import type { ConnectionSettings } from "../connection/target.ts";
import { OperationError } from "../errors.ts";
import type { Clock } from "../io/clock.ts";
import { createHasher, type HashAlgorithm } from "../io/hash.ts";
import type { Log } from "../io/log.ts";
import { boundedParallel } from "../io/ordered.ts";
import { RateLimit } from "../io/rate-limit.ts";
import { localFileError } from "../io/system-error.ts";
import { type BackupName, formatBackupName } from "../layout/backup-name.ts";
import type { JsonValue } from "../layout/json-value.ts";
import { timeNsOf, type TimeNs } from "../layout/time.ts";
import { parseSegmentName, segmentNumberOf, segmentOfEnd } from "../postgres/wal-file.ts";
import type { Storage } from "../storage/storage.ts";
import { requireArrival, type WalArchive } from "./arrival.ts";
import { readControlFile } from "./control-file.ts";
import { collectDatabaseNames } from "./database-names.ts";
import { DocumentsSpool } from "./documents-spool.ts";
import {
  type BackupDescription,
  removeObjects,
  writeDocuments,
  writeSentinel,
} from "./documents-write.ts";
import { packControl, packLabel } from "./own-parts.ts";
import { PartUpload } from "./part-upload.ts";
import {
  requireArchivingPrimary,
  requireCheckpoint,
  requireDataDirectory,
  requireNewName,
  requireOwnProcess,
  requireRepository,
  statsDirectoryOf,
  tablespaceDirectoryOf,
} from "./preflight.ts";
import { PushProgress, type ProgressListener } from "./push-progress.ts";
import type { SegmentRange } from "./segment-wait.ts";
import { DataDirectoryWalk } from "./walk.ts";

export interface PushSettings {
  /** Absolute; must be the server's own. */
  readonly dataDirectory: string;
  readonly connection: ConnectionSettings;
  readonly codec: Codec;
  /** Writes our manifest. */
  readonly zstd: Codec;
  /** In the codec's own scale; absent = its default. */
  readonly level?: number | undefined;
  readonly codecJobs: number;
  /** Parts packed at the same time. */
  readonly partConcurrency: number;
  readonly thresholdBytes: number;
  /** Of reading the data directory. */
  readonly diskRateBytesPerSecond?: number | undefined;
  /** Of the files in our manifest. */
  readonly hash: HashAlgorithm;
  readonly hasFilesMetadata: boolean;
  /** Whether files_metadata.json names the tables, for partial restores. */
  readonly hasDatabaseNames: boolean;
  readonly isPermanent: boolean;
  readonly userData?: JsonValue | undefined;
  /** How long the first segment may take to arrive in the repository. */
  readonly archiveCheckTimeoutMs: number;
  /** The same for the last one; 0 = without end. */
  readonly stopTimeoutMs: number;
  /** How often the session is asked whether it still lives; 0 = never. */
  readonly aliveCheckIntervalMs: number;
  /** For temporary files; made if it is not there. */
  readonly spoolDirectory: string;
}

export interface PushWorld {
  readonly storage: Storage;
  readonly log: Log;
  readonly clock: Clock;
  readonly onProgress: ProgressListener;
  readonly signal: AbortSignal;
}

/** A backup that exists now: its sentinel is stored. */
export interface PushedBackup {
  readonly name: BackupName;
  readonly startLsn: bigint;
  readonly stopLsn: bigint;
  readonly fileCount: number;
  readonly contentBytes: number;
  readonly storedBytes: number;
}

/**
 * Takes a full backup of a running primary. Resolves when it exists, with every segment that it
 * needs in the repository; rejects otherwise, and then there is no sentinel. See PUSH.md.
 */
export async function pushBackup(settings: PushSettings, world: PushWorld): Promise<PushedBackup> {
  const { storage, log, clock, signal } = world;
  await using session = await connectPostgres(settings.connection, { signal });
  requireOwnProcess(session);
  const facts = await readServerFacts(session, { signal });
  requireArchivingPrimary(facts);
  const dataDirectory = await requireDataDirectory(settings.dataDirectory, facts, world);
  await lockBackup(session, { signal });
  await requireRepository(storage, facts, { signal });

  const startTimeNs = timeNsOf(clock.now());
  const place = { facts, dataDirectory, archive: archiveOf(settings, world, dataDirectory) };
  const start = await startArchived(session, place, settings, world);
  await requireCheckpoint(dataDirectory, start, world);
  const name = formatBackupName({ segment: start.segment });
  await requireNewName(storage, name, { signal });
  log.info("backup started", { backup: name, server: session.address, storage: storage.name });

  return await copyCluster(session, { ...place, name, start, startTimeNs }, settings, world);
}

/** What is known before the start. */
interface Place {
  readonly facts: ServerFacts;
  /** Symlinks resolved. */
  readonly dataDirectory: string;
  readonly archive: WalArchive;
}

/** A backup on its way. */
interface Running extends Place {
  readonly name: BackupName;
  readonly start: BackupStart;
  readonly startTimeNs: TimeNs;
}

function archiveOf(settings: PushSettings, world: PushWorld, dataDirectory: string): WalArchive {
  return {
    ...world,
    connection: settings.connection,
    walDirectory: join(dataDirectory, "pg_wal"),
  };
}

/**
 * Starts the backup and proves meanwhile that archiving works: the start switches to a new segment,
 * and the one that it leaves, in which we have just written, must arrive.
 */
async function startArchived(
  session: Session,
  { facts, archive }: Place,
  settings: PushSettings,
  { clock, signal }: PushWorld,
): Promise<BackupStart> {
  const { walSegmentBytes: segmentBytes, majorVersion } = facts;
  const message = await writeWalMessage(session, { signal });
  const current = segmentOfEnd(message, segmentBytes);
  const range = { timeline: facts.timeline, first: current, last: current, segmentBytes };
  const label = `walnut ${new Date(clock.now()).toISOString()}`;
  let start: BackupStart | undefined;
  const steps = [
    async (options: { readonly signal: AbortSignal }) => {
      start = await startBackup(session, { majorVersion, label }, options);
    },
    (options: { readonly signal: AbortSignal }) =>
      requireArrival(range, { ...archive, ...options }, settings.archiveCheckTimeoutMs),
  ];
  await boundedParallel(steps, steps.length, (step, options) => step(options), { signal });
  if (start === undefined) throw new Error("the backup has not started");
  return start;
}

async function copyCluster(
  session: Session,
  running: Running,
  settings: PushSettings,
  world: PushWorld,
): Promise<PushedBackup> {
  const { name } = running;
  using documents = new DocumentsSpool({
    directory: settings.spoolDirectory,
    hasFilesMetadata: settings.hasFilesMetadata,
  });
  const description = await withParts(running, settings, { documents, world }, async (copy) => {
    const finished = await copyAll(session, copy, settings);
    await writeDocuments(documents, finished, { ...world, zstd: settings.zstd });
    return finished;
  });
  await writeSentinel(description, world);
  const { startLsn, stopLsn, contentBytes, storedBytes } = description;
  return { name, startLsn, stopLsn, contentBytes, storedBytes, fileCount: documents.fileCount };
}

/** What the steps of copying share. */
interface Copy extends Running {
  readonly documents: DocumentsSpool;
  readonly upload: PartUpload;
  readonly world: PushWorld;
  /** Ends uploads when the session is lost, as long as it is needed. */
  readonly lost: AbortController;
}

/** Runs `work`; when it fails, removes what it stored. */
async function withParts<T>(
  running: Running,
  settings: PushSettings,
  { documents, world }: { readonly documents: DocumentsSpool; readonly world: PushWorld },
  work: (copy: Copy) => Promise<T>,
): Promise<T> {
  const { storage, clock } = world;
  const lost = new AbortController();
  const progress = new PushProgress(world.onProgress);
  const rate = settings.diskRateBytesPerSecond;
  const upload = new PartUpload({
    ...settings,
    storage,
    backup: running.name,
    documents,
    rateLimit: rate === undefined ? undefined : new RateLimit(rate, clock),
    onContent: (sizeBytes) => progress.add(sizeBytes),
    signal: AbortSignal.any([world.signal, lost.signal]),
  });
  void estimateTotal(settings.connection, progress, world);
  try {
    return await work({ ...running, documents, upload, world, lost });
  } catch (error) {
    await upload.settle();
    await removeObjects(running.name, error, world);
    throw error;
  }
}

/** Everything up to the last segment; the backup lacks only its documents then. */
async function copyAll(
  session: Session,
  copy: Copy,
  settings: PushSettings,
): Promise<BackupDescription> {
  const { facts, documents, upload, world } = copy;
  const { log, clock } = world;
  const walk = new DataDirectoryWalk({
    dataDirectory: copy.dataDirectory,
    majorVersion: facts.majorVersion,
    tablespaceDirectory: tablespaceDirectoryOf(facts),
    statsDirectory: statsDirectoryOf(facts, copy.dataDirectory),
    onNotice: (text, path) => log.info(text, { path }),
  });
  const stop = await readAll(session, copy, { walk, settings });
  log.info("all files are read", { backup: copy.name, files: documents.fileCount });

  const steps = [
    () => upload.finish(),
    (options: CallOptions) =>
      requireArrival(
        neededRange(copy, stop),
        { ...copy.archive, ...options },
        settings.stopTimeoutMs,
      ),
    async (options: CallOptions) => {
      if (!settings.hasFilesMetadata || !settings.hasDatabaseNames) return;
      await collectDatabaseNames(documents, { ...settings, log, ...options });
    },
  ];
  await boundedParallel(steps, steps.length, (step, options) => step(options), world);
  return {
    ...settings,
    name: copy.name,
    startLsn: copy.start.startLsn,
    stopLsn: stop.stopLsn,
    startTimeNs: copy.startTimeNs,
    finishTimeNs: timeNsOf(clock.now()),
    systemId: facts.systemId,
    versionNumber: facts.versionNumber,
    dataDirectory: copy.dataDirectory,
    contentBytes: documents.contentBytes,
    storedBytes: upload.storedBytes,
    catalogBytes: walk.catalogBytes,
    tablespaces: walk.tablespaces,
  };
}

interface CallOptions {
  readonly signal: AbortSignal;
}

/** Reads all files while the session is watched, pg_control last, and ends the backup. */
async function readAll(
  session: Session,
  copy: Copy,
  { walk, settings }: { readonly walk: DataDirectoryWalk; readonly settings: PushSettings },
): Promise<BackupStop> {
  const { facts, documents, upload, world } = copy;
  const intervalMs = settings.aliveCheckIntervalMs;
  await using watch = new SessionWatch(session, { ...world, intervalMs });
  const onLost = (): void => copy.lost.abort(watch.signal.reason);
  watch.signal.addEventListener("abort", onLost, { once: true });
  const signal = AbortSignal.any([world.signal, watch.signal]);
  const ownPart = {
    documents,
    hasher: await createHasher(settings.hash),
    extension: settings.codec.extension,
    owner: await ownerOf(copy.dataDirectory),
  };

  await upload.packAll(walk[Symbol.iterator]());
  const { bytes } = await readControlFile(copy.dataDirectory, { ...world, signal });
  upload.putTar(packControl(bytes, ownPart));
  const stop = await stopBackup(session, facts, { signal });
  upload.putTar(packLabel(stop, copy.start.startLsn, ownPart));
  return stop;
}

async function ownerOf(path: string): Promise<{ readonly uid: number; readonly gid: number }> {
  try {
    return await stat(path);
  } catch (error) {
    throw localFileError("read", path, error);
  }
}

/** From the segment of the first record to that of the last one. */
function neededRange({ start, facts }: Running, { stopLsn }: BackupStop): SegmentRange {
  const segmentBytes = facts.walSegmentBytes;
  const { timeline } = parseSegmentName(start.segment, segmentBytes);
  const first = segmentNumberOf(start.startLsn, segmentBytes);
  return { timeline, first, last: segmentOfEnd(stopLsn, segmentBytes), segmentBytes };
}

/** For the progress line only: it comes when it comes, or never. */
async function estimateTotal(
  connection: ConnectionSettings,
  progress: PushProgress,
  { signal }: PushWorld,
): Promise<void> {
  try {
    await using session = await connectPostgres(connection, { signal });
    const totalBytes = await estimateClusterBytes(session, { signal });
    if (totalBytes !== undefined) progress.expect(totalBytes);
  } catch (error) {
    if (!signal.aborted && !(error instanceof OperationError)) throw error;
  }
}
