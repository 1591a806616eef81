import { resolve } from "node:path";
import { drainSettings, queueIn } from "../archive/archive-status.ts";
import { withinDeadline } from "../archive/deadline.ts";
import { ask } from "../archive/drain-client.ts";
import { drain } from "../archive/drainer.ts";
import { lastCycleOf } from "../archive/last-cycle.ts";
import { isRecovering } from "../archive/recovery-watch.ts";
import { spoolDirectory } from "../archive/spool-directory.ts";
import { codecOf } from "../codec/table.ts";
import { RefusedError } from "../errors.ts";
import type { Command } from "./command.ts";
import { sweepAhead } from "./fetch-ahead.ts";
import { startGapBackup, wantedGapBackup } from "./gap-backup.ts";
import { openChangeNotes } from "./noting.ts";
import { IndexStarter } from "./wal-index.ts";
import { requirePositionals } from "./words.ts";

interface Arguments {
  readonly dataDirectory: string | undefined;
  readonly except: string | undefined;
  readonly isStatus: boolean;
}

const IDLE_MS = 15_000;
/** Without a file for so long, a backlog is over: others may have the CPU. */
const INDEX_REST_MS = 1000;
const STATUS_TIMEOUT_MS = 2000;

/** Started by wal-push; by hand only to look at it. */
export const walDrain: Command<Arguments> = {
  name: "wal-drain",
  usage: "wal-drain [<data directory>] [--status]",
  summary: "Archive all WAL files that are ready; wal-push starts it by itself.",
  details:
    "Ends after 15 seconds without work, and with the server. It runs once a data directory; " +
    "--status asks the one that runs, and tells of the backup that a gap asks for.",
  flags: [
    { name: "except", value: "<wal-file>", text: "Leave this file to the wal-push that has it." },
    { name: "status", text: "Print as JSON what the running one does." },
  ],
  needsConfig: true,

  parse(words) {
    const [dataDirectory] = requirePositionals(words, ["the data directory"], 1);
    return { dataDirectory, except: words.value("except"), isStatus: words.has("status") };
  },

  async run({ dataDirectory, except, isStatus }, context) {
    const { config, log, clock, signal, workingDirectory, self } = context;
    const place = dataDirectory ?? config.dataDirectory ?? ".";
    const queue = queueIn(resolve(workingDirectory, place));
    const configured = config.archiveQueue.spoolDirectory;
    const spool = await spoolDirectory({ ...config, ...queue, configured });
    if (isStatus) {
      const options = { timeoutMs: STATUS_TIMEOUT_MS, signal };
      const answer = await ask(spool.socket, { kind: "status" }, options);
      const own =
        answer.kind === "status" ? { running: true, ...answer.status } : { running: false };
      const gapBackup = await wantedGapBackup(spool, context);
      return await context.write(`${JSON.stringify({ ...own, gapBackup })}\n`);
    }
    if (self === undefined) throw new RefusedError("wal-drain can't run here");
    if (!isRecovering(queue)) await sweepAhead(queue, context);
    const { aheadMax, isMarkingDone, isLevelByNeed, serverName, isGapBackedUp } =
      config.archiveQueue;
    const index = new IndexStarter(context, { ...queue, spool, restMs: INDEX_REST_MS });
    const lastCycle = lastCycleOf(queue, context);
    const limits = { timeoutMs: config.walTimeoutMs, lastCycle, signal };
    const reason = await drain({
      queue,
      spool,
      // A file system that is dead never answers; whoever waits for a file must be told.
      openStorage: () =>
        withinDeadline(limits, ({ begin }) => {
          begin("opening the storage");
          return context.openStorage("archive");
        }),
      codec: codecOf(config.compressionMethod),
      level: config.compressionLevel,
      isLevelByNeed,
      serverName,
      onBackupWanted: isGapBackedUp ? () => startGapBackup({ queue, spool }, context) : undefined,
      changeNotes: await openChangeNotes(context, { ...queue, spool }),
      onStored: index.stored,
      codecJobs: config.codecJobs,
      concurrency: config.uploadConcurrency,
      aheadMax,
      isMarkingDone,
      cacheDirectory: config.cacheDirectory,
      ...limits,
      idleMs: IDLE_MS,
      settings: await drainSettings(self.fingerprint, queue),
      isCurrent: self.watchSettings?.(),
      except,
      log,
      clock,
    });
    index.startWaiting();
    log.debug("ended", { reason });
  },
};
