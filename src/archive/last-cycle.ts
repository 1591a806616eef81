import { readFile } from "node:fs/promises";
import { join } from "node:path";
import type { Clock } from "../io/clock.ts";
import type { StorageTraffic } from "../storage/traffic.ts";
import type { ArchiveQueue } from "./archive-status.ts";
import { readLocalControl } from "./local-control.ts";

/** Whose stop a push may hold up, and how it is known that the store does nothing for it. */
export interface LastCycle {
  readonly dataDirectory: string;
  readonly clock: Clock;
  /** When anything was last heard of the store, by the monotonic clock. */
  readonly heardAtMs: () => number;
  /** How long it may be silent; ten seconds unless given. */
  readonly patienceMs?: number;
}

/** What to tell of a push that was given up for it. */
export const STOP_HINT =
  "Nothing is lost: the file stays in pg_wal, and PostgreSQL archives it when it runs again. Until " +
  "then the archive lacks it. That the archive command failed with 201 ends the archiver, on purpose.";

/** A store that is silent for less may have much to do. */
const PATIENCE_MS = 10_000;
const LOOK_MS = 1000;

/** Undefined where nothing is known of what passes. */
export function lastCycleOf(
  { dataDirectory }: Pick<ArchiveQueue, "dataDirectory">,
  { traffic, clock }: { readonly traffic?: StorageTraffic; readonly clock: Clock },
): LastCycle | undefined {
  if (traffic === undefined) return undefined;
  return { dataDirectory, clock, heardAtMs: () => traffic.heardAtMs };
}

/**
 * Calls `onVain` once, with the milliseconds of silence, where the server waits for its archiver
 * only and nothing was heard of the store for ten seconds. PostgreSQL sends its archiver nothing in
 * a fast or smart stop that would end archive_command, and calls it up to six times more.
 *
 * @source process_pm_pmsignal, src/backend/postmaster/postmaster.c; pgarch_MainLoop, pgarch.c
 */
export function watchLastCycle(
  { dataDirectory, clock, heardAtMs, patienceMs = PATIENCE_MS }: LastCycle,
  onVain: (silentMs: number) => void,
): Disposable {
  const ended = new AbortController();
  const beganMs = clock.monotonicMs();
  const watch = async (): Promise<void> => {
    for (;;) {
      await clock.sleep(LOOK_MS, ended);
      const silentMs = clock.monotonicMs() - Math.max(beganMs, heardAtMs());
      if (silentMs < patienceMs || !(await isLastCycle(dataDirectory))) continue;
      if (!ended.signal.aborted) onVain(silentMs);
      return;
    }
  };
  // It rejects when it is ended.
  watch().catch(() => {});
  return { [Symbol.dispose]: () => ended.abort() };
}

/**
 * Whether the server of a data directory has written its last checkpoint and is still there: it
 * waits for its archiver, or for its standbys.
 *
 * @source PM_STATUS_STOPPING and LOCK_FILE_LINE_PM_STATUS, src/include/utils/pidfile.h; ShutdownXLOG
 */
export async function isLastCycle(dataDirectory: string): Promise<boolean> {
  try {
    const lines = (await readFile(join(dataDirectory, "postmaster.pid"), "utf8")).split("\n");
    if (lines[7]?.trim() !== "stopping") return false;
    const control = await readLocalControl(dataDirectory);
    return control !== undefined && SHUT_DOWN.has(control.state);
  } catch {
    // It has ended meanwhile, or these are none of PostgreSQL's files.
    return false;
  }
}

const SHUT_DOWN: ReadonlySet<string> = new Set(["shut down", "shut down in recovery"]);
