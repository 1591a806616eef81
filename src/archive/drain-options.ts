import type { Codec } from "../codec/codec.ts";
import type { Clock } from "../io/clock.ts";
import type { Log } from "../io/log.ts";
import type { Storage } from "../storage/storage.ts";
import type { ArchiveQueue } from "./archive-status.ts";
import type { LastCycle } from "./last-cycle.ts";
import type { PushWitness } from "./push.ts";
import type { Spool } from "./spool-directory.ts";

/** What a drainer works on, with what, and within which limits. */
export interface DrainOptions extends PushWitness {
  readonly queue: ArchiveQueue;
  readonly spool: Spool;
  /** Called until it succeeds; the storage is kept and closed at the end. */
  readonly openStorage: () => Promise<Storage>;
  readonly codec: Codec;
  /** In the codec's scale; undefined = its default. */
  readonly level: number | undefined;
  /** zstd's level follows the backlog. */
  readonly isLevelByNeed: boolean;
  readonly codecJobs: number;
  readonly concurrency: number;
  /** Files that may be ahead of PostgreSQL. */
  readonly aheadMax: number;
  /** Rename `.ready` to `.done` ourselves, for `aheadMax` files from one call to the next. */
  readonly isMarkingDone: boolean;
  readonly cacheDirectory: string;
  readonly serverName?: string | undefined;
  /** Begins the backup that a gap asks for, see GAP.md; absent where none is wanted. */
  readonly onBackupWanted?: (() => Promise<void>) | undefined;
  /** For one push. */
  readonly timeoutMs: number;
  readonly lastCycle?: LastCycle | undefined;
  /** Ends when there was nothing to do for so long. */
  readonly idleMs: number;
  /** Of the settings; calls with others are declined. */
  readonly settings: string;
  /**
   * Whether the files that they come from are as they were; absent where somebody else takes care
   * of that. Asked before each note.
   */
  readonly isCurrent?: (() => boolean) | undefined;
  /** Whoever started us pushes this file by itself. */
  readonly except?: string | undefined;
  readonly log: Log;
  readonly clock: Clock;
  readonly signal: AbortSignal;
}
