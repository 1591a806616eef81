import { readFile } from "node:fs/promises";
import { join, resolve } from "node:path";
import { type ArchiveQueue, queueIn } from "../archive/archive-status.ts";
import { ask } from "../archive/drain-client.ts";
import { backUpGaps } from "../archive/gap-backup.ts";
import {
  gapBackupLog,
  gapBackupSocket,
  type GapBackupState,
  readGapBackupState,
} from "../archive/gap-backup-state.ts";
import { listBackupWishes, listLocalGaps } from "../archive/gaps.ts";
import { type Spool, spoolDirectory } from "../archive/spool-directory.ts";
import { listOpenGaps } from "../archive/stored-gaps.ts";
import type { PostgresConfig } from "../config/config.ts";
import { RefusedError, systemErrorCode } from "../errors.ts";
import { childProcess } from "../io/builtin.ts";
import { describeProcess } from "../io/process-identity.ts";
import { parseBackupName } from "../layout/backup-name.ts";
import type { Command, Context } from "./command.ts";
import { readCommandLine, requirePositionals } from "./words.ts";

interface Arguments {
  readonly dataDirectory: string | undefined;
  readonly isStatus: boolean;
}

const STATUS_TIMEOUT_MS = 2000;

/** Started by wal-push and wal-drain; by hand to look at it, or on a server that is idle. */
export const gapBackup: Command<Arguments> = {
  name: "gap-backup",
  usage: "gap-backup [<data directory>] [--status]",
  summary: "Take the full backup that a gap asks for; wal-push starts it by itself.",
  details:
    "After segments were given up (WALNUT_ARCHIVE_QUEUE_POLICY=drop) no backup gets past them. Once " +
    "archiving works again a full backup is begun, once for all of them, unless another one was begun " +
    "meanwhile. A failure is tried again after a minute, and then less and less often. " +
    "WALNUT_GAP_BACKUP=false turns it off; WALNUT_GAP_BACKUP_COMMAND is run in its place.\n\n" +
    "It runs once a data directory, and ends with the server; --status tells what it waits for. Where it " +
    "was killed, the next push starts it anew; by hand only on a server that writes nothing.",
  flags: [{ name: "status", text: "Print as JSON what is wanted, and what stands in its way." }],
  needsConfig: true,

  parse(words) {
    const [dataDirectory] = requirePositionals(words, ["the data directory"], 1);
    return { dataDirectory, isStatus: words.has("status") };
  },

  async run({ dataDirectory, isStatus }, context) {
    const { config, log, clock, signal, workingDirectory, self } = context;
    const place = dataDirectory ?? config.dataDirectory ?? ".";
    const queue = queueIn(resolve(workingDirectory, place));
    const { spoolDirectory: configured, dropAboveBytes, isGapBackedUp } = config.archiveQueue;
    const spool = await spoolDirectory({ ...config, ...queue, configured });
    if (isStatus) {
      const status = await gapBackupStatus(spool, context);
      return await context.write(`${JSON.stringify(status)}\n`);
    }
    if (!isGapBackedUp) {
      throw new RefusedError("WALNUT_GAP_BACKUP is false: no backup is taken for a gap", {
        hint: "Take one yourself: walnut backup-push --full.",
      });
    }
    const local = { ...context, config: { ...config, postgres: await localServer(queue, config) } };
    const reason = await backUpGaps({
      queue,
      spool,
      dropAboveBytes,
      findUncovered: (gaps) => findUncovered(gaps, local),
      findRunning: () => findRunning(local),
      takeBackup: (onStarted) => takeBackup(queue, local, onStarted),
      isCurrent: self?.watchSettings?.(),
      log,
      clock,
      signal,
    });
    log.info("gap-backup ends", { reason });
  },
};

/** Starts the process if a gap asks for a backup and nobody is at it. Never rejects. */
export async function startGapBackup(
  { queue, spool }: { readonly queue: ArchiveQueue; readonly spool: Spool },
  context: Pick<Context, "config" | "self" | "signal" | "log">,
): Promise<void> {
  const { config, self, log } = context;
  if (!config.archiveQueue.isGapBackedUp || self === undefined) return;
  try {
    if ((await listBackupWishes(spool.gaps)).length === 0) return;
    if (await isRunning(spool, context)) return;
    self.startDetached(["gap-backup", queue.dataDirectory], gapBackupLog(spool));
  } catch (error) {
    log.warning("the backup that a gap asks for could not be started", {
      reason: error instanceof Error ? error.message : String(error),
      hint: "Take it yourself: walnut backup-push --full.",
    });
  }
}

/** What is wanted, and how far it is. */
interface GapBackupStatus extends Omit<GapBackupState, "notBeforeMs"> {
  readonly running: boolean;
  /** Given up, and the store has not been told yet. */
  readonly unrecorded: readonly string[];
  readonly wantedFor: readonly string[];
  readonly notBefore?: string;
}

/** For the drainer's status, too: undefined where nothing was given up. */
export async function wantedGapBackup(
  spool: Spool,
  context: Pick<Context, "signal">,
): Promise<GapBackupStatus | undefined> {
  const status = await gapBackupStatus(spool, context);
  return status.unrecorded.length + status.wantedFor.length === 0 ? undefined : status;
}

async function gapBackupStatus(
  spool: Spool,
  context: Pick<Context, "signal">,
): Promise<GapBackupStatus> {
  const { attempts, notBeforeMs, ...state } = await readGapBackupState(spool);
  return {
    running: await isRunning(spool, context),
    unrecorded: await listLocalGaps(spool.gaps),
    wantedFor: await listBackupWishes(spool.gaps),
    attempts,
    ...(notBeforeMs === 0 ? {} : { notBefore: new Date(notBeforeMs).toISOString() }),
    ...state,
  };
}

async function isRunning(spool: Spool, { signal }: Pick<Context, "signal">): Promise<boolean> {
  const options = { timeoutMs: STATUS_TIMEOUT_MS, signal };
  const answer = await ask(gapBackupSocket(spool), { kind: "status" }, options);
  return answer.kind !== "absent";
}

/**
 * Of these the gaps that are open, and behind which no backup begins; rejects with what the store
 * says.
 */
async function findUncovered(
  gaps: readonly string[],
  { openStorage, signal }: Context,
): Promise<readonly string[]> {
  const { listBackups } = await import("../backup/catalogue.ts");
  await using storage = await openStorage("alive");
  const open = new Set(await listOpenGaps(storage, { signal }));
  const wanted = gaps.filter((name) => open.has(name));
  if (wanted.length === 0) return [];
  const backups = await listBackups(storage, { hasMetadata: false, signal });
  const sound = backups.filter(({ problems }) => problems.length === 0);
  const starts = sound.map(({ name }) => parseBackupName(name).segment);
  return wanted.filter((name) => !starts.some((start) => start > name));
}

async function findRunning({ config, signal }: Context): Promise<string | undefined> {
  const [{ connectPostgres }, { findOtherBackup }] = await Promise.all([
    import("../connection/connect.ts"),
    import("../connection/backup-session.ts"),
  ]);
  await using session = await connectPostgres(config.postgres, { signal });
  return await findOtherBackup(session, { signal });
}

async function takeBackup(
  { dataDirectory }: ArchiveQueue,
  context: Context,
  onStarted: (process: string) => Promise<void>,
): Promise<void> {
  const { gapBackupCommand } = context.config.archiveQueue;
  if (gapBackupCommand !== undefined) {
    return await runCommand(gapBackupCommand, { dataDirectory, onStarted, ...context });
  }
  const { backupPush } = await import("./backup-push.ts");
  const noSettings = { find: () => undefined, names: () => [] };
  const line = readCommandLine(["--full", dataDirectory], noSettings, backupPush.flags);
  await backupPush.run(backupPush.parse(line.words), context);
}

/** The shell waits for a line; at our end without one it ends, too. */
const WHEN_TOLD = 'read -r go && exec /bin/sh -c "$1" </dev/null';

/**
 * Its words go where ours go. It begins once `onStarted` has resolved: a process that nobody knows
 * of does nothing, so that a kill before the note leaves none that would run beside the next one.
 * Rejects with RefusedError unless it ends with 0.
 */
export async function runCommand(
  command: string,
  options: Pick<Context, "signal"> & {
    readonly dataDirectory: string;
    readonly onStarted: (process: string) => Promise<void>;
  },
): Promise<void> {
  const { dataDirectory, onStarted, signal } = options;
  const { promise, resolve: ended, reject } = Promise.withResolvers<string>();
  const words = ["-c", WHEN_TOLD, "sh", command];
  const child = childProcess().spawn("/bin/sh", words, {
    cwd: dataDirectory,
    stdio: ["pipe", "inherit", "inherit"],
    signal,
  });
  // Awaited below, if we come so far.
  promise.catch(() => {});
  // The same: the shell has ended.
  child.stdin.on("error", () => {});
  child.on("error", reject);
  child.on("exit", (code, by) => ended(code === null ? `by ${by}` : `with ${code}`));
  const running = describeProcess(String(child.pid));
  try {
    if (running !== undefined) await onStarted(running);
    child.stdin.write("go\n");
  } finally {
    child.stdin.end();
  }
  const end = await promise;
  if (end === "with 0") return;
  throw new RefusedError(`WALNUT_GAP_BACKUP_COMMAND ended ${end}`, {
    hint: "What it said is in gap-backup.log in the spool directory.",
  });
}

/**
 * archive_command has seldom a PGHOST: then it is the server of the data directory that we ask.
 *
 * @source CreateLockFile, src/backend/utils/init/miscinit.c: line 4 is the port, 5 the socket's
 * directory, 6 the address
 */
async function localServer(
  { dataDirectory }: ArchiveQueue,
  { postgres }: { readonly postgres: PostgresConfig },
): Promise<PostgresConfig> {
  if (postgres.host !== undefined) return postgres;
  try {
    const text = await readFile(join(dataDirectory, "postmaster.pid"), "utf8");
    const [, , , port = "", directory = "", address = ""] = text.split("\n");
    const host = directory === "" ? address.replace("*", "localhost") : directory;
    if (host === "" || !/^\d+$/.test(port)) return postgres;
    return { ...postgres, host, port: postgres.port ?? Number(port) };
  } catch (error) {
    if (systemErrorCode(error) === undefined) throw error;
    return postgres;
  }
}
