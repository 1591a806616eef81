import { mergeBackup, type MergedBackup, type MergeSettings } from "../../src/backup/merge.ts";
import { planMerge } from "../../src/backup/merge-plan.ts";
import { readChain } from "../../src/backup/restore-chain.ts";
import { codecOf } from "../../src/codec/table.ts";
import { systemClock } from "../../src/io/clock.ts";
import { describeHolder } from "../../src/io/process-identity.ts";
import { silentLog } from "../../src/io/log.ts";
import type { Storage } from "../../src/storage/storage.ts";

export interface MergeChange extends Partial<MergeSettings> {
  readonly spoolDirectory: string;
  readonly signal?: AbortSignal;
}

/**
 * Merges a chain within this process, which leaves a claim as of one that is gone; into
 * uncompressed parts of one MiB unless told.
 */
export async function mergeInto(
  storage: Storage,
  backup: string,
  { signal = AbortSignal.timeout(600_000), ...settings }: MergeChange,
): Promise<MergedBackup> {
  const plan = planMerge(await readChain(storage, backup, { signal }));
  const world = { storage, log: silentLog, clock: systemClock, onProgress: () => {}, signal };
  const all = {
    codec: codecOf("none"),
    zstd: codecOf("zstd"),
    codecJobs: 1,
    thresholdBytes: 1024 ** 2,
    hash: "xxh64",
    isPermanent: false,
    holder: describeHolder()?.replace(/^\d+/, "4194305"),
    abandonedAfterMs: 3_600_000,
    ...settings,
  } as const;
  return await mergeBackup(plan, all, world);
}
