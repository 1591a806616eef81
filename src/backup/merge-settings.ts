import type { Codec } from "../codec/codec.ts";
import type { Clock } from "../io/clock.ts";
import type { HashAlgorithm } from "../io/hash.ts";
import type { Log } from "../io/log.ts";
import type { BackupName } from "../layout/backup-name.ts";
import type { JsonValue } from "../layout/json-value.ts";
import type { Storage } from "../storage/storage.ts";
import type { ProgressListener } from "./push-progress.ts";

export interface MergeSettings {
  readonly codec: Codec;
  /** Reads and writes our manifest. */
  readonly zstd: Codec;
  /** In the codec's own scale; absent = its default. */
  readonly level?: number | undefined;
  /** For compression; as many for decompression. */
  readonly codecJobs: number;
  readonly thresholdBytes: number;
  /** Of the files in our manifest, where the newest backup has none. */
  readonly hash: HashAlgorithm;
  readonly isPermanent: boolean;
  readonly userData?: JsonValue | undefined;
  /** Names this process to others that merge, as `describeHolder` does. */
  readonly holder: string | undefined;
  /** How long a merge that can't be seen from here counts as running. */
  readonly abandonedAfterMs: number;
  /** For temporary files, the changed pages among them; made if it is not there. */
  readonly spoolDirectory: string;
}

export interface MergeWorld {
  readonly storage: Storage;
  readonly log: Log;
  readonly clock: Clock;
  readonly onProgress: ProgressListener;
  readonly signal: AbortSignal;
}

/** A backup that exists now. */
export interface MergedBackup {
  readonly name: BackupName;
  /** The newest backup of the chain. */
  readonly mergedFrom: BackupName;
  readonly fileCount: number;
  /** Files that were put together of several backups. */
  readonly patchedCount: number;
  readonly contentBytes: number;
  readonly storedBytes: number;
}
