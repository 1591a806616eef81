import { EncryptedStorage } from "../storage/encrypted.ts";
import type { QueueStatus } from "../storage/mirror-queue.ts";
import { MirroredStorage } from "../storage/mirrored.ts";
import type { Storage } from "../storage/storage.ts";
import { type JsonObject, jsonObject } from "../layout/json-value.ts";
import { formatTimeUtc, timeNsOf } from "../layout/time.ts";
import { formatSeconds } from "./progress.ts";

/** How far a mirror is behind, as this host knows. */
export interface MirrorStatus extends QueueStatus {
  /** As it is called in the settings. */
  readonly title: string;
  readonly storageName: string;
}

/** A mirror that is behind for so long is worth a look. */
const LATE_MS = 10 * 60_000;

/** None where nothing is mirrored. Rejects with LocalFileError. */
export async function readMirrorStatuses(storage: Storage): Promise<readonly MirrorStatus[]> {
  const stored = storage instanceof EncryptedStorage ? storage.sealed.storage : storage;
  const pairs = stored instanceof MirroredStorage ? stored.pairs : [];
  return await Promise.all(
    pairs.map(async ({ title, mirror, queue }) => ({
      ...(await queue.status()),
      title,
      storageName: mirror.name,
    })),
  );
}

/** "second: 4 changes are due, the oldest for 5 m". */
export function mirrorText({ title, notes, oldestAt, isOverflowing }: MirrorStatus, nowMs: number) {
  const all = isOverflowing ? ", and all objects have to be compared" : "";
  if (notes === 0) return `${title}: nothing is due${all}`;
  const seconds = Math.max(0, nowMs - (oldestAt ?? nowMs)) / 1000;
  const changes = notes === 1 ? "1 change is" : `${notes} changes are`;
  return `${title}: ${changes} due, the oldest for ${formatSeconds(seconds)}${all}`;
}

/** What somebody should look at. */
export function mirrorWarnings(
  status: MirrorStatus,
  nowMs: number,
): readonly { readonly code: string; readonly text: string }[] {
  const { title, storageName, notes, oldestAt, away, isOverflowing } = status;
  const place = `mirror ${title} (${storageName})`;
  const isLate = notes > 0 && nowMs - (oldestAt ?? nowMs) > LATE_MS;
  return [
    ...(away === undefined
      ? []
      : [
          {
            code: "mirror-away",
            text: `${place} could not be caught up at ${formatTimeUtc(timeNsOf(away.at))}: ${away.message}`,
          },
        ]),
    ...(isLate || isOverflowing
      ? [{ code: "mirror-behind", text: `${place} is behind: ${mirrorText(status, nowMs)}` }]
      : []),
  ];
}

/** For `info --json`. */
export function mirrorJson(status: MirrorStatus, nowMs: number): JsonObject {
  const { title, storageName, notes, oldestAt, isOverflowing, away } = status;
  const ageMs = oldestAt === undefined ? undefined : Math.max(0, nowMs - oldestAt);
  return jsonObject([
    ["name", title],
    ["store", storageName],
    ["due", BigInt(notes)],
    ["oldest_seconds", ageMs === undefined ? null : BigInt(Math.trunc(ageMs / 1000))],
    ["comparison_due", isOverflowing],
    [
      "away",
      away === undefined
        ? null
        : jsonObject([
            ["time", formatTimeUtc(timeNsOf(away.at))],
            ["text", away.message],
          ]),
    ],
  ]);
}
