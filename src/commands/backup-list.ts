import { type CatalogueEntry, listBackups } from "../backup/catalogue.ts";
import { DEFAULT_STORAGE } from "../config/failover-settings.ts";
import { isBackupName, parseBackupName } from "../layout/backup-name.ts";
import { formatJson, parseJson } from "../layout/json.ts";
import { isJsonObject, type JsonObject, jsonObject } from "../layout/json-value.ts";
import { type BackupMetadata, formatMetadata } from "../layout/metadata.ts";
import type { OwnRecord } from "../layout/sentinel.ts";
import { formatTimeUtc, timeMsOf, type TimeNs } from "../layout/time.ts";
import { formatLsn, lsn } from "../postgres/lsn.ts";
import type { Command } from "./command.ts";
import { warnOfGaps } from "./gap-warnings.ts";
import { indentJson } from "./indented-json.ts";
import { onlyStorageName } from "./storage-choice.ts";
import { formatBoxTable, formatPlainTable } from "./table.ts";
import { requirePositionals } from "./words.ts";

interface BackupListArguments {
  readonly isPretty: boolean;
  readonly isJson: boolean;
  readonly isDetailed: boolean;
}

/** `walnut backup-list` */
export const backupList: Command<BackupListArguments> = {
  name: "backup-list",
  usage: "backup-list [--detail] [--pretty] [--json]",
  summary: "List the base backups, oldest first.",
  details:
    "Standard output holds a header line and a line for each backup; the first field is the name, " +
    "the second the time at which the backup was finished, as the backup itself recorded it. " +
    "Without backups it stays empty.",
  flags: [
    { name: "pretty", text: "A table for people; with --json, indented." },
    { name: "json", text: "One JSON array." },
    { name: "detail", text: "Show times, host, version, WAL positions and permanence, too." },
  ],
  needsConfig: true,

  parse(words) {
    requirePositionals(words, []);
    return {
      isPretty: words.has("pretty"),
      isJson: words.has("json"),
      isDetailed: words.has("detail"),
    };
  },

  async run({ isPretty, isJson, isDetailed }, context) {
    const { config, log, signal } = context;
    await using storage = await context.openStorage("alive");
    const entries = await listBackups(storage, { hasMetadata: isDetailed, signal });
    for (const { name, problems } of entries) {
      for (const reason of problems)
        log.warning("a backup is not wholly readable", { name, reason });
    }
    const copies = entries.flatMap((entry) => copiesOf(entry, onlyStorageName(config)));
    const sorted = isDetailed ? copies.toSorted(byStart) : copies;
    if (isJson) {
      const text = formatJson(
        sorted.map((entry) => backupJson(entry, isDetailed)),
        { escape: "go" },
      );
      await context.write(`${isPretty ? indentJson(text, "    ") : text}\n`);
    } else if (sorted.length === 0) {
      log.info("No backups found", { storage: storage.name });
    } else {
      await context.write((isPretty ? formatPretty : formatPlain)(sorted, isDetailed));
    }
    const names = entries.map(({ name }) => name);
    await warnOfGaps(storage, names, { log, signal });
  },
};

/** One for each storage that has it. */
function copiesOf(entry: CatalogueEntry, onlyStorage: string): readonly CatalogueEntry[] {
  const { storageNames = [onlyStorage] } = entry;
  return storageNames.map((name) => ({ ...entry, storageNames: [name] }));
}

function storageOf({ storageNames }: CatalogueEntry): string {
  return storageNames?.[0] ?? DEFAULT_STORAGE;
}

function byStart(one: CatalogueEntry, other: CatalogueEntry): number {
  const [oneNs, otherNs] = [one, other].map(
    ({ metadata, timeNs }) => metadata?.startTimeNs ?? timeNs,
  );
  if (oneNs === otherNs || oneNs === undefined || otherNs === undefined) return 0;
  return oneNs < otherNs ? -1 : 1;
}

const DETAIL_NAMES = [
  "start_time",
  "finish_time",
  "hostname",
  "data_dir",
  "pg_version",
  "start_lsn",
  "finish_lsn",
  "is_permanent",
];
const DETAIL_HEADINGS = [
  "START TIME",
  "FINISH TIME",
  "HOSTNAME",
  "DATADIR",
  "PG VERSION",
  "START LSN",
  "FINISH LSN",
  "PERMANENT",
];

/** Whether a column more is worth it: WAL-G has none for what only we record. */
function hasOwnColumn(entries: readonly CatalogueEntry[], isDetailed: boolean): boolean {
  return isDetailed && entries.some(({ sentinel }) => ownCell(sentinel?.own) !== "-");
}

/** How changes were found, and what of the pages is known to be damaged. */
function ownCell({ changeSource, corruptPages = 0 }: OwnRecord = {}): string {
  const damage = corruptPages === 0 ? undefined : `corrupt=${corruptPages}`;
  return [changeSource, damage].filter((text) => text !== undefined).join(",") || "-";
}

function formatPlain(entries: readonly CatalogueEntry[], isDetailed: boolean): string {
  const headings = ["backup_name", "modified", "wal_file_name", "storage_name"];
  if (isDetailed) headings.push(...DETAIL_NAMES);
  const hasOwn = hasOwnColumn(entries, isDetailed);
  if (hasOwn) headings.push("changes");
  return formatPlainTable(
    headings,
    entries.map((entry) => {
      const cells = cellsOf(entry, isDetailed, formatSeconds);
      return hasOwn ? [...cells, ownCell(entry.sentinel?.own)] : cells;
    }),
  );
}

function formatPretty(entries: readonly CatalogueEntry[], isDetailed: boolean): string {
  const headings = ["BACKUP NAME", "MODIFIED", "WAL FILE NAME", "STORAGE NAME"];
  if (isDetailed) headings.push(...DETAIL_HEADINGS);
  const hasOwn = hasOwnColumn(entries, isDetailed);
  if (hasOwn) headings.push("CHANGES");
  return formatBoxTable(
    [{ heading: "#", isNumber: true }, ...headings.map((heading) => ({ heading }))],
    entries.map((entry, index) => {
      const cells = [String(index), ...cellsOf(entry, isDetailed, formatRfc850)];
      return hasOwn ? [...cells, ownCell(entry.sentinel?.own)] : cells;
    }),
  );
}

function cellsOf(
  entry: CatalogueEntry,
  isDetailed: boolean,
  formatTime: (timeNs: TimeNs) => string,
): readonly string[] {
  const cells = [entry.name, formatTime(entry.timeNs), segmentOf(entry), storageOf(entry)];
  if (!isDetailed) return cells;
  const { metadata } = entry;
  const showTime = (timeNs: TimeNs | undefined): string =>
    timeNs === undefined ? "-" : formatTime(timeNs);
  return [
    ...cells,
    showTime(metadata?.startTimeNs),
    showTime(metadata?.finishTimeNs),
    metadata?.hostname || "-",
    metadata?.dataDirectory || "-",
    String(metadata?.pgVersion ?? 0),
    formatLsn(lsn(metadata?.startLsn ?? 0n)),
    formatLsn(lsn(metadata?.finishLsn ?? 0n)),
    String(metadata?.isPermanent ?? false),
  ];
}

function segmentOf({ name }: CatalogueEntry): string {
  return isBackupName(name) ? parseBackupName(name).segment : "";
}

/** "2026-08-21T18:01:09Z": whole seconds, as `delete before` takes them back. */
function formatSeconds(timeNs: TimeNs): string {
  return `${new Date(timeMsOf(timeNs)).toISOString().slice(0, 19)}Z`;
}

const WEEKDAYS = ["Sun", "Mon", "Tues", "Wednes", "Thurs", "Fri", "Satur"];
const MONTHS = "Jan Feb Mar Apr May Jun Jul Aug Sep Oct Nov Dec".split(" ");

/** "Friday, 21-Aug-26 18:01:09 UTC". @source RFC 850, section 2.1.4 */
function formatRfc850(timeNs: TimeNs): string {
  const date = new Date(timeMsOf(timeNs));
  const [year = "", , day = "", time = ""] = date.toISOString().split(/[-T.]/);
  const month = MONTHS[date.getUTCMonth()] ?? "";
  return `${WEEKDAYS[date.getUTCDay()] ?? ""}day, ${day}-${month}-${year.slice(-2)} ${time} UTC`;
}

/** A backup as `--json` shows it; with `--detail` with the members of its metadata. */
export function backupJson(entry: CatalogueEntry, isDetailed: boolean): JsonObject {
  return jsonObject([
    ["backup_name", entry.name],
    ["time", formatTimeUtc(entry.timeNs)],
    ["wal_file_name", segmentOf(entry)],
    ["storage_name", storageOf(entry)],
    ...(isDetailed ? metadataMembers(entry.metadata) : []),
    ...(isDetailed ? ownMembers(entry.sentinel?.own) : []),
  ]);
}

function ownMembers({ changeSource, isPagesVerified, corruptPages }: OwnRecord = {}): JsonObject {
  return jsonObject([
    ["changes", changeSource],
    ["pages_verified", isPagesVerified],
    ["corrupt_pages", corruptPages === undefined ? undefined : BigInt(corruptPages)],
  ]);
}

/** As the document has them; of one that can't be read, all keys with the values of nothing. */
function metadataMembers(metadata: BackupMetadata | undefined): JsonObject {
  if (metadata !== undefined) {
    const document = parseJson(formatMetadata(metadata));
    if (isJsonObject(document)) return document;
  }
  const nothing = "0001-01-01T00:00:00Z";
  return jsonObject([
    ["start_time", nothing],
    ["finish_time", nothing],
    ["date_fmt", ""],
    ["hostname", ""],
    ["data_dir", ""],
    ["pg_version", 0n],
    ["start_lsn", 0n],
    ["finish_lsn", 0n],
    ["is_permanent", false],
    ["system_identifier", null],
    ["uncompressed_size", 0n],
    ["compressed_size", 0n],
  ]);
}
