import type { BackupName } from "./backup-name.ts";
import { Fields } from "./fields.ts";
import { formatJson, parseJson } from "./json.ts";
import { jsonObject, type JsonValue } from "./json-value.ts";
import { DATE_FORMAT } from "./sentinel.ts";
import { formatTimeUtc, type TimeNs } from "./time.ts";

/** metadata.json: what a listing shows of a backup, and whether it is kept for ever. */
export interface BackupMetadata {
  readonly startTimeNs: TimeNs;
  readonly finishTimeNs: TimeNs;
  readonly hostname: string;
  readonly dataDirectory: string;
  /** server_version_num. */
  readonly pgVersion: number;
  readonly startLsn: bigint;
  readonly finishLsn: bigint;
  /** What counts, not the sentinel's: backup-mark changes it here only. */
  readonly isPermanent: boolean;
  readonly systemId?: bigint | undefined;
  readonly uncompressedBytes: number;
  readonly compressedBytes: number;
  readonly userData?: JsonValue | undefined;
}

/** The bytes that WAL-G would write for these values. */
export function formatMetadata(metadata: BackupMetadata): string {
  const object = jsonObject([
    ["start_time", formatTimeUtc(metadata.startTimeNs)],
    ["finish_time", formatTimeUtc(metadata.finishTimeNs)],
    ["date_fmt", DATE_FORMAT],
    ["hostname", metadata.hostname],
    ["data_dir", metadata.dataDirectory],
    ["pg_version", BigInt(metadata.pgVersion)],
    ["start_lsn", metadata.startLsn],
    ["finish_lsn", metadata.finishLsn],
    ["is_permanent", metadata.isPermanent],
    ["system_identifier", metadata.systemId ?? null],
    ["uncompressed_size", BigInt(metadata.uncompressedBytes)],
    ["compressed_size", BigInt(metadata.compressedBytes)],
    ["user_data", metadata.userData],
  ]);
  return formatJson(object, { escape: "go" });
}

/** Throws FormatError where a value is missing or has the wrong type. */
export function parseMetadata(backup: BackupName, text: string): BackupMetadata {
  const fields = new Fields(`metadata.json of ${backup}`, parseJson(text));
  return {
    startTimeNs: fields.required("start_time", fields.time("start_time")),
    finishTimeNs: fields.required("finish_time", fields.time("finish_time")),
    hostname: fields.string("hostname") ?? "",
    dataDirectory: fields.string("data_dir") ?? "",
    pgVersion: fields.required("pg_version", fields.integer("pg_version")),
    startLsn: fields.required("start_lsn", fields.uint64("start_lsn")),
    finishLsn: fields.required("finish_lsn", fields.uint64("finish_lsn")),
    isPermanent: fields.boolean("is_permanent") ?? false,
    systemId: fields.uint64("system_identifier"),
    uncompressedBytes: fields.integer("uncompressed_size") ?? 0,
    compressedBytes: fields.integer("compressed_size") ?? 0,
    userData: fields.value("user_data"),
  };
}
