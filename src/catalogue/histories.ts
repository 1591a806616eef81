import { HISTORY_BYTES_MAX } from "../archive/local-wal.ts";
import { readStoredWal, type StoredWal } from "../archive/stored-wal.ts";
import { readAll } from "../io/bytes.ts";
import { parseWalKey } from "../layout/keys.ts";
import { parseTimelineHistory, type TimelineHistory } from "../postgres/timeline-history.ts";
import { parseWalFileName } from "../postgres/wal-file.ts";
import { readSoundly } from "../storage/copies.ts";
import type { CallOptions, ObjectKey, Storage } from "../storage/storage.ts";
import { faultText } from "./finding.ts";

/** A history file in the archive. */
export interface StoredHistory {
  readonly timeline: number;
  readonly key: ObjectKey;
  /** Absent when it can't be read; `problem` says why. */
  readonly history?: TimelineHistory | undefined;
  readonly problem?: string | undefined;
}

/** Reads these history files; what can't be read has a `problem`. A store that fails is no such. */
export async function readStoredHistories(
  storage: Storage,
  keys: readonly ObjectKey[],
  options: CallOptions,
): Promise<readonly StoredHistory[]> {
  const histories: StoredHistory[] = [];
  for (const key of keys) histories.push(await readOne(storage, key, options));
  return histories;
}

async function readOne(
  storage: Storage,
  key: ObjectKey,
  options: CallOptions,
): Promise<StoredHistory> {
  const { name, extension } = parseWalKey(key) ?? { name: "", extension: "" };
  const timeline = parseWalFileName(name)?.timeline ?? 0;
  try {
    const history = await readSoundly(storage, async (one) =>
      parseTimelineHistory(await readText(one, { key, extension }, options), timeline),
    );
    return { timeline, key, history };
  } catch (error) {
    return { timeline, key, problem: faultText(error) };
  }
}

async function readText(
  storage: Storage,
  stored: StoredWal,
  { signal }: CallOptions,
): Promise<string> {
  const content = readStoredWal(storage, stored, { codecJobs: 1, signal });
  return (await readAll(content, HISTORY_BYTES_MAX)).toString("utf8");
}
