import { resolve } from "node:path";
import { type PushedBackup, pushBackup } from "../backup/push.ts";
import { codecOf } from "../codec/table.ts";
import type { Config } from "../config/config.ts";
import { FormatError, RefusedError, UsageError } from "../errors.ts";
import type { Log } from "../io/log.ts";
import { parseJson } from "../layout/json.ts";
import type { JsonValue } from "../layout/json-value.ts";
import type { Command, Flag, Words } from "./command.ts";
import { formatBytes, formatSeconds } from "./progress.ts";
import { requirePositionals } from "./words.ts";

interface Arguments {
  /** As the user wrote it. */
  readonly dataDirectory: string | undefined;
  readonly isPermanent: boolean;
  readonly userData: JsonValue | undefined;
  readonly hasFilesMetadata: boolean;
  /** Flags that were given and change nothing yet. */
  readonly ignored: readonly string[];
}

const FLAGS: readonly Flag[] = [
  { name: "permanent", short: "p", text: "Keep this backup until it is unmarked." },
  { name: "full", short: "f", text: "Take a full backup; all backups are full ones so far." },
  {
    name: "add-user-data",
    value: "<json>",
    text: "Your own words about the backup, any JSON; backup-fetch can choose by them.",
  },
  {
    name: "without-files-metadata",
    text: "Write no files_metadata.json, which WAL-G needs for increments and partial restores.",
  },
  { name: "verify", short: "v", text: "Verify page checksums: not done yet." },
  { name: "store-all-corrupt", short: "s", text: "Has no effect yet: see --verify." },
  { name: "rating-composer", short: "r", text: "Has no effect: parts are filled in order." },
  { name: "database-composer", short: "b", text: "Has no effect: parts are filled in order." },
  { name: "copy-composer", short: "c", text: "Has no effect: parts are filled in order." },
  { name: "delta-from-name", value: "<name>", text: "Refused: increments are not supported yet." },
  { name: "delta-from-user-data", value: "<json>", text: "Refused as --delta-from-name." },
  { name: "target-storage", value: "<name>", text: 'Only "default" exists so far.' },
];

const WITHOUT_EFFECT = [
  "verify",
  "store-all-corrupt",
  "rating-composer",
  "database-composer",
  "copy-composer",
];

/** Takes a full backup of the server whose data directory is on this host. */
export const backupPush: Command<Arguments> = {
  name: "backup-push",
  usage: "backup-push [data-directory]",
  summary: "Back up a running server.",
  details:
    "Runs on the server's host as the user that the server runs as, and connects as PGUSER. " +
    "archive_command must already store WAL in the same repository: this is proved before anything " +
    "is copied. Exit 0 means that the backup and all WAL that it needs are stored.\n\n" +
    "The data directory is that of PGDATA unless it is given.",
  flags: FLAGS,
  needsConfig: true,

  parse(words) {
    const [dataDirectory] = requirePositionals(words, ["the data directory"], 1);
    requireSupported(words);
    return {
      dataDirectory,
      isPermanent: words.has("permanent"),
      userData: parseUserData(words.value("add-user-data")),
      hasFilesMetadata: !words.has("without-files-metadata"),
      ignored: WITHOUT_EFFECT.filter((flag) => words.has(flag)),
    };
  },

  async run(args, context) {
    const { config, log, clock, signal } = context;
    const dataDirectory = resolve(context.workingDirectory, requireDirectory(args, config));
    for (const flag of args.ignored) log.warning(`--${flag} has no effect`);

    const startMs = clock.monotonicMs();
    await using storage = await context.openStorage();
    const onProgress = (state: { readonly doneBytes: number; readonly totalBytes?: number }) =>
      context.progress.update({ activity: "backing up", ...state });
    try {
      const settings = settingsOf(args, config, dataDirectory);
      const pushed = await pushBackup(settings, { storage, log, clock, onProgress, signal });
      sayWritten(log, pushed, { storage: storage.name, elapsedMs: clock.monotonicMs() - startMs });
    } finally {
      context.progress.end();
    }
  },
};

function requireSupported(words: Words): void {
  const delta = ["delta-from-name", "delta-from-user-data"].find(
    (flag) => (words.value(flag) ?? "") !== "",
  );
  if (delta !== undefined) {
    throw new UsageError(`--${delta}: increments are not supported yet`, {
      hint: "Without the flag a full backup is taken.",
    });
  }
  const storage = words.value("target-storage") ?? "default";
  if (storage !== "default" && storage !== "") {
    throw new UsageError(`--target-storage ${storage}: there is only the storage "default"`);
  }
}

function parseUserData(text: string | undefined): JsonValue | undefined {
  if (text === undefined || text === "") return undefined;
  try {
    return parseJson(text);
  } catch (error) {
    if (!(error instanceof FormatError)) throw error;
    throw new UsageError(`user data is not JSON: ${error.message}`, {
      hint: `A text needs double quotes within the shell's: --add-user-data '"monthly"'.`,
      cause: error,
    });
  }
}

function requireDirectory(args: Arguments, config: Config): string {
  const directory = args.dataDirectory ?? config.dataDirectory;
  if (directory !== undefined) return directory;
  throw new RefusedError("backups without a data directory are not supported yet", {
    hint: 'Run backup-push on the server\'s host with its data directory: backup-push "$PGDATA".',
  });
}

function settingsOf(args: Arguments, config: Config, dataDirectory: string) {
  return {
    dataDirectory,
    connection: config.postgres,
    codec: codecOf(config.compressionMethod),
    zstd: codecOf("zstd"),
    level: config.compressionLevel,
    codecJobs: config.codecJobs,
    partConcurrency: config.uploadDiskConcurrency,
    thresholdBytes: config.tarSizeThresholdBytes,
    diskRateBytesPerSecond: config.diskRateLimitBytesPerSecond,
    hash: config.manifestHash,
    hasFilesMetadata: args.hasFilesMetadata && config.isFilesMetadataWritten,
    hasDatabaseNames: config.isPartialRestorePrepared,
    isPermanent: args.isPermanent,
    increments: { maxSteps: 0, origin: "latest" as const },
    userData: args.userData ?? parseUserData(config.sentinelUserData),
    archiveCheckTimeoutMs: config.archiveCheckTimeoutMs,
    stopTimeoutMs: config.stopBackupTimeoutMs,
    aliveCheckIntervalMs: config.aliveCheckIntervalMs,
    spoolDirectory: config.cacheDirectory,
  };
}

function sayWritten(
  log: Log,
  { name, fileCount, contentBytes, storedBytes }: PushedBackup,
  { storage, elapsedMs }: { readonly storage: string; readonly elapsedMs: number },
): void {
  log.info("backup written", {
    backup: name,
    storage,
    files: fileCount,
    size: formatBytes(contentBytes),
    stored: formatBytes(storedBytes),
    time: formatSeconds(elapsedMs / 1000),
  });
}
