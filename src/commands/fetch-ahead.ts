import { existsSync } from "node:fs";
import { basename, dirname, join } from "node:path";
import { type ArchiveQueue, queueIn } from "../archive/archive-status.ts";
import type { TakeOutcome } from "../archive/prefetch-client.ts";
import { type Spool, spoolDirectory } from "../archive/spool-directory.ts";
import { OperationError } from "../errors.ts";
import { parseWalFileName } from "../postgres/wal-file.ts";
import type { Context } from "./command.ts";

/** A segment that a recovery asks for. */
export interface WantedSegment {
  readonly name: string;
  /** Absolute: pg_wal/RECOVERYXLOG of the server that recovers. */
  readonly destination: string;
  /** As setup's line names the recovery. */
  readonly recovery?: string | undefined;
}

/** The recovery around a wanted segment. */
export interface Recovery {
  readonly queue: ArchiveQueue;
  readonly spool: Spool;
}

/**
 * How PostgreSQL calls what it restores, by what it is.
 *
 * @source XLogFileRead, src/backend/access/transam/xlogrecovery.c; readTimeLineHistory, timeline.c
 */
const DESTINATIONS: ReadonlyMap<string, string> = new Map([
  ["segment", "RECOVERYXLOG"],
  ["history", "RECOVERYHISTORY"],
]);

/**
 * The recovery that asks; undefined for other files than segments, and for who is no server
 * (pg_rewind, a person). Rejects only with the signal's reason.
 */
export async function recoveryOf(
  wanted: WantedSegment,
  context: Context,
): Promise<Recovery | undefined> {
  const { config, log } = context;
  const queue = queueIn(dirname(dirname(wanted.destination)));
  const kind = parseWalFileName(wanted.name)?.kind;
  const isServer =
    wanted.destination === join(queue.walDirectory, DESTINATIONS.get(kind ?? "") ?? "none") &&
    existsSync(join(queue.dataDirectory, "postmaster.pid"));
  if (!isServer) return undefined;
  if (kind === "history") {
    if (isAheadWanted(context)) await beginAhead(wanted, queue, context);
    return undefined;
  }
  try {
    return { queue, spool: await prefetchSpool(queue.dataDirectory, config) };
  } catch (error) {
    if (!(error instanceof OperationError)) throw error;
    // To be fast is no reason to fail.
    log.debug("nothing is fetched ahead", { reason: error.message });
    return undefined;
  }
}

/** Whether the settings let segments be fetched ahead. */
export function isAheadWanted({ config, self }: Context): boolean {
  return config.prefetch.aheadMax > 1 && self !== undefined;
}

/**
 * A recovery begins: nothing that is left of another one may meet it. Where the data directory is
 * from a backup its first segment is known, and is fetched from now on. Rejects only with the
 * signal's reason.
 */
async function beginAhead(
  wanted: WantedSegment,
  queue: ArchiveQueue,
  context: Context,
): Promise<void> {
  const spool = await sweepAhead(queue, context);
  const { isBackup } = await import("../archive/recovery-watch.ts");
  if (spool !== undefined && isBackup(queue)) startPrefetcher(wanted, { queue, spool }, context);
}

/** The spool that holds what is fetched ahead. Rejects like spoolDirectory. */
export async function prefetchSpool(
  dataDirectory: string,
  { prefetch, archiveQueue, cacheDirectory }: Context["config"],
): Promise<Spool> {
  const configured = prefetch.directory ?? archiveQueue.spoolDirectory;
  return await spoolDirectory({ dataDirectory, configured, cacheDirectory });
}

/**
 * Puts the segment there if it was fetched ahead, or is being fetched: then the answer is "ready".
 * Otherwise the caller fetches it itself. Rejects only with the signal's reason.
 */
export async function takeAhead(
  { name, destination, recovery }: WantedSegment,
  { spool }: Recovery,
  { config, log, signal, self }: Context,
): Promise<TakeOutcome["kind"]> {
  const [{ askPrefetcher }, { putReadySegment }] = await Promise.all([
    import("../archive/prefetch-client.ts"),
    import("../archive/ready-segment.ts"),
  ]);
  const caller = self?.caller === undefined ? {} : { caller: self.caller };
  const request = { kind: "take", name, settings: self?.fingerprint ?? "", ...caller } as const;
  // What is left must do for a fetch of our own.
  const timeoutMs = config.walTimeoutMs / 2;
  const answer = await askPrefetcher(
    spool,
    recovery === undefined ? request : { ...request, recovery },
    { timeoutMs, signal },
  );
  if (answer.kind !== "ready") {
    log.debug("not fetched ahead", { wal: name, reason: answer.reason });
    return answer.kind;
  }
  try {
    await putReadySegment({ name, path: answer.path }, destination, { ...spool, signal });
    log.debug("fetched ahead", { wal: name });
    return "ready";
  } catch (error) {
    if (signal.aborted || !(error instanceof OperationError)) throw error;
    log.debug("not usable", { wal: name, reason: error.message });
    return "declined";
  }
}

/**
 * Starts the prefetcher for what comes after this segment or, for a history, for all that a backup
 * needs. Never throws.
 */
export function startPrefetcher(
  { name, recovery }: WantedSegment,
  { queue, spool }: Recovery,
  { log, self }: Context,
): void {
  const isSegment = parseWalFileName(name)?.kind === "segment";
  const from = isSegment ? ["--after", name] : ["--begin"];
  const words = ["wal-prefetch", queue.dataDirectory, ...from];
  if (recovery !== undefined) words.push("--recovery", recovery);
  try {
    self?.startDetached(words, join(spool.path, "prefetch.log"));
  } catch (error) {
    log.debug("no prefetcher", { name: basename(name), reason: String(error) });
  }
}

const SWEEP_TIMEOUT_MS = 1000;

/**
 * Removes what a killed prefetcher left, and gives where it was; undefined if one lives. Rejects
 * only with the signal's reason.
 */
export async function sweepAhead(
  { dataDirectory }: ArchiveQueue,
  { config, log, signal }: Context,
): Promise<Spool | undefined> {
  try {
    const spool = await prefetchSpool(dataDirectory, config);
    const { sweepPrefetched } = await import("../archive/prefetch-client.ts");
    const isAlone = await sweepPrefetched(spool, { timeoutMs: SWEEP_TIMEOUT_MS, signal });
    return isAlone ? spool : undefined;
  } catch (error) {
    if (signal.aborted || !(error instanceof OperationError)) throw error;
    log.debug("nothing is swept", { reason: error.message });
    return undefined;
  }
}
