import { existsSync } from "node:fs";
import { readFile, stat } from "node:fs/promises";
import { join, resolve } from "node:path";
import { plainRestoreCommandLine } from "../archive/setup-lines.ts";
import { type BackupChoice, backupChoice, findBackup, LATEST } from "../backup/catalogue.ts";
import {
  parseRestoreOnly,
  type PartialRestore,
  planPartialRestore,
  type RestoreChoice,
} from "../backup/partial-restore.ts";
import { parsePathMask } from "../backup/path-mask.ts";
import type { DeltaPermissions } from "../backup/restore-existing.ts";
import { fetchBackup, type RestoreReport } from "../backup/restore.ts";
import {
  parseRestoreSpec,
  parseTablespaceMapping,
  type TablespaceMapping,
} from "../backup/tablespace-plan.ts";
import { RefusedError, UsageError } from "../errors.ts";
import { machineMemoryBytes } from "../io/machine-memory.ts";
import { systemErrorText } from "../io/system-error.ts";
import type { Log } from "../io/log.ts";
import type { JsonValue } from "../layout/json-value.ts";
import type { TablespaceSpec } from "../layout/tablespace-spec.ts";
import type { Command, Context, Words } from "./command.ts";
import { warnOfGapBehind } from "./gap-warnings.ts";
import { formatBytes } from "./progress.ts";
import { parseUserData } from "./user-data.ts";
import { requirePositionals } from "./words.ts";

type PathTest = (path: string) => boolean;

interface BackupFetchArguments {
  readonly destination: string;
  /** Absent when user data choose it. */
  readonly backup?: string | undefined;
  readonly userData?: JsonValue | undefined;
  readonly mask?: PathTest | undefined;
  readonly restoreOnly?: readonly RestoreChoice[] | undefined;
  readonly mappings: readonly TablespaceMapping[];
  readonly specPath?: string | undefined;
  readonly delta?: DeltaPermissions | undefined;
}

/** `walnut backup-fetch` */
export const backupFetch: Command<BackupFetchArguments> = {
  name: "backup-fetch",
  usage: "backup-fetch <destination> <backup-name|LATEST>",
  summary: "Restore a base backup into an empty directory.",
  details:
    "LATEST is the backup that was finished last, by its own record. No server can start from the " +
    "directory before everything in it is there, checked and on disk. After an interruption run " +
    "the same command again: it goes on. Tablespaces go to their recorded places unless told " +
    "otherwise; nothing is ever written into a directory that is not empty, but with --delta.",
  flags: [
    {
      name: "tablespace-mapping",
      value: "<OLD=NEW>",
      text: "Put the tablespace with this location or oid elsewhere.",
      isRepeatable: true,
    },
    {
      name: "restore-spec",
      value: "<file>",
      text: "Locations of all tablespaces, as the Spec member of a sentinel; leaves no tablespace_map.",
    },
    {
      name: "mask",
      value: "<pattern>",
      text: "Restore matching files only; no server will start.",
    },
    { name: "target-user-data", value: "<json>", text: "Choose the backup with this user data." },
    {
      name: "restore-only",
      value: "<names>",
      text: "Restore these only, joined by commas: db, db/table, db/schema.table; * is any text.",
    },
    {
      name: "delta",
      text: "Rewrite the data directory of a stopped server: only what differs is written.",
    },
    {
      name: "delta-other-cluster",
      text: "With --delta: also one that belongs to another cluster.",
    },
    {
      name: "discard-wal",
      text: "With --delta: also one with WAL that was never archived, which is lost.",
    },
    { name: "reverse-unpack", text: "Accepted: every restore begins with the newest backup." },
    { name: "skip-redundant-tars", text: "Accepted, has no effect: they are always skipped." },
  ],
  needsConfig: true,
  parse: parseArguments,

  async run(args, context) {
    const { config, log, signal, progress, workingDirectory } = context;
    const spec = await readSpec(args.specPath, workingDirectory);
    const choice = chooseBackup(args, config.fetchTargetUserData);
    await using storage = await context.openStorage("alive");
    const backup = await findBackup(storage, choice, { signal });
    if (choice.kind === "latest") log.info(`LATEST backup is: '${backup}'`);
    await warnOfGapBehind(storage, backup, { log, signal });
    const partial =
      args.restoreOnly === undefined
        ? undefined
        : await planPartialRestore(storage, backup, args.restoreOnly, { signal });
    try {
      const report = await fetchBackup(
        storage,
        backup,
        resolve(workingDirectory, args.destination),
        {
          tablespaces: { mappings: args.mappings, spec },
          mask: both(args.mask, partial),
          delta: args.delta,
          downloadConcurrency: config.downloadConcurrency,
          ...(config.isDownloadConcurrencyAsked ? { memoryBytes: await machineMemoryBytes() } : {}),
          codecJobs: config.codecJobs,
          fsync: config.fsync,
          log,
          signal,
          onProgress: (doneBytes, totalBytes) => showProgress(context, doneBytes, totalBytes),
        },
      );
      progress.end();
      if (partial !== undefined) sayWhatIsMissing(partial, log);
      await sayWhatIsNext(report, context);
    } finally {
      progress.end();
    }
  },
};

function parseArguments(words: Words): BackupFetchArguments {
  const [destination = "", backup] = requirePositionals(
    words,
    ["the destination", "the backup's name"],
    1,
  );
  const restoreOnly = words.value("restore-only");
  const mask = words.value("mask");
  return {
    destination,
    backup,
    userData: parseUserData(words.value("target-user-data")),
    mask: mask === undefined ? undefined : parsePathMask(mask),
    restoreOnly: restoreOnly === undefined ? undefined : parseRestoreOnly(restoreOnly),
    mappings: words.values("tablespace-mapping").map(parseTablespaceMapping),
    specPath: words.value("restore-spec"),
    delta: parseDelta(words),
  };
}

function both(mask: PathTest | undefined, partial: PartialRestore | undefined) {
  if (mask === undefined || partial === undefined) return mask ?? partial?.isWanted.bind(partial);
  return (path: string) => mask(path) && partial.isWanted(path);
}

function parseDelta(words: Words): DeltaPermissions | undefined {
  const isOtherClusterAllowed = words.has("delta-other-cluster");
  const isWalDiscarded = words.has("discard-wal");
  if (!words.has("delta")) {
    if (!isOtherClusterAllowed && !isWalDiscarded) return undefined;
    throw new UsageError("--delta-other-cluster and --discard-wal go with --delta only");
  }
  for (const name of ["mask", "restore-only"]) {
    if (words.value(name) === undefined) continue;
    throw new UsageError(`--delta and --${name} contradict each other`, {
      hint: "A delta restore makes a whole data directory of what is there.",
    });
  }
  return { isOtherClusterAllowed, isWalDiscarded };
}

function chooseBackup(args: BackupFetchArguments, setting: string | undefined): BackupChoice {
  const { backup } = args;
  const value = args.userData ?? parseUserData(setting);
  if (backup !== undefined && value !== undefined) {
    throw new UsageError("a backup is chosen by its name or by user data, not by both");
  }
  if (value !== undefined) return { kind: "user-data", value };
  if (backup === undefined) {
    throw new UsageError("the backup's name is missing", {
      hint: `Give its name or ${LATEST}; backup-list shows what there is.`,
    });
  }
  return backupChoice(backup);
}

async function readSpec(
  path: string | undefined,
  workingDirectory: string,
): Promise<TablespaceSpec | undefined> {
  if (path === undefined) return undefined;
  const absolute = resolve(workingDirectory, path);
  const text = await readFile(absolute, "utf8").catch((error: unknown) => {
    throw new RefusedError(`restore spec ${path} can't be read: ${systemErrorText(error)}`, {
      cause: error,
    });
  });
  return parseRestoreSpec(path, text);
}

function showProgress(
  { progress }: Context,
  doneBytes: number,
  totalBytes: number | undefined,
): void {
  progress.update({
    activity: "restoring",
    doneBytes,
    ...(totalBytes === undefined ? {} : { totalBytes }),
  });
}

/** Nothing in the restored server tells that rows are missing: it must be said here. */
function sayWhatIsMissing({ leftOut, reduced, unlisted, hasIndexes }: PartialRestore, log: Log) {
  if (unlisted.length > 0) {
    log.warning("restored too, because the backup does not tell what their catalogs are", {
      databases: unlisted.join(", "),
    });
  }
  if (leftOut.length > 0) {
    log.warning(
      "left out: their tables can't be read, or lack rows without an error. Drop these databases " +
        "as soon as the server has started, before anybody uses them",
      { databases: leftOut.join(", ") },
    );
  }
  if (reduced.length > 0) {
    log.warning(
      "restored in part: all tables that were not chosen can't be read, or lack rows without an " +
        "error. Dump what was chosen, and use it elsewhere",
      { databases: reduced.join(", ") },
    );
  }
  if (!hasIndexes) {
    log.warning(
      "the backup does not tell which indexes the chosen tables have: run REINDEX TABLE on each " +
        "before it is read",
    );
  }
}

async function sayWhatIsNext(report: RestoreReport, { log, self }: Context): Promise<void> {
  const { backup, destination, tablespaces, keptBytes, writtenBytes, changedBytes } = report;
  log.info("backup restored", {
    backup,
    destination,
    written: formatBytes(writtenBytes),
    ...(keptBytes === 0 ? {} : { kept: formatBytes(keptBytes) }),
    ...(changedBytes === undefined ? {} : { changed: formatBytes(changedBytes) }),
  });
  for (const { oid, location } of tablespaces) log.info("tablespace restored", { oid, location });
  if (!report.isStartable) {
    log.info("only what the mask matches was restored: no server starts from it", { destination });
    return;
  }
  const { uid } = await stat(destination);
  if (uid === 0) {
    const places = [destination, ...tablespaces.map(({ location }) => location)];
    log.warning("restored as root: give the files to the server's user before it starts", {
      command: `chown -R postgres: ${places.join(" ")}`,
    });
  }
  if (!existsSync(join(destination, "postgresql.conf"))) {
    log.warning(
      "the backup has no postgresql.conf, because the server keeps it elsewhere (Debian in /etc): " +
        "copy it and pg_hba.conf there, but not data_directory, hba_file, ident_file and " +
        "external_pid_file, which lead to the original",
      { destination },
    );
  }
  // As the message itself, it can be pasted: a field would have its quotes escaped.
  log.info(
    `before the server starts, write the next line into ${destination}/postgresql.auto.conf, and ` +
      "make an empty recovery.signal (for a standby standby.signal) there; a copy that does not " +
      "replace the server needs archive_mode = off, lest later recoveries follow it",
  );
  log.info(plainRestoreCommandLine(self?.words ?? ["walnut"]));
}
