import { DamagedError, FormatError } from "../errors.ts";
import { readAll } from "../io/bytes.ts";
import { parseWalKey, WAL_FOLDER, walKey } from "../layout/keys.ts";
import type { Lsn } from "../postgres/lsn.ts";
import { parseTimelineHistory, switchPoint } from "../postgres/timeline-history.ts";
import { formatHistoryName, parseWalFileName } from "../postgres/wal-file.ts";
import { readSoundly } from "../storage/copies.ts";
import type { CallOptions, Storage } from "../storage/storage.ts";
import { HISTORY_BYTES_MAX } from "./local-wal.ts";
import { readStoredWal, type StoredWal } from "./stored-wal.ts";

/** A newer timeline that left another one. */
export interface TimelineFork {
  readonly timeline: number;
  /** Where it left. */
  readonly switchLsn: Lsn;
}

/** Sorts behind all names that begin with a timeline's digits. */
const BEHIND_TIMELINE = "~";

/**
 * Every timeline in the archive, with a number above `newerThan`, that descends from `timeline`, by
 * its history file. Asks once for each newer timeline, however many segments there are. Rejects
 * with DamagedError for a history that can't be read: it might be one of them.
 */
export async function listForks(
  storage: Storage,
  timeline: number,
  { newerThan = timeline, ...options }: CallOptions & { readonly newerThan?: number },
): Promise<readonly TimelineFork[]> {
  const forks: TimelineFork[] = [];
  for await (const [newer, stored] of newerHistories(storage, newerThan, options)) {
    const switchLsn = await readSwitchPoint(storage, { newer, stored, timeline }, options);
    if (switchLsn !== undefined) forks.push({ timeline: newer, switchLsn });
  }
  return forks;
}

async function* newerHistories(
  storage: Storage,
  timeline: number,
  options: CallOptions,
): AsyncGenerator<readonly [timeline: number, stored: StoredWal], void, undefined> {
  let startAfter = walKey(`${timelineDigits(timeline)}${BEHIND_TIMELINE}`, "");
  for (;;) {
    const found = await firstWal(storage, { ...options, startAfter });
    if (found === undefined) return;
    // "." sorts before all digits: the history is the first object of its timeline.
    if (found.isHistory) yield [found.timeline, found.stored];
    startAfter = walKey(`${timelineDigits(found.timeline)}${BEHIND_TIMELINE}`, "");
  }
}

async function firstWal(storage: Storage, options: CallOptions & { readonly startAfter: string }) {
  for await (const { key } of storage.list(WAL_FOLDER, options)) {
    const parsed = parseWalKey(key);
    const digits = /^[0-9A-F]{8}/.exec(parsed?.name ?? "")?.[0];
    if (parsed === undefined || digits === undefined) continue;
    return {
      timeline: Number.parseInt(digits, 16),
      isHistory: parseWalFileName(parsed.name)?.kind === "history",
      stored: { key, extension: parsed.extension },
    };
  }
  return undefined;
}

function timelineDigits(timeline: number): string {
  return formatHistoryName(timeline).slice(0, 8);
}

async function readSwitchPoint(
  storage: Storage,
  { newer, stored, timeline }: { newer: number; stored: StoredWal; timeline: number },
  { signal }: CallOptions,
): Promise<Lsn | undefined> {
  try {
    return await readSoundly(storage, async (one) => {
      const content = readStoredWal(one, stored, { codecJobs: 1, signal });
      const text = (await readAll(content, HISTORY_BYTES_MAX)).toString("utf8");
      return switchPoint(parseTimelineHistory(text, newer), timeline);
    });
  } catch (error) {
    if (!(error instanceof FormatError) && !(error instanceof RangeError)) throw error;
    throw new DamagedError(
      `object ${stored.key} in ${storage.name} is no timeline history: ${error.message}`,
      {
        cause: error,
        hint: "Store the file again from pg_wal of a server of that timeline, then try again.",
      },
    );
  }
}
