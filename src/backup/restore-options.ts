import type { Log } from "../io/log.ts";
import type { BackupName } from "../layout/backup-name.ts";
import type { DeltaPermissions } from "./restore-existing.ts";
import type { TablespaceChoices, TablespacePlan } from "./tablespace-plan.ts";

export interface RestoreOptions {
  readonly tablespaces: TablespaceChoices;
  /** Test of paths to restore; absent = everything. */
  readonly mask?: ((path: string) => boolean) | undefined;
  /** Parts that are read at the same time. */
  readonly downloadConcurrency: number;
  /** Of the machine; present where somebody asked for that concurrency: see parts-at-once.ts. */
  readonly memoryBytes?: number | undefined;
  /** Decompression jobs in all. */
  readonly codecJobs: number;
  /**
   * Present: the destination may be the data directory of a server that is stopped, of which only
   * what differs is written.
   */
  readonly delta?: DeltaPermissions | undefined;
  /** False only on request: then a power cut after the end may lose files. */
  readonly fsync: boolean;
  readonly log: Log;
  readonly signal: AbortSignal;
  /** `totalBytes` is absent when the backup does not tell. */
  onProgress(doneBytes: number, totalBytes: number | undefined): void;
}

export interface RestoreReport {
  readonly backup: BackupName;
  /** Absolute, links resolved. */
  readonly destination: string;
  readonly tablespaces: readonly TablespacePlan[];
  /** Content of files that were there already, from a restore that was killed. */
  readonly keptBytes: number;
  /** Content of files that were written. */
  readonly writtenBytes: number;
  /** Of a delta restore: what of that differed from what was there. */
  readonly changedBytes?: number | undefined;
  /** False when a mask left out what a server needs. */
  readonly isStartable: boolean;
}
