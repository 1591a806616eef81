import { resolve } from "node:path";
import { fetchCatchUp } from "../backup/catch-up-fetch.ts";
import { catchUpStorage } from "../backup/catch-up-storage.ts";
import { backupChoice, findBackup } from "../backup/catalogue.ts";
import type { Command } from "./command.ts";
import { formatBytes } from "./progress.ts";
import { requirePositionals } from "./words.ts";

interface CatchUpFetchArguments {
  readonly destination: string;
  readonly backup: string;
}

/** `walnut catchup-fetch` */
export const catchUpFetch: Command<CatchUpFetchArguments> = {
  name: "catchup-fetch",
  usage: "catchup-fetch <data-directory> <backup-name|LATEST>",
  summary: "Bring a stopped standby up to what catchup-push stored.",
  details:
    "The directory must be that of a standby of the same cluster, stopped cleanly, whose last " +
    "checkpoint is not before the backup's --from-lsn. Its configuration, standby.signal and pg_wal " +
    "stay. No server can start on it before everything is there; after an interruption run the same " +
    "command again. Then start the standby: it replays the WAL since the backup began.",
  flags: [{ name: "use-new-unwrap", text: "Accepted, has no effect." }],
  needsConfig: true,

  parse(words) {
    const names = ["the data directory", "the backup's name"];
    const [destination = "", backup = ""] = requirePositionals(words, names);
    return { destination, backup };
  },

  async run({ destination, backup: wanted }, context) {
    const { config, log, signal, progress } = context;
    await using storage = catchUpStorage(await context.openStorage("alive"));
    const backup = await findBackup(storage, backupChoice(wanted), { signal });
    try {
      const place = resolve(context.workingDirectory, destination);
      const report = await fetchCatchUp(storage, backup, place, {
        downloadConcurrency: config.downloadConcurrency,
        codecJobs: config.codecJobs,
        fsync: config.fsync,
        log,
        signal,
        onProgress: (doneBytes) => progress.update({ activity: "catching up", doneBytes }),
      });
      progress.end();
      log.info("caught up; start the standby", {
        backup,
        directory: report.destination,
        written: formatBytes(report.changedBytes),
        removed: report.removedCount,
      });
    } finally {
      progress.end();
    }
  },
};
