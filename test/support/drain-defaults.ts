import type { DrainOptions } from "../../src/archive/drain-options.ts";
import { codecOf } from "../../src/codec/table.ts";
import { systemClock } from "../../src/io/clock.ts";
import { silentLog } from "../../src/io/log.ts";

/** What most tests of a drainer leave as it is; its settings have the fingerprint "s". */
export const DRAIN_DEFAULTS = {
  codec: codecOf("zstd"),
  level: undefined,
  isLevelByNeed: false,
  codecJobs: 2,
  concurrency: 4,
  aheadMax: 8,
  isMarkingDone: false,
  timeoutMs: 10_000,
  idleMs: 300,
  settings: "s",
  log: silentLog,
  clock: systemClock,
} as const satisfies Partial<DrainOptions>;
