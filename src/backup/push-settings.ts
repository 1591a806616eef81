import type { Codec } from "../codec/codec.ts";
import type { ConnectionSettings } from "../connection/target.ts";
import type { Clock } from "../io/clock.ts";
import type { HashAlgorithm } from "../io/hash.ts";
import type { Log } from "../io/log.ts";
import type { BackupName } from "../layout/backup-name.ts";
import type { JsonValue } from "../layout/json-value.ts";
import type { Lsn } from "../postgres/lsn.ts";
import type { Storage } from "../storage/storage.ts";
import type { Composer } from "./composer.ts";
import type { CorruptFile } from "./page-verifier.ts";
import type { IncrementRequest } from "./push-increment.ts";
import type { ProgressListener } from "./push-progress.ts";

export interface PushSettings {
  /** Absolute; must be the server's own. */
  readonly dataDirectory: string;
  readonly connection: ConnectionSettings;
  /** Through which wal-receive gets WAL, if it does. */
  readonly receiverSlot?: string | undefined;
  /** WALNUT_SERVER_NAME. */
  readonly serverName?: string | undefined;
  readonly codec: Codec;
  /** Writes our manifest. */
  readonly zstd: Codec;
  /** In the codec's own scale; absent = its default. */
  readonly level?: number | undefined;
  readonly codecJobs: number;
  /** Parts packed at the same time. */
  readonly partConcurrency: number;
  readonly thresholdBytes: number;
  /** Which files share a part; in their order unless told. Only with a data directory. */
  readonly composer?: Composer | undefined;
  /** Of reading the data directory. */
  readonly diskRateBytesPerSecond?: number | undefined;
  /** Of the files in our manifest. */
  readonly hash: HashAlgorithm;
  readonly hasFilesMetadata: boolean;
  /** Whether files_metadata.json names the tables, for partial restores. */
  readonly hasDatabaseNames: boolean;
  readonly isPermanent: boolean;
  /** Whether the backup may be an increment, and on what. */
  readonly increments: IncrementRequest;
  /** Absent: the backup resumes none, and can't be resumed. */
  readonly resume?: ResumeSettings | undefined;
  /** Only what a standby with all pages up to this position lacks; then it is no increment. */
  readonly catchUpFrom?: Lsn | undefined;
  /** Whether checksums of pages are verified, where the cluster has them. */
  readonly isPageVerified: boolean;
  readonly isEveryCorruptBlockListed: boolean;
  readonly userData?: JsonValue | undefined;
  /** How long the first segment may take to arrive in the repository. */
  readonly archiveCheckTimeoutMs: number;
  /** The same for the last one; 0 = without end. */
  readonly stopTimeoutMs: number;
  /** How often the session is asked whether it still lives; 0 = never. */
  readonly aliveCheckIntervalMs: number;
  /** Where wal-push keeps its notes of what the server's segments change, if it makes any. */
  readonly notesDirectory?: string | undefined;
  /** For temporary files; made if it is not there. */
  readonly spoolDirectory: string;
}

export interface PushWorld {
  readonly storage: Storage;
  readonly log: Log;
  readonly clock: Clock;
  readonly onProgress: ProgressListener;
  readonly signal: AbortSignal;
}

/** How a full backup is resumed after it was interrupted. */
export interface ResumeSettings {
  /** As `describeHolder` gives it. */
  readonly holder: string | undefined;
  /** What a dead process had sent to the store can't arrive later than this. */
  readonly settleMs: number;
  /** A backup that was begun longer ago is not resumed. */
  readonly maxAgeMs: number;
}

/** A backup that exists now: its sentinel is stored. */
export interface PushedBackup {
  readonly name: BackupName;
  readonly startLsn: bigint;
  readonly stopLsn: bigint;
  /** Absent for a full backup. */
  readonly baseName?: BackupName | undefined;
  readonly fileCount: number;
  /** Files that are as they were in the base. */
  readonly unchangedCount: number;
  readonly contentBytes: number;
  readonly storedBytes: number;
  /** Files of the cluster with damaged pages; the backup has them as they are. */
  readonly corruptFiles: readonly CorruptFile[];
}
