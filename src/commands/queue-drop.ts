import { listReady, type ArchiveQueue } from "../archive/archive-status.ts";
import { isFollower, readLocalControl } from "../archive/local-control.ts";
import { readHead } from "../archive/local-wal.ts";
import {
  forgetGap,
  listBackupWishes,
  listLocalGaps,
  recordGap,
  shipGaps,
} from "../archive/gaps.ts";
import type { Spool } from "../archive/spool-directory.ts";
import { keepSpares } from "../archive/spare-records.ts";
import { forgetAway, noteAway, readAway } from "../archive/store-away.ts";
import {
  DeadlineError,
  type ErrorCode,
  FormatError,
  LocalFileError,
  OperationError,
  StorageError,
} from "../errors.ts";
import type { PgControl } from "../postgres/pg-control.ts";
import { parseWalFileName } from "../postgres/wal-file.ts";
import { checkSegmentStart } from "../postgres/wal-segment.ts";
import type { Context } from "./command.ts";

interface Wal {
  readonly path: string;
  readonly name: string;
}

type Push = (context: Context) => Promise<void>;

export interface DropPlace {
  readonly queue: ArchiveQueue;
  readonly spool: Spool;
  readonly dropAboveBytes: number;
}

interface Limit extends Pick<DropPlace, "spool" | "dropAboveBytes"> {
  /** Bytes of the files that are ready. */
  readonly countWaiting: () => Promise<number>;
}

/** How long a push may take while too much waits: one call must not outlast the disk. */
const OVERFULL_TIMEOUT_MS = 10_000;
/** How often a push that takes longer looks at what waits behind it. */
const LOOK_MS = 500;

/** What the administrator has to mend, or asked for; nothing is given up for it. */
const OWN_FAULTS: ReadonlySet<ErrorCode> = new Set([
  "usage",
  "config",
  "wrong-key",
  "interrupted",
  "stopping",
]);

/** What the next segment would find as well. */
const AWAY: ReadonlySet<ErrorCode> = new Set(["storage", "access", "deadline"]);

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
  wal: Wal,
  { queue, spool, dropAboveBytes }: DropPlace,
  context: Context,
  push: Push,
): Promise<void> {
  const { log, clock } = context;
  const file = parseWalFileName(wal.name);
  const control = await readLocalControl(queue.dataDirectory);
  const segmentBytes = control?.walSegmentBytes ?? (await readHead(wal.path)).sizeBytes;
  const countWaiting = async () => (await listReady(queue)).size * segmentBytes;
  await keepSpares(spool.gaps);
  const startMs = clock.monotonicMs();
  try {
    await pushInTime({ spool, dropAboveBytes, countWaiting }, context, push);
    await forgetAway(spool);
  } catch (error) {
    if (!(error instanceof OperationError) || OWN_FAULTS.has(error.code)) throw error;
    const waitingBytes = await countWaiting();
    if (file === undefined || waitingBytes <= dropAboveBytes) throw error;
    const { message: reason } = error;
    const tookMs = clock.monotonicMs() - startMs;
    if (AWAY.has(error.code)) await noteAway(spool, { tookMs, reason }, clock);
    const isSegment = file.kind === "segment";
    if (isSegment) await record(wal, { queue, spool, control, reason }, context);
    const { text, hint: effect } =
      GIVEN_UP[isSegment || file.kind === "history" ? file.kind : "other"];
    const isBackedUp = context.config.archiveQueue.isGapBackedUp;
    const then = `Once the store works again: ${nextStep(isBackedUp)}.`;
    const hint = isSegment ? `${effect} ${then}` : effect;
    const allowedBytes = dropAboveBytes;
    return log.error(text, { wal: wal.name, waitingBytes, allowedBytes, reason, hint });
  }
  await shipRecorded(wal, { queue, spool }, context);
}

/**
 * Pushes with as much time as the queue allows: while too much waits a push has ten seconds, and
 * none at all as long as the store is known to be away. So pg_wal grows by little more than what
 * is written in these seconds, however fast that is.
 */
async function pushInTime(place: Limit, context: Context, push: Push): Promise<void> {
  const { spool, dropAboveBytes, countWaiting } = place;
  const { config, clock } = context;
  const awayReason = await readAway(spool, clock);
  if ((await countWaiting()) <= dropAboveBytes) {
    const patienceMs = awayReason === undefined ? OVERFULL_TIMEOUT_MS : 0;
    return await pushWhileRoom(place, { patienceMs }, context, push);
  }
  if (awayReason !== undefined) {
    throw new StorageError(`not tried again so soon: ${awayReason}`, { isRetryable: false });
  }
  const walTimeoutMs = Math.min(config.walTimeoutMs, OVERFULL_TIMEOUT_MS);
  const limited = { ...context, config: { ...config, walTimeoutMs } };
  // A transfer that gets on would have its time again and again.
  await pushWhileRoom(place, { patienceMs: walTimeoutMs }, limited, push);
}

/** Pushes, and stops that when too much has waited for `patienceMs`. */
async function pushWhileRoom(
  { dropAboveBytes, countWaiting }: Limit,
  { patienceMs }: { readonly patienceMs: number },
  context: Context,
  push: Push,
): Promise<void> {
  const { clock, signal } = context;
  const pushed = new AbortController();
  const overfull = new AbortController();
  const watch = async (): Promise<void> => {
    let fullSinceMs: number | undefined;
    for (;;) {
      await clock.sleep(LOOK_MS, { signal: pushed.signal });
      const nowMs = clock.monotonicMs();
      fullSinceMs = (await countWaiting()) > dropAboveBytes ? (fullSinceMs ?? nowMs) : undefined;
      if (fullSinceMs === undefined || nowMs - fullSinceMs < patienceMs) continue;
      return overfull.abort(
        new DeadlineError("the store had not taken it when too much WAL waited"),
      );
    }
  };
  const watching = watch().catch((error: unknown) => {
    // The push goes on: one that fails is called again.
    if (!(error instanceof OperationError) && !pushed.signal.aborted) throw error;
  });
  try {
    await push({ ...context, signal: AbortSignal.any([signal, overfull.signal]) });
  } finally {
    pushed.abort();
    await watching;
  }
}

/** Writes the gap down durably. */
async function record(
  { path, name }: Wal,
  lost: Omit<DropPlace, "dropAboveBytes"> & {
    readonly control: PgControl | undefined;
    readonly reason: string;
  },
  { clock, signal }: Context,
): Promise<void> {
  const { queue, spool, control, reason } = lost;
  const timeline = parseWalFileName(name)?.timeline ?? 0;
  const isCopy = control !== undefined && (await isFollower(control, queue.walDirectory, timeline));
  const systemId = (await readOwnSystemId(path, name)) ?? control?.systemId;
  const gap = { name, systemId, atMs: clock.now(), reason, isCopy };
  await recordGap(spool.gaps, gap, { signal });
}

/** Undefined for a file that is damaged, or that the disk does not give any more. */
async function readOwnSystemId(path: string, name: string): Promise<bigint | undefined> {
  try {
    return checkSegmentStart((await readHead(path)).head, name).systemId;
  } catch (error) {
    if (error instanceof FormatError || error instanceof LocalFileError) return undefined;
    throw error;
  }
}

/**
 * The store works, it has just taken this file: it is told of what was given up before, and the
 * backup is begun that this asks for.
 */
export async function shipRecorded(
  wal: Pick<Wal, "name">,
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
