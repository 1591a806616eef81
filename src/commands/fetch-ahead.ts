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

/** How PostgreSQL calls what it has restored. @source XLogFileRead, xlogrecovery.c */
const DESTINATION = "RECOVERYXLOG";

/**
 * The recovery that asks; undefined when nothing is to be fetched ahead: for other files than
 * segments, for who is no server (pg_rewind, a person), and when the settings say so. Never rejects.
 */
export async function recoveryOf(
  { name, destination }: WantedSegment,
  { config, log, self }: Context,
): Promise<Recovery | undefined> {
  if (config.prefetch.aheadMax <= 1 || self === undefined) return undefined;
  if (parseWalFileName(name)?.kind !== "segment") return undefined;
  const queue = queueIn(dirname(dirname(destination)));
  if (destination !== join(queue.walDirectory, DESTINATION)) return undefined;
  if (!existsSync(join(queue.dataDirectory, "postmaster.pid"))) return undefined;
  try {
    return { queue, spool: await prefetchSpool(queue.dataDirectory, config) };
  } catch (error) {
    // To be fast is no reason to fail.
    log.debug("nothing is fetched ahead", { reason: String(error) });
    return undefined;
  }
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
  const { askPrefetcher, putReadySegment } = await import("../archive/prefetch-client.ts");
  const request = { kind: "take", name, settings: self?.fingerprint ?? "" } as const;
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

/** Starts the prefetcher for what comes after this segment. Never throws. */
export function startPrefetcher(
  { name, recovery }: WantedSegment,
  { queue, spool }: Recovery,
  { log, self }: Context,
): void {
  const words = ["wal-prefetch", queue.dataDirectory, "--after", name];
  if (recovery !== undefined) words.push("--recovery", recovery);
  try {
    self?.startDetached(words, join(spool.path, "prefetch.log"));
  } catch (error) {
    log.debug("no prefetcher", { name: basename(name), reason: String(error) });
  }
}

const SWEEP_TIMEOUT_MS = 1000;

/** Removes what a killed prefetcher left after the recovery. Rejects only with the signal's reason. */
export async function sweepAhead(
  queue: ArchiveQueue,
  { config, log, signal }: Context,
): Promise<void> {
  try {
    const spool = await prefetchSpool(queue.dataDirectory, config);
    const { sweepPrefetched } = await import("../archive/prefetch-client.ts");
    await sweepPrefetched(queue, spool, { timeoutMs: SWEEP_TIMEOUT_MS, signal });
  } catch (error) {
    if (signal.aborted || !(error instanceof OperationError)) throw error;
    log.debug("nothing is swept", { reason: error.message });
  }
}
