import { ensureRepositoryIdentity } from "../archive/identity.ts";
import {
  type BackupStop,
  lockBackup,
  readReplayPosition,
  writeWalMessage,
} from "../connection/backup-session.ts";
import type { BaseBackup } from "../connection/backup-stream.ts";
import { connectPostgres } from "../connection/connect.ts";
import { readDatabaseIdentities } from "../connection/database-identities.ts";
import { connectReplication, type ReplicationSession } from "../connection/replication.ts";
import { readServerFacts, type ServerFacts } from "../connection/server-facts.ts";
import { type Session, textColumn } from "../connection/session.ts";
import { SessionWatch } from "../connection/session-watch.ts";
import { DatabaseError, RefusedError } from "../errors.ts";
import { createHasher } from "../io/hash.ts";
import { boundedParallel } from "../io/ordered.ts";
import { RateLimit } from "../io/rate-limit.ts";
import { type BackupName, formatBackupName, parseBackupName } from "../layout/backup-name.ts";
import { serverManifestKey } from "../layout/keys.ts";
import { timeNsOf, type TimeNs } from "../layout/time.ts";
import { formatBackupLabel, parseBackupLabel } from "../postgres/backup-label.ts";
import { formatLsn, type Lsn } from "../postgres/lsn.ts";
import { formatSegmentName, segmentNumberOf, segmentOfEnd } from "../postgres/wal-file.ts";
import { requireArrival, requireReadableArrival, type WalArchive } from "./arrival.ts";
import { markPermanent } from "./chain-permanence.ts";
import { collectDatabaseNames } from "./database-names.ts";
import { DocumentsSpool } from "./documents-spool.ts";
import {
  type BackupDescription,
  removeObjects,
  writeDocuments,
  writeSentinel,
} from "./documents-write.ts";
import { CONTROL_FILE } from "./exclusion.ts";
import type { LoadedBase } from "./increment-origin.ts";
import { packControl, packLabel } from "./own-parts.ts";
import { PartUpload } from "./part-upload.ts";
import { requireArchiver, requireNewName } from "./preflight.ts";
import { baseRecord } from "./push-increment.ts";
import { PushProgress } from "./push-progress.ts";
import type { PushedBackup, PushSettings, PushWorld } from "./push-settings.ts";
import { findRemoteBase, REMOTE_CHANGES, serverHash, startRemote } from "./remote-start.ts";
import { RemoteEntries } from "./remote-entries.ts";
import { requireDropped } from "./remote-tablespaces.ts";
import { EntryPacker } from "./entry-packer.ts";
import { LABEL_PATH } from "./restore-plan.ts";
import { ServerManifestCheck } from "./server-manifest.ts";
import { Spool } from "./spool.ts";
import { lastSegmentTimeoutMs, requireEarlierSegments, withMissingHint } from "./standby.ts";

/** What counts for a backup of a server on another host. */
export type RemotePushSettings = Omit<PushSettings, "dataDirectory" | "serverName">;

/** The server's own limits of MAX_RATE. @source MAX_RATE_LOWER, basebackup.c */
const MIN_RATE_KIB = 32;
const MAX_RATE_KIB = 1024 * 1024;

/**
 * Takes a backup over the replication protocol, of a primary or a standby on any host. Resolves
 * when it exists, with every segment that it needs in the repository; rejects otherwise, and then
 * there is no sentinel. See REMOTE.md.
 */
export async function pushRemoteBackup(
  settings: RemotePushSettings,
  world: PushWorld,
): Promise<PushedBackup> {
  const { storage, signal } = world;
  await using session = await connectPostgres(settings.connection, { signal });
  const facts = await readServerFacts(session, { signal });
  const { receiverSlot } = settings;
  await requireArchiver(session, facts, { receiverSlot, signal });
  await lockBackup(session, { signal });
  await ensureRepositoryIdentity(storage, facts.systemId, { signal });
  await using replication = await connectReplication(settings.connection, world);
  await requireSameServer(replication, facts, world);
  const base = await findRemoteBase({ session, replication, facts }, settings, world);

  using documents = new DocumentsSpool({
    directory: settings.spoolDirectory,
    hasFilesMetadata: settings.hasFilesMetadata,
  });
  // Before the start: a database that is made anew later has another transaction then.
  const databases = await readDatabaseIdentities(session, { signal });
  for (const database of databases) documents.addDatabase(database);
  const archive = withMissingHint({ ...world, connection: settings.connection }, facts);
  const directoryMode = await readDirectoryMode(session, world);
  const remote = { session, replication, facts, directoryMode, archive, documents };
  const running = await startArchived(remote, base, settings, world);
  // It holds the lock and has nothing else to do for hours: routers forget such connections.
  const intervalMs = settings.aliveCheckIntervalMs;
  await using watch = new SessionWatch(session, { ...world, intervalMs });
  watch.signal.addEventListener("abort", () => {
    const reason = watch.signal.reason instanceof Error ? watch.signal.reason.message : "";
    world.log.warning("another backup of this cluster could begin: this one's lock is lost", {
      reason,
    });
  });
  return await pushStarted(running, settings, world);
}

/** The ends of both connections must be one server: a pooler may have more. */
async function requireSameServer(
  replication: ReplicationSession,
  facts: ServerFacts,
  { signal }: PushWorld,
): Promise<void> {
  const { systemId } = await replication.identifySystem({ signal });
  if (systemId === facts.systemId) return;
  throw new RefusedError(
    `the replication connection leads to cluster ${systemId}, the other one to ${facts.systemId}`,
    { hint: "Set PGHOST and PGPORT to the server itself, not to a pooler." },
  );
}

async function readDirectoryMode(session: Session, world: PushWorld): Promise<number> {
  const row = await session.row("SELECT current_setting('data_directory_mode') AS mode", world);
  return Number.parseInt(textColumn(row, "mode"), 8);
}

interface Remote {
  readonly session: Session;
  readonly replication: ReplicationSession;
  readonly facts: ServerFacts;
  /** Permission bits of the data directory. */
  readonly directoryMode: number;
  readonly archive: WalArchive;
  readonly documents: DocumentsSpool;
}

/** A backup on its way. */
interface Running extends Remote {
  readonly name: BackupName;
  /** Absent for a full backup. */
  readonly base: LoadedBase | undefined;
  readonly backup: BaseBackup;
  readonly startTimeNs: TimeNs;
}

/** Starts the backup, and proves that archiving works before anything of it is taken. */
async function startArchived(
  remote: Remote,
  wanted: LoadedBase | undefined,
  settings: RemotePushSettings,
  world: PushWorld,
): Promise<Running> {
  const { session, facts, archive } = remote;
  const { walSegmentBytes: segmentBytes } = facts;
  const { archiveCheckTimeoutMs: timeoutMs } = settings;
  const startTimeNs = timeNsOf(world.clock.now());
  const message = facts.isInRecovery ? undefined : await writeWalMessage(session, world);
  let started: { readonly backup: BaseBackup; readonly base: LoadedBase | undefined } | undefined;
  const steps = [
    async (options: { readonly signal: AbortSignal }) => {
      const request = { base: wanted, rateKib: rateKib(settings), ...settings };
      started = await startRemote(remote, request, { ...world, ...options });
    },
    async (options: { readonly signal: AbortSignal }) => {
      if (message === undefined) return;
      const current = segmentOfEnd(message, segmentBytes);
      const range = { timeline: facts.timeline, first: current, last: current, segmentBytes };
      const { systemId } = facts;
      await requireReadableArrival(range, { ...archive, ...options, systemId }, timeoutMs);
    },
  ];
  await boundedParallel(steps, steps.length, (step, options) => step(options), world);
  if (started === undefined) throw new Error("the backup has not started");
  const { backup, base } = started;
  const { lsn: startLsn, timeline } = backup.start;
  const segment = formatSegmentName(
    timeline,
    segmentNumberOf(startLsn, segmentBytes),
    segmentBytes,
  );
  if (facts.isInRecovery) {
    const replayLsn = await readReplayPosition(session, world);
    await requireEarlierSegments(remote, { startLsn, segment, replayLsn }, timeoutMs);
  }
  const baseSegment = base === undefined ? undefined : parseBackupName(base.choice.name).segment;
  const name = formatBackupName(baseSegment === undefined ? { segment } : { segment, baseSegment });
  return { ...remote, name, base, backup, startTimeNs };
}

/** MAX_RATE, where the limit is one that the server knows. */
function rateKib({ diskRateBytesPerSecond: rate }: RemotePushSettings): number | undefined {
  if (rate === undefined || rate < MIN_RATE_KIB * 1024) return undefined;
  return Math.min(Math.trunc(rate / 1024), MAX_RATE_KIB);
}

async function pushStarted(
  running: Running,
  settings: RemotePushSettings,
  world: PushWorld,
): Promise<PushedBackup> {
  const { name, documents, session, backup, base } = running;
  await requireNewName(world.storage, name, world);
  const { storage, log } = world;
  log.info("backup started", { backup: name, server: session.address, storage: storage.name });
  const { lsn: startLsn } = backup.start;
  const description = await withUpload(running, settings, world, async (parts) => {
    const finished = await copyAll(running, parts, settings, world);
    return await writeDocuments(documents, finished, { ...world, zstd: settings.zstd });
  });
  // A permanent increment is worth nothing without its bases.
  if (settings.isPermanent) await markPermanent(base?.choice.chain ?? [], world);
  await writeSentinel(description, world);
  const { stopLsn, contentBytes, storedBytes } = description;
  const { fileCount, unchangedCount } = documents;
  const counts = { contentBytes, storedBytes, fileCount, unchangedCount };
  return { name, baseName: base?.choice.name, startLsn, stopLsn, corruptFiles: [], ...counts };
}

interface Parts {
  readonly upload: PartUpload;
  readonly onContent: (sizeBytes: number) => void;
}

/** Runs `work`; when it fails, removes what it stored. */
async function withUpload<T>(
  { name, documents, backup }: Running,
  settings: RemotePushSettings,
  world: PushWorld,
  work: (parts: Parts) => Promise<T>,
): Promise<T> {
  const progress = new PushProgress(world.onProgress);
  const sizes = backup.tablespaces.map(({ sizeBytes }) => sizeBytes);
  if (!sizes.includes(undefined)) {
    progress.expect(sizes.reduce((sum: number, sizeBytes) => sum + (sizeBytes ?? 0), 0));
  }
  const onContent = (sizeBytes: number): void => progress.add(sizeBytes);
  const upload = new PartUpload({ ...settings, ...world, backup: name, documents, onContent });
  try {
    return await work({ upload, onContent });
  } catch (error) {
    await upload.settle();
    await removeObjects(name, error, world);
    throw error;
  }
}

/** Everything up to the last segment; the backup lacks only its documents then. */
async function copyAll(
  running: Running,
  parts: Parts,
  settings: RemotePushSettings,
  world: PushWorld,
): Promise<BackupDescription> {
  const { name, base, backup, facts, documents, archive } = running;
  const { log, clock } = world;
  using manifest = new Spool(settings.spoolDirectory);
  const entries = await receiveAll(running, { ...parts, manifest }, settings, world);
  await requireDropped(entries.emptyTablespaces, settings.connection, world);
  log.info("all files are read", { backup: name, files: documents.fileCount });
  const { start, end } = backup;
  requireOneTimeline(running);
  const segmentBytes = facts.walSegmentBytes;
  const range = {
    timeline: start.timeline,
    first: segmentNumberOf(start.lsn, segmentBytes),
    last: segmentOfEnd(end.lsn, segmentBytes),
    segmentBytes,
  };
  const stopTimeoutMs = lastSegmentTimeoutMs(facts, settings.stopTimeoutMs);
  const steps = [
    () => parts.upload.finish(),
    (options: CallOptions) => requireArrival(range, { ...archive, ...options }, stopTimeoutMs),
    (options: CallOptions) => putManifest(name, manifest, settings, { ...world, ...options }),
    async (options: CallOptions) => {
      if (!settings.hasFilesMetadata || !settings.hasDatabaseNames) return;
      await collectDatabaseNames(documents, { ...settings, log, ...options });
    },
  ];
  await boundedParallel(steps, steps.length, (step, options) => step(options), world);
  return {
    ...settings,
    name,
    startLsn: start.lsn,
    stopLsn: end.lsn,
    startTimeNs: running.startTimeNs,
    finishTimeNs: timeNsOf(clock.now()),
    systemId: facts.systemId,
    versionNumber: facts.versionNumber,
    dataDirectory: facts.dataDirectory,
    contentBytes: documents.contentBytes,
    storedBytes: parts.upload.storedBytes,
    catalogBytes: entries.catalogBytes,
    tablespaces: entries.tablespaces,
    hasChecksums: facts.hasDataChecksums,
    base: base === undefined ? undefined : baseRecord(base),
    own: {
      isRemote: true,
      changeSource: base === undefined ? undefined : REMOTE_CHANGES,
      ...(settings.isPageVerified && facts.hasDataChecksums ? { isPagesVerified: true } : {}),
    },
  };
}

interface CallOptions {
  readonly signal: AbortSignal;
}

/** Receives, checks and packs all that the server sends. */
async function receiveAll(
  running: Running,
  { upload, onContent, manifest }: Parts & { readonly manifest: Spool },
  settings: RemotePushSettings,
  world: PushWorld,
): Promise<RemoteEntries> {
  const { base, backup, facts, documents } = running;
  const limit = rateKib(settings) === undefined ? settings.diskRateBytesPerSecond : undefined;
  const rateLimit = limit === undefined ? undefined : new RateLimit(limit, world.clock);
  const entries = new RemoteEntries({
    backup,
    majorVersion: facts.majorVersion,
    directoryMode: running.directoryMode,
    check: await ServerManifestCheck.create(serverHash(settings.hash)),
    manifest,
    documents,
    baseFiles: base?.files,
    signal: world.signal,
  });
  const all = entries.entries();
  await upload.packStreamed(async (part) => {
    const first = await all.next();
    if (first.done === true) return undefined;
    return new EntryPacker(first.value, all, {
      ...settings,
      part,
      documents,
      hasher: await createHasher(settings.hash),
      onContent,
      async onReceived(sizeBytes) {
        await rateLimit?.take(sizeBytes, world);
      },
      signal: world.signal,
    });
  });
  const { extension } = settings.codec;
  const hasher = await createHasher(settings.hash);
  const ownPart = { documents, hasher, extension, owner: { uid: 0, gid: 0 } };
  const stop: BackupStop = {
    stopLsn: backup.end.lsn,
    backupLabel: fullLabel(entries.special(LABEL_PATH).toString(), base),
    tablespaceMap: entries.tablespaceMap,
  };
  upload.putTar(packControl(entries.special(CONTROL_FILE), ownPart));
  upload.putTar(packLabel(stop, backup.start.lsn, ownPart));
  return entries;
}

/**
 * The label of what a restore puts together: a server does not start from one that tells of a base.
 *
 * @source read_backup_label, src/backend/access/transam/xlogrecovery.c
 */
function fullLabel(text: string, base: LoadedBase | undefined): string {
  const { incrementalFrom, ...label } = parseBackupLabel(text);
  if (incrementalFrom?.lsn !== base?.choice.startLsn) {
    throw new DatabaseError(
      `the server's backup is based on ${textOf(incrementalFrom?.lsn)}, ` +
        `asked was for ${textOf(base?.choice.startLsn)}`,
    );
  }
  return incrementalFrom === undefined ? text : formatBackupLabel(label);
}

function textOf(position: Lsn | undefined): string {
  return position === undefined ? "nothing" : formatLsn(position);
}

/** The end must be on the timeline of the start: the WAL of one is waited for. */
function requireOneTimeline({ backup: { start, end } }: Running): void {
  if (start.timeline === end.timeline) return;
  throw new RefusedError(
    `the server went over from timeline ${start.timeline} to ${end.timeline} during the backup`,
    { hint: "Take the backup again." },
  );
}

/** Keeps PostgreSQL's manifest beside the parts. */
async function putManifest(
  name: BackupName,
  manifest: Spool,
  { zstd }: RemotePushSettings,
  { storage, signal }: PushWorld,
): Promise<void> {
  const open = () => zstd.compress(manifest.read(), { jobs: 1, signal });
  await storage.put(serverManifestKey(name), { isReopenable: true, open }, { signal });
}
