import { listReady, type ArchiveQueue } from "../archive/archive-status.ts";
import { isFollower, readLocalControl } from "../archive/local-control.ts";
import {
  forgetGap,
  listBackupWishes,
  listLocalGaps,
  recordGap,
  shipGaps,
} from "../archive/gaps.ts";
import type { Spool } from "../archive/spool-directory.ts";
import { type ErrorCode, OperationError } from "../errors.ts";
import { readFileIdentity } from "../archive/push-note.ts";
import { parseWalFileName } from "../postgres/wal-file.ts";
import type { Context } from "./command.ts";

export interface DropPlace {
  readonly queue: ArchiveQueue;
  readonly spool: Spool;
  readonly dropAboveBytes: number;
}

/** How long a push may take while too much waits: one call must not outlast the disk. */
const OVERFULL_TIMEOUT_MS = 10_000;

/** What the administrator has to mend, or asked for; nothing is given up for it. */
const OWN_FAULTS: ReadonlySet<ErrorCode> = new Set([
  "usage",
  "config",
  "wrong-key",
  "interrupted",
  "stopping",
]);

/** What becomes of a file that can't be stored while too much waits. */
const GIVEN_UP = {
  segment: {
    text: "WAL SEGMENT GIVEN UP: it is not in the archive and PostgreSQL will remove it",
    hint: "No recovery gets past this segment.",
  },
  history: {
    text: "the history of a timeline is put off: it stays in pg_wal",
    hint: "It is stored before the next segment of its timeline.",
  },
  other: {
    text: "a file that no recovery needs was given up",
    hint: "Segments wait behind it. PostgreSQL will remove it.",
  },
};

function nextStep(isBackedUp: boolean): string {
  return isBackedUp
    ? "a full backup is begun by itself, `walnut gap-backup --status` tells how far it is"
    : "take a new base backup";
}

/**
 * Pushes, and gives the file up if that fails while more WAL waits than is allowed: PostgreSQL
 * hands over nothing else as long as it fails. The gap that a segment leaves is recorded durably
 * before the call succeeds.
 */
export async function pushOrDrop(
  wal: { readonly path: string; readonly name: string },
  { queue, spool, dropAboveBytes }: DropPlace,
  context: Context,
  push: (context: Context) => Promise<void>,
): Promise<void> {
  const { config, log, clock, signal } = context;
  const file = parseWalFileName(wal.name);
  const control = await readLocalControl(queue.dataDirectory);
  const identity = await readFileIdentity(wal.path);
  const segmentBytes = control?.walSegmentBytes ?? Number(identity.sizeBytes);
  const waitingBytes = (await listReady(queue)).size * segmentBytes;
  if (file === undefined || waitingBytes <= dropAboveBytes) {
    await push(context);
    return await shipRecorded(wal, { queue, spool }, context);
  }
  const walTimeoutMs = Math.min(config.walTimeoutMs, OVERFULL_TIMEOUT_MS);
  try {
    await push({ ...context, config: { ...config, walTimeoutMs } });
    return await shipRecorded(wal, { queue, spool }, context);
  } catch (error) {
    if (!(error instanceof OperationError) || OWN_FAULTS.has(error.code)) throw error;
    const { message: reason } = error;
    const isSegment = file.kind === "segment";
    if (isSegment) {
      const systemId = identity.systemId === "" ? undefined : BigInt(identity.systemId);
      const isCopy =
        control !== undefined && (await isFollower(control, queue.walDirectory, file.timeline));
      const gap = { name: wal.name, systemId, atMs: clock.now(), reason, isCopy };
      await recordGap(spool.gaps, gap, { signal });
    }
    const { text, hint: effect } =
      GIVEN_UP[isSegment || file.kind === "history" ? file.kind : "other"];
    const isBackedUp = config.archiveQueue.isGapBackedUp;
    const then = `Once the store works again: ${nextStep(isBackedUp)}.`;
    const hint = isSegment ? `${effect} ${then}` : effect;
    const allowedBytes = dropAboveBytes;
    log.error(text, { wal: wal.name, waitingBytes, allowedBytes, reason, hint });
  }
}

/**
 * The store works, it has just taken this file: it is told of what was given up before, and the
 * backup is begun that this asks for.
 */
export async function shipRecorded(
  wal: { readonly name: string },
  place: Omit<DropPlace, "dropAboveBytes">,
  context: Context,
): Promise<void> {
  await tellStore(wal, place, context);
  if ((await listBackupWishes(place.spool.gaps)).length === 0) return;
  const { startGapBackup } = await import("./gap-backup.ts");
  await startGapBackup(place, context);
}

async function tellStore(
  { name }: { readonly name: string },
  { queue, spool }: Omit<DropPlace, "dropAboveBytes">,
  context: Context,
): Promise<void> {
  const { config, log, signal } = context;
  const { serverName, isGapBackedUp: isBackupWanted } = config.archiveQueue;
  if ((await listLocalGaps(spool.gaps)).length === 0) return;
  try {
    await forgetGap(spool.gaps, name);
    await using storage = await context.openStorage("archive");
    const owner = { ...queue, serverName, isBackupWanted };
    const names = await shipGaps(storage, spool.gaps, owner, { signal });
    if (names.length === 0) return;
    log.warning(`the archive has gaps since the store was away: ${nextStep(isBackupWanted)}`, {
      first: names[0],
      count: names.length,
    });
  } catch (error) {
    if (!(error instanceof OperationError)) throw error;
    // This file is stored; the record stays for the next call.
    log.warning("gaps could not be recorded in the store", { reason: error.message });
  }
}
