import { readRestartpoint } from "../connection/backup-session.ts";
import type { BaseBackup, ServerManifestHash } from "../connection/backup-stream.ts";
import { ReplicationError, type ReplicationSession } from "../connection/replication.ts";
import type { ServerFacts } from "../connection/server-facts.ts";
import { type Session, textColumn } from "../connection/session.ts";
import { readWalPosition } from "../connection/wal-position.ts";
import { CHUNK_BYTES, type ByteStream } from "../io/bytes.ts";
import { createHasher, type HashAlgorithm } from "../io/hash.ts";
import { lsn } from "../postgres/lsn.ts";
import {
  formatManifestChecksum,
  formatManifestEntry,
  formatManifestHead,
  formatManifestRange,
} from "../postgres/backup-manifest.ts";
import { parseTimelineHistory, type TimelineHistory } from "../postgres/timeline-history.ts";
import { parseSegmentName } from "../postgres/wal-file.ts";
import { parseBackupName } from "../layout/backup-name.ts";
import { readManifestLines, readSentinel } from "./backup-documents.ts";
import { findBase, type LoadedBase } from "./increment-origin.ts";
import type { IncrementSettings } from "./push-increment.ts";
import type { PushWorld } from "./push-settings.ts";

/** How the server finds changed blocks. */
export const REMOTE_CHANGES = "wal-summaries";

/** First release with UPLOAD_MANIFEST. */
const INCREMENTS_SINCE = 17;

export interface RemoteServer {
  readonly session: Session;
  readonly replication: ReplicationSession;
  readonly facts: ServerFacts;
}

/**
 * Chooses and reads the base of a remote backup; undefined for a full one, and the log says why.
 * Rejects with RefusedError for a named base that can't be used.
 */
export async function findRemoteBase(
  { session, replication, facts }: RemoteServer,
  { increments, hasFilesMetadata, isPermanent, hash, zstd }: IncrementSettings,
  world: PushWorld,
): Promise<LoadedBase | undefined> {
  if (increments.maxSteps === 0 || increments.fullReason !== undefined) return undefined;
  const reason = await whyNone(session, facts, hasFilesMetadata, world);
  if (reason !== undefined) {
    world.log.info(`Doing full backup: ${reason}`);
    return undefined;
  }
  const position = await readWalPosition(session, world);
  const server = {
    systemId: facts.systemId,
    majorVersion: facts.majorVersion,
    history: await readHistory(replication, position.timeline, world),
    // A standby's backup begins earlier than where it stands.
    currentLsn: facts.isInRecovery ? await readRestartpoint(session, world) : position.lsn,
    hasChecksums: facts.hasDataChecksums,
    hash,
  };
  return await findBase({ ...increments, isPermanent }, server, { ...world, zstd });
}

async function whyNone(
  session: Session,
  { majorVersion }: ServerFacts,
  hasFilesMetadata: boolean,
  world: PushWorld,
): Promise<string | undefined> {
  if (!hasFilesMetadata) return "without files_metadata.json WAL-G could not read an increment";
  if (majorVersion < INCREMENTS_SINCE) {
    return `remote increments need PostgreSQL ${INCREMENTS_SINCE}, the server is ${majorVersion}`;
  }
  const row = await session.row("SELECT current_setting('summarize_wal') AS is_on", world);
  return textColumn(row, "is_on") === "on" ? undefined : "summarize_wal is off on the server";
}

async function readHistory(
  replication: ReplicationSession,
  timeline: number,
  world: PushWorld,
): Promise<TimelineHistory> {
  const text = timeline === 1 ? undefined : await replication.timelineHistory(timeline, world);
  if (text === undefined) return { timeline, ancestors: [] };
  return parseTimelineHistory(text.toString(), timeline);
}

export interface RemoteStart {
  /** Absent for a full backup. */
  readonly base: LoadedBase | undefined;
  readonly rateKib: number | undefined;
  readonly isPageVerified: boolean;
  readonly hash: HashAlgorithm;
  readonly zstd: IncrementSettings["zstd"];
}

export interface StartedRemote {
  readonly backup: BaseBackup;
  /** Absent for a full backup, also where an increment was wanted and the server can't make it. */
  readonly base: LoadedBase | undefined;
}

/** Which hash the server writes into its manifest: ours where it can, else its cheapest. */
export function serverHash(hash: HashAlgorithm): ServerManifestHash {
  return hash === "sha256" ? "SHA256" : "CRC32C";
}

/** Starts the backup; makes it a full one where the server can't make the increment. */
export async function startRemote(
  { replication, facts }: RemoteServer,
  wanted: RemoteStart,
  world: PushWorld,
): Promise<StartedRemote> {
  const { log, clock } = world;
  const request = {
    majorVersion: facts.majorVersion,
    label: `walnut ${new Date(clock.now()).toISOString()}`,
    maxRateKib: wanted.rateKib,
    manifestHash: serverHash(wanted.hash),
    isPageVerified: wanted.isPageVerified,
  };
  const options = {
    signal: world.signal,
    onNotice: ({ message }: { readonly message: string }) =>
      log.warning("the server says", { message }),
  };
  const { base } = wanted;
  if (base !== undefined) {
    try {
      await replication.uploadManifest(manifestOf(base, facts, wanted, world), options);
      const backup = await replication.startBaseBackup({ ...request, isIncrement: true }, options);
      log.info(`Delta backup from ${base.choice.name}`, {
        steps: base.choice.stepCount,
        changes: REMOTE_CHANGES,
      });
      return { backup, base };
    } catch (error) {
      if (!(error instanceof ReplicationError)) throw error;
      log.warning("Doing full backup: the server can't make an increment", {
        base: base.choice.name,
        reason: error.message,
      });
    }
  }
  const backup = await replication.startBaseBackup({ ...request, isIncrement: false }, options);
  return { backup, base: undefined };
}

/**
 * The base as the server wants to know it: the names of the files that the chain can give, and the
 * WAL that it needs. From our manifest, so that any backup of ours can be a base.
 */
async function* manifestOf(
  { choice }: LoadedBase,
  { systemId, walSegmentBytes }: ServerFacts,
  { zstd }: RemoteStart,
  { storage, signal }: PushWorld,
): ByteStream {
  const { finishLsn = choice.startLsn } = await readSentinel(storage, choice.name, { signal });
  const { segment } = parseBackupName(choice.name);
  const { timeline } = parseSegmentName(segment, walSegmentBytes);
  const sha256 = await createHasher("sha256");
  let text = formatManifestHead(systemId);
  let isFirst = true;
  for await (const line of readManifestLines(storage, choice.name, { zstd, signal })) {
    if (line.kind !== "file" && line.kind !== "unchanged") continue;
    const path = line.name.replace(/^\//, "");
    text += formatManifestEntry({ path, sizeBytes: line.sizeBytes }, isFirst);
    isFirst = false;
    if (text.length < CHUNK_BYTES) continue;
    const bytes = Buffer.from(text);
    sha256.update(bytes);
    yield bytes;
    text = "";
  }
  text += formatManifestRange({ timeline, startLsn: choice.startLsn, endLsn: lsn(finishLsn) });
  sha256.update(Buffer.from(text));
  yield Buffer.from(text + formatManifestChecksum(sha256.digest()));
}
