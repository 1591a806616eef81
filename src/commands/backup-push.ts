import { resolve } from "node:path";
import { COMPOSERS, type Composer } from "../backup/composer.ts";
import { requireSoundPages } from "../backup/corrupt-pages.ts";
import { type PushedBackup, type PushSettings, pushBackup } from "../backup/push.ts";
import { pushRemoteBackup } from "../backup/remote-push.ts";
import type { ResumeSettings } from "../backup/push-settings.ts";
import { codecOf } from "../codec/table.ts";
import type { Config } from "../config/config.ts";
import { UsageError } from "../errors.ts";
import type { Log } from "../io/log.ts";
import { describeHolder } from "../io/process-identity.ts";
import type { JsonValue } from "../layout/json-value.ts";
import { inBackupStorage } from "./backup-storage.ts";
import type { Command, Context, Flag } from "./command.ts";
import { type IncrementWish, increments, parseWish } from "./increment-wish.ts";
import { findNotesDirectory } from "./noting.ts";
import { formatBytes, formatSeconds } from "./progress.ts";
import { parseUserData } from "./user-data.ts";
import { requirePositionals } from "./words.ts";

interface Arguments {
  /** As the user wrote it. */
  readonly dataDirectory: string | undefined;
  readonly isRemote: boolean;
  readonly isPermanent: boolean;
  readonly userData: JsonValue | undefined;
  readonly hasFilesMetadata: boolean;
  readonly wish: IncrementWish;
  readonly isPageVerified: boolean;
  readonly isEveryCorruptBlockListed: boolean;
  /** Absent: as the settings say. */
  readonly composer?: Composer | undefined;
  readonly isResumed?: boolean | undefined;
}

const FLAGS: readonly Flag[] = [
  { name: "remote", text: "Over the replication protocol, also where PGDATA is set." },
  { name: "permanent", short: "p", text: "Keep this backup, and what it is based on." },
  { name: "full", short: "f", text: "Take a full backup, as --type full." },
  {
    name: "type",
    value: "<type>",
    text: "What to take: full; incr, based on the newest backup; diff, on the newest full one.",
  },
  {
    name: "delta-from-name",
    value: "<name>",
    text: "Base of the increment: a backup's name, or LATEST.",
  },
  {
    name: "delta-from-user-data",
    value: "<json>",
    text: "Base of the increment: the one backup with this user data.",
  },
  {
    name: "changes",
    value: "<way>",
    text: "Find changed blocks in this way only: summaries, wal, page-scan.",
  },
  {
    name: "add-user-data",
    value: "<json>",
    text: "Your own words about the backup, any JSON; backup-fetch can choose by them.",
  },
  {
    name: "resume",
    text:
      "Go on where the newest full backup was interrupted: its unchanged parts are not stored " +
      "again. Only one taken with this flag, or with WALNUT_BACKUP_RESUME=true, can be resumed.",
  },
  {
    name: "without-files-metadata",
    text: "Write no files_metadata.json, which WAL-G needs for increments and partial restores.",
  },
  {
    name: "verify",
    short: "v",
    text: "Verify the checksum of each page that is read; --full reads all.",
  },
  {
    name: "store-all-corrupt",
    short: "s",
    text: "Name every damaged block of a file, not only the first ten.",
  },
  {
    name: "rating-composer",
    short: "r",
    text: "Put files that change about as often into the same parts.",
  },
  { name: "database-composer", short: "b", text: "Give each database parts of its own." },
  {
    name: "copy-composer",
    short: "c",
    text: "Take a full backup, and copy parts of the last one that are unchanged.",
  },
];

/** Takes a backup of a server, by its data directory or over the replication protocol. */
export const backupPush: Command<Arguments> = {
  name: "backup-push",
  usage: "backup-push [data-directory]",
  summary: "Back up a running server.",
  details:
    "With a data directory it runs on the server's host as the user that the server runs as, and " +
    "connects as PGUSER. " +
    "archive_command must already store WAL in the same repository: this is proved before anything " +
    "is copied. Exit 0 means that the backup and all WAL that it needs are stored.\n\n" +
    "With WALG_DELTA_MAX_STEPS above 0, or --type incr or diff, it stores only what changed since an " +
    "earlier backup of the same history, where there is one; else a full backup, and says why.\n\n" +
    "The data directory is that of PGDATA unless it is given. With neither, or with --remote, the backup " +
    "comes over the replication protocol, from any host: PGUSER needs REPLICATION and a line for " +
    '"replication" in pg_hba.conf. Such a backup is an increment from PostgreSQL 17 on, with ' +
    "summarize_wal = on.",
  flags: FLAGS,
  needsConfig: true,

  parse(words) {
    const [dataDirectory] = requirePositionals(words, ["the data directory"], 1);
    const isRemote = words.has("remote");
    if (isRemote && dataDirectory !== undefined) {
      throw new UsageError(
        `--remote and the data directory ${dataDirectory} contradict each other`,
      );
    }
    return {
      dataDirectory,
      isRemote,
      isPermanent: words.has("permanent"),
      userData: parseUserData(words.value("add-user-data")),
      hasFilesMetadata: !words.has("without-files-metadata"),
      wish: parseWish(words),
      isPageVerified: words.has("verify"),
      isEveryCorruptBlockListed: words.has("store-all-corrupt"),
      isResumed: words.has("resume"),
      composer: COMPOSERS.find((composer) => words.has(`${composer}-composer`)),
    };
  },

  async run(args, context) {
    const { config, log, clock, signal } = context;
    const directory = args.isRemote ? undefined : (args.dataDirectory ?? config.dataDirectory);
    if (directory === undefined && args.composer !== undefined) {
      log.warning(`--${args.composer}-composer has no effect over the replication protocol`);
    }
    if (directory === undefined && args.isResumed === true) {
      log.warning("--resume has no effect over the replication protocol");
    }

    if (directory === undefined && ![undefined, "summaries"].includes(args.wish.way)) {
      log.warning(
        `--changes ${args.wish.way} has no effect over the replication protocol: only the server's ` +
          "summaries tell",
      );
    }

    const startMs = clock.monotonicMs();
    const onProgress = (state: { readonly doneBytes: number; readonly totalBytes?: number }) =>
      context.progress.update({ activity: "backing up", ...state });
    try {
      const settings = pushSettings(args, config);
      const pushed = await inBackupStorage(context, async (storage) => {
        const world = { storage, log, clock, onProgress, signal };
        const written =
          directory === undefined
            ? await pushRemoteBackup(settings, world)
            : await pushBackup(
                {
                  ...settings,
                  ...(await placesOf(directory, context)),
                  resume: resumeOf(args, context),
                },
                world,
              );
        const elapsedMs = clock.monotonicMs() - startMs;
        sayWritten(log, written, { storage: storage.name, elapsedMs });
        return written;
      });
      await requireSoundPages(pushed, { connection: settings.connection, log, signal });
    } finally {
      context.progress.end();
    }
  },
};

/** What a dead process had sent to a store is done by then, or not at all. */
const SETTLE_MS = 5 * 60 * 1000;
const MAX_RESUMED_AGE_MS = 7 * 24 * 60 * 60 * 1000;

function resumeOf(
  { isResumed }: Pick<Arguments, "isResumed">,
  { config }: Context,
): ResumeSettings | undefined {
  if (isResumed !== true && !config.isBackupResumed) return undefined;
  return { holder: describeHolder(), settleMs: SETTLE_MS, maxAgeMs: MAX_RESUMED_AGE_MS };
}

/** What all backups of this configuration have in common. */
export function pushSettings(
  args: Omit<Arguments, "dataDirectory" | "isRemote">,
  config: Config,
): Omit<PushSettings, "dataDirectory"> {
  const composer = args.composer ?? config.composer;
  const wish = increments(args.wish, config.increments);
  const fullReason = composer === "copy" ? "the copy composer makes full backups" : undefined;
  return {
    connection: config.postgres,
    serverName: config.archiveQueue.serverName,
    receiverSlot: config.receive.slot,
    codec: codecOf(config.compressionMethod),
    zstd: codecOf("zstd"),
    level: config.compressionLevel,
    codecJobs: config.codecJobs,
    partConcurrency: config.uploadDiskConcurrency,
    thresholdBytes: config.tarSizeThresholdBytes,
    composer,
    diskRateBytesPerSecond: config.diskRateLimitBytesPerSecond,
    hash: config.manifestHash,
    hasFilesMetadata: args.hasFilesMetadata && config.isFilesMetadataWritten,
    hasDatabaseNames: config.isPartialRestorePrepared,
    isPermanent: args.isPermanent,
    increments: { ...wish, fullReason: wish.fullReason ?? fullReason },
    isPageVerified: args.isPageVerified || config.isPageVerified,
    isEveryCorruptBlockListed: args.isEveryCorruptBlockListed || config.isEveryCorruptBlockListed,
    userData: args.userData ?? parseUserData(config.sentinelUserData),
    archiveCheckTimeoutMs: config.archiveCheckTimeoutMs,
    stopTimeoutMs: config.stopBackupTimeoutMs,
    aliveCheckIntervalMs: config.aliveCheckIntervalMs,
    spoolDirectory: config.cacheDirectory,
  };
}

async function placesOf(
  directory: string,
  context: Context,
): Promise<Pick<PushSettings, "dataDirectory" | "notesDirectory">> {
  const dataDirectory = resolve(context.workingDirectory, directory);
  return { dataDirectory, notesDirectory: await findNotesDirectory(context, dataDirectory) };
}

/** Tells of a backup that exists now. */
export function sayWritten(
  log: Log,
  { name, baseName, fileCount, unchangedCount, contentBytes, storedBytes }: PushedBackup,
  { storage, elapsedMs }: { readonly storage: string; readonly elapsedMs: number },
): void {
  log.info("backup written", {
    backup: name,
    storage,
    ...(baseName === undefined ? {} : { base: baseName, unchanged: unchangedCount }),
    files: fileCount,
    size: formatBytes(contentBytes),
    stored: formatBytes(storedBytes),
    time: formatSeconds(elapsedMs / 1000),
  });
}
