import { listReady, type ArchiveQueue } from "../archive/archive-status.ts";
import { forgetGap, listLocalGaps, recordGap, shipGaps } from "../archive/gaps.ts";
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
const OWN_FAULTS: ReadonlySet<ErrorCode> = new Set(["usage", "config", "wrong-key", "interrupted"]);

/**
 * Pushes, and gives the segment up if that fails while more WAL waits than is allowed: the gap is
 * recorded durably before the call succeeds. Nothing but segments is ever given up.
 */
export async function pushOrDrop(
  wal: { readonly path: string; readonly name: string },
  { queue, spool, dropAboveBytes }: DropPlace,
  context: Context,
  push: (context: Context) => Promise<void>,
): Promise<void> {
  const { config, log, clock, signal } = context;
  const identity = await readFileIdentity(wal.path);
  const waitingBytes = (await listReady(queue)).size * Number(identity.sizeBytes);
  const isSegment = parseWalFileName(wal.name)?.kind === "segment";
  if (!isSegment || waitingBytes <= dropAboveBytes) {
    await push(context);
    return await shipRecorded(spool, wal.name, context);
  }
  const walTimeoutMs = Math.min(config.walTimeoutMs, OVERFULL_TIMEOUT_MS);
  try {
    await push({ ...context, config: { ...config, walTimeoutMs } });
    return await shipRecorded(spool, wal.name, context);
  } catch (error) {
    if (!(error instanceof OperationError) || OWN_FAULTS.has(error.code)) throw error;
    const systemId = identity.systemId === "" ? undefined : BigInt(identity.systemId);
    const gap = { name: wal.name, systemId, atMs: clock.now(), reason: error.message };
    await recordGap(spool.gaps, gap, { signal });
    log.error("WAL SEGMENT GIVEN UP: it is not in the archive and PostgreSQL will remove it", {
      wal: wal.name,
      waitingBytes,
      allowedBytes: dropAboveBytes,
      reason: error.message,
      hint: "No recovery gets past this segment. Take a new base backup once the store works again.",
    });
  }
}

/** The store works: it is told of what was given up before. */
async function shipRecorded(spool: Spool, name: string, context: Context): Promise<void> {
  const { log, signal } = context;
  if ((await listLocalGaps(spool.gaps)).length === 0) return;
  try {
    await forgetGap(spool.gaps, name);
    await using storage = await context.openStorage();
    const names = await shipGaps(storage, spool.gaps, { signal });
    if (names.length === 0) return;
    log.warning("the archive has gaps since the store was away: take a new base backup", {
      first: names[0],
      count: names.length,
    });
  } catch (error) {
    if (!(error instanceof OperationError)) throw error;
    // This file is stored; the record stays for the next call.
    log.warning("gaps could not be recorded in the store", { reason: error.message });
  }
}
