import { join } from "node:path";
import { type BackupStop, lockBackup, stopBackup } from "../connection/backup-session.ts";
import { connectPostgres } from "../connection/connect.ts";
import { estimateClusterBytes, readServerFacts } from "../connection/server-facts.ts";
import type { Session } from "../connection/session.ts";
import { SessionWatch } from "../connection/session-watch.ts";
import type { ConnectionSettings } from "../connection/target.ts";
import { OperationError } from "../errors.ts";
import { untilAborted } from "../io/abort.ts";
import { BackgroundJob } from "../io/background-job.ts";
import { createHasher } from "../io/hash.ts";
import { both } from "../io/ordered.ts";
import { RateLimit } from "../io/rate-limit.ts";
import type { OwnRecord } from "../layout/sentinel.ts";
import { timeNsOf, type TimeNs } from "../layout/time.ts";
import { lsn } from "../postgres/lsn.ts";
import { PageChecksums } from "../postgres/page-checksums.ts";
import { parseSegmentName, segmentNumberOf, segmentOfEnd } from "../postgres/wal-file.ts";
import { requireArrival, type WalArchive } from "./arrival.ts";
import { catchUpBase, catchUpReading } from "./catch-up-push.ts";
import { markPermanent } from "./chain-permanence.ts";
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
import { PageVerifier } from "./page-verifier.ts";
import { PartUpload } from "./part-upload.ts";
import {
  requireArchiver,
  requireDataDirectory,
  requireOwnProcess,
  requireRepository,
} from "./preflight.ts";
import { composeParts } from "./push-composition.ts";
import { baseRecord, prepareReading, type Reading } from "./push-increment.ts";
import { PushProgress } from "./push-progress.ts";
import {
  awaitSettled,
  beginResuming,
  keepInterrupted,
  ownerOf,
  prepareResumption,
  type Resuming,
} from "./push-resume.ts";
import type { PushedBackup, PushSettings, PushWorld } from "./push-settings.ts";
import {
  type ArchiveProof,
  type Begun,
  beginProof,
  type Place,
  startBesideBase,
  walkOf,
} from "./push-start.ts";
import type { SegmentRange } from "./segment-wait.ts";
import { lastSegmentTimeoutMs, requireSameTimeline, withMissingHint } from "./standby.ts";
import type { DataDirectoryWalk } from "./walk.ts";

export type { PushedBackup, PushSettings, PushWorld } from "./push-settings.ts";

/**
 * Takes a backup of a running server, also of a standby. Resolves when it exists, with every
 * segment that it needs in the repository; rejects otherwise, and then there is no sentinel. See
 * PUSH.md.
 */
export async function pushBackup(settings: PushSettings, world: PushWorld): Promise<PushedBackup> {
  const { storage, clock, signal } = world;
  await using session = await connectPostgres(settings.connection, { signal });
  requireOwnProcess(session);
  const facts = await readServerFacts(session, { signal });
  const { receiverSlot, serverName } = settings;
  await requireArchiver(session, facts, { receiverSlot, signal });
  const dataDirectory = await requireDataDirectory(settings.dataDirectory, facts, world);
  await lockBackup(session, { signal });
  await requireRepository(storage, facts, { dataDirectory, serverName }, { signal });
  const startTimeNs = timeNsOf(clock.now());
  const archive = withMissingHint(archiveOf(settings, world, dataDirectory), facts);
  const resumption = await prepareResumption({ facts, dataDirectory }, settings, world);
  const place = { facts, dataDirectory, archive, resumption };
  const proof = await beginProof(session, place, settings, world);
  await using job = proof.job;
  const proved = { ...world, signal: AbortSignal.any([signal, job.failed]) };
  const begun = await startBesideBase(session, place, settings, proved);
  return await copyCluster(session, { ...place, ...begun, proof, startTimeNs }, settings, proved);
}

/** A backup on its way. */
interface Running extends Place, Begun {
  readonly proof: ArchiveProof;
  readonly startTimeNs: TimeNs;
}

function archiveOf(settings: PushSettings, world: PushWorld, dataDirectory: string): WalArchive {
  return {
    ...world,
    connection: settings.connection,
    walDirectory: join(dataDirectory, "pg_wal"),
  };
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
  // What is made or rewritten after this moment is wholly in the WAL of the backup.
  await using names = new BackgroundJob(async (options) => {
    if (!settings.hasFilesMetadata || !settings.hasDatabaseNames) return;
    await collectDatabaseNames(documents, { ...settings, log: world.log, ...options });
  }, world);
  const verifier = await makeVerifier(running, settings, world);
  const { base, copySource, summariesAhead, start, facts, archive } = running;
  const parts = { base, copySource, documents, verifier, startLsn: start.startLsn };
  const {
    codecJobs,
    increments: { ways },
    notesDirectory,
  } = settings;
  const walDirectory = join(running.dataDirectory, "pg_wal");
  const places = { walDirectory, notesDirectory };
  const { signal } = world;
  const sources = { ...archive, ...facts, ...places, codecJobs, ways, summariesAhead, signal };
  const found = await prepareReading(session, parts, sources);
  const reading = catchUpReading(found, settings.catchUpFrom);
  await untilAborted(running.proof.arrived, signal);
  const resuming = await resumingOf(running, settings, world);
  const context = { documents, reading, names, world, resuming };
  const description = await withParts(running, settings, context, (copy) =>
    copyAll(session, copy, settings),
  );
  // A permanent increment is worth nothing without its bases.
  if (settings.isPermanent) await markPermanent(running.base?.choice.chain ?? [], world);
  await writeSentinel(description, world);
  await resuming?.claim.release();
  const { startLsn, stopLsn, contentBytes, storedBytes } = description;
  const { fileCount, unchangedCount } = documents;
  const corruptFiles = verifier?.finish(lsn(stopLsn)) ?? [];
  const baseName = running.base?.choice.name;
  return {
    name,
    corruptFiles,
    baseName,
    startLsn,
    stopLsn,
    contentBytes,
    storedBytes,
    fileCount,
    unchangedCount,
  };
}

async function resumingOf(
  { base, interrupted, name, resumption, start }: Running,
  settings: PushSettings,
  world: PushWorld,
): Promise<Resuming | undefined> {
  const full = base === undefined ? resumption : undefined;
  const backup = { resumption: full, interrupted, name, startLsn: start.startLsn };
  return await beginResuming(backup, settings, world);
}

async function makeVerifier(
  { facts, start }: Running,
  settings: PushSettings,
  { clock, log }: PushWorld,
): Promise<PageVerifier | undefined> {
  if (!settings.isPageVerified) return undefined;
  if (!facts.hasDataChecksums) {
    log.warning("the cluster has no data checksums: pages can't be verified");
    return undefined;
  }
  const sums = await PageChecksums.create(facts.blockBytes);
  const { isEveryCorruptBlockListed: isEveryBlockListed } = settings;
  return new PageVerifier({ sums, startLsn: start.startLsn, clock, isEveryBlockListed });
}

function verificationOf({ reading: { verifier } }: Copy, { stopLsn }: BackupStop): OwnRecord {
  if (verifier === undefined) return {};
  const files = verifier.finish(stopLsn);
  const corruptPages = files.reduce((sum, { blocks }) => sum + blocks.count, 0);
  return { isPagesVerified: true, ...(corruptPages === 0 ? {} : { corruptPages }) };
}

interface CopyContext {
  readonly documents: DocumentsSpool;
  readonly reading: Reading;
  /** Of the tables, on their way into the documents. */
  readonly names: BackgroundJob<void>;
  /** Absent for a backup that can't be resumed and resumes none. */
  readonly resuming: Resuming | undefined;
  readonly world: PushWorld;
}

/** What the steps of copying share. */
interface Copy extends Running, CopyContext {
  readonly upload: PartUpload;
  /** Ends uploads when the session is lost, as long as it is needed. */
  readonly lost: AbortController;
  /** Of reading files. */
  readonly rateLimit: RateLimit | undefined;
  readonly onContent: (sizeBytes: number) => void;
}

/** Runs `work`; when it fails, removes what it stored, unless that can be resumed. */
async function withParts<T>(
  running: Running,
  settings: PushSettings,
  context: CopyContext,
  work: (copy: Copy) => Promise<T>,
): Promise<T> {
  const { documents, reading, resuming, world } = context;
  const { storage, clock } = world;
  const lost = new AbortController();
  const progress = new PushProgress(world.onProgress);
  const rate = settings.diskRateBytesPerSecond;
  const rateLimit = rate === undefined ? undefined : new RateLimit(rate, clock);
  const onContent = (sizeBytes: number): void => progress.add(sizeBytes);
  const upload = new PartUpload({
    ...settings,
    storage,
    backup: running.name,
    documents,
    judge: reading.judge,
    verifier: reading.verifier,
    records: resuming?.records,
    usedPartCount: resuming?.interrupted?.usedPartCount,
    rateLimit,
    onContent,
    signal: AbortSignal.any([world.signal, lost.signal]),
  });
  // Where the source tells which blocks changed, nobody reads the rest.
  const isAllRead = reading.judge === undefined || reading.changeSource === "page-scan";
  if (isAllRead) void estimateTotal(settings.connection, progress, world);
  try {
    return await work({ ...running, ...context, upload, lost, rateLimit, onContent });
  } catch (error) {
    await upload.settle();
    const isBegun = resuming?.interrupted !== undefined || upload.sizes.size > 0;
    if (resuming !== undefined && isBegun) {
      const fields = { backup: running.name, storage: storage.name };
      world.log.warning("what is stored is left: backup-push --resume goes on with it", fields);
    } else await removeObjects(running.name, error, world);
    throw error;
  }
}

/**
 * Everything but the sentinel. The documents are stored while the store writes the last parts down,
 * and the last segment is on its way.
 */
async function copyAll(
  session: Session,
  copy: Copy,
  settings: PushSettings,
): Promise<BackupDescription> {
  const { facts, documents, upload, world } = copy;
  const { log } = world;
  const walk = walkOf(copy, (text, path) => log.info(text, { path }));
  const stop = await readAll(session, copy, { walk, settings });
  log.info("all files are read", { backup: copy.name, files: documents.fileCount });

  const describe = async (options: CallOptions): Promise<BackupDescription> => {
    await untilAborted(upload.sent(), options.signal);
    await copy.names.result(options);
    const description = describeCopy(copy, { stop, walk, settings });
    const { zstd } = settings;
    return await writeDocuments(documents, description, { ...world, ...options, zstd });
  };
  const store = async (options: CallOptions): Promise<BackupDescription> => {
    const finish = (inner: CallOptions) => untilAborted(upload.finish(), inner.signal);
    const [description] = await both(describe, finish, options);
    return description;
  };
  const arrive = async (options: CallOptions): Promise<void> => {
    const timeoutMs = lastSegmentTimeoutMs(facts, settings.stopTimeoutMs);
    await requireArrival(neededRange(copy, stop), { ...copy.archive, ...options }, timeoutMs);
    await copy.proof.job.result(options);
  };
  const [description] = await both(store, arrive, world);
  await copy.resuming?.claim.requireParts(upload.sizes);
  return description;
}

interface CopyEnd {
  readonly stop: BackupStop;
  readonly walk: DataDirectoryWalk;
  readonly settings: PushSettings;
}

function describeCopy(copy: Copy, { stop, walk, settings }: CopyEnd): BackupDescription {
  const { facts, documents, upload, world } = copy;
  return {
    ...settings,
    name: copy.name,
    startLsn: copy.start.startLsn,
    stopLsn: stop.stopLsn,
    startTimeNs: copy.startTimeNs,
    finishTimeNs: timeNsOf(world.clock.now()),
    systemId: facts.systemId,
    versionNumber: facts.versionNumber,
    dataDirectory: copy.dataDirectory,
    contentBytes: documents.contentBytes,
    storedBytes: upload.storedBytes,
    catalogBytes: walk.catalogBytes,
    tablespaces: walk.tablespaces,
    hasChecksums: facts.hasDataChecksums,
    base: copy.base === undefined ? catchUpBase(settings.catchUpFrom) : baseRecord(copy.base),
    own: {
      changeSource: copy.reading.changeSource,
      ...verificationOf(copy, stop),
      isResumed: copy.resuming?.interrupted === undefined ? undefined : true,
    },
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

  const { storage, log } = world;
  const keeping = { ...settings, ...copy, storage, log, signal, verifier: copy.reading.verifier };
  const kept = await keepInterrupted(copy.resuming, keeping);
  const composition = await composeParts(copy, walk, settings);
  const entries = kept?.rest(composition.entries) ?? composition.entries;
  await upload.packAll({ ...composition, entries });
  copy.proof.hasten();
  kept?.requireTablespaces(walk.tablespaces);
  await awaitSettled(copy.resuming, settings, { ...world, signal });
  const { bytes } = await readControlFile(copy.dataDirectory, { ...world, signal });
  upload.putTar(packControl(bytes, ownPart));
  const stop = await stopBackup(session, facts, { signal });
  const label = stop.backupLabel;
  await requireSameTimeline(session, { start: copy.start, label, facts }, { signal });
  upload.putTar(packLabel(stop, copy.start.startLsn, ownPart));
  return stop;
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
