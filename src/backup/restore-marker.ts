import { FormatError } from "../errors.ts";
import type { BackupName } from "../layout/backup-name.ts";
import { Fields } from "../layout/fields.ts";
import { formatJson, parseJson } from "../layout/json.ts";
import { jsonObject } from "../layout/json-value.ts";

/** Stands in the destination from the first step of a restore to the last; see RESTORE.md. */
export const RESTORE_MARKER_PATH = "global/pg_control.walnut";

/** What the last step makes of the marker: the file without which no server starts. */
export const CONTROL_PATH = "global/pg_control";

/** Stands in a tablespace location as long as a restore writes there. */
export const TABLESPACE_MARKER_NAME = "walnut_restore.json";

/** A restore that is under way, or was killed. */
export interface RestoreMarker {
  /** Random, the same in the markers of one restore and of its continuation. */
  readonly id: string;
  readonly backup: BackupName;
  /** The process that restores, as `describeProcess` gives it; absent where it is not known. */
  readonly process?: string | undefined;
  /** Absolute locations outside the destination that this restore writes to. */
  readonly locations: readonly string[];
}

const VERSION = 1n;
const BEGINNING = '{"walnut_restore":';

/** Text of the marker. */
export function formatRestoreMarker(marker: RestoreMarker): string {
  const object = jsonObject([
    ["walnut_restore", VERSION],
    ["id", marker.id],
    ["backup", marker.backup],
    ["process", marker.process],
    ["locations", marker.locations],
  ]);
  return `${formatJson(object)}\n`;
}

/** Throws FormatError for anything that `formatRestoreMarker` does not write. */
export function parseRestoreMarker(text: string): RestoreMarker {
  const fields = new Fields("restore marker", parseJson(text));
  const version = fields.value("walnut_restore");
  if (version !== VERSION) {
    throw new FormatError(`restore marker has not the version ${VERSION} that we know`);
  }
  const id = fields.required("id", fields.string("id"));
  if (!/^[0-9a-f]{32}$/.test(id)) throw new FormatError(`restore marker has a wrong id: ${id}`);
  return {
    id,
    backup: fields.required("backup", fields.string("backup")),
    process: fields.string("process"),
    locations: fields.required("locations", fields.strings("locations")),
  };
}

/** Size of the control file on disk. @source PG_CONTROL_FILE_SIZE, catalog/pg_control.h */
export const CONTROL_FILE_BYTES = 8192;

/** What the marker's bytes say: a restore under way, or one that only lacks its last rename. */
export function readRestoreMarker(
  bytes: Uint8Array,
): { readonly kind: "under way"; readonly marker: RestoreMarker } | { readonly kind: "finishing" } {
  const text = Buffer.from(bytes).toString();
  const isFinishing = bytes.length === CONTROL_FILE_BYTES && !text.startsWith(BEGINNING);
  return isFinishing
    ? { kind: "finishing" }
    : { kind: "under way", marker: parseRestoreMarker(text) };
}
