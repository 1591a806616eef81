/** A small repository in S3 as it is emulated, and `delete` on it. */
import { deleteCommand } from "../../src/commands/delete.ts";
import { openStorage } from "../../src/storage/open.ts";
import type { Storage } from "../../src/storage/storage.ts";
import { runCommand } from "../support/command-run.ts";
import { s3Config } from "../support/s3-config.ts";
import type { S3Emulation } from "../support/s3-emulation.ts";
import { segmentName, type World, type WorldBackup } from "./world.ts";

const { signal } = new AbortController();
const policy = { attempts: 4, baseMs: 1, capMs: 2, totalMs: 60_000 };

/** A full backup in one segment. */
export function backup(segment: number): WorldBackup {
  const startMs = Date.UTC(2026, 8, 1) + segment * 60_000;
  return {
    name: `base_${segmentName(1, segment)}`,
    timeline: 1,
    segment,
    lastSegment: segment,
    base: undefined,
    startMs,
    finishMs: startMs + 30_000,
    isPermanent: false,
    corruptPages: 0,
    hasControl: true,
    isSentinelThere: true,
  };
}

/** Two backups; between them as many objects of WAL as wanted. */
export function world(expired: number): World {
  const timeline = { id: 1, parent: 0, forkSegment: 1, holes: [], hasHistory: false };
  return {
    timelines: [{ ...timeline, endSegment: expired + 10 }],
    backups: [backup(2), backup(expired + 1)],
  };
}

/** With few and quick repetitions. */
export async function openEmulated(emulation: S3Emulation): Promise<Storage> {
  return await openStorage(s3Config(emulation, { prefix: "repo" }), {
    signal,
    requestTimeoutMs: 20_000,
    uploadConcurrency: 4,
    retryPolicy: policy,
  });
}

/** Below the prefix that `openEmulated` uses. */
export async function fill(
  emulation: S3Emulation,
  objects: ReadonlyMap<string, string>,
): Promise<void> {
  for (const [key, text] of objects) {
    emulation.objects.set(`repo/${key}`, { bytes: Buffer.from(text), etag: '"x"' });
  }
}

/** Confirmed. */
export const del = (storage: Storage, ...words: readonly string[]) =>
  runCommand(deleteCommand, storage, [...words, "--confirm"], {
    removal: { abandonedAfterMs: 3_600_000 },
  });
