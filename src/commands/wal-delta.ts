import { resolve } from "node:path";
import { queueIn } from "../archive/archive-status.ts";
import { storeGroups } from "../archive/change-groups.ts";
import { spoolDirectory } from "../archive/spool-directory.ts";
import { codecOf } from "../codec/table.ts";
import type { Command } from "./command.ts";
import { notesDirectory } from "./noting.ts";
import { requirePositionals } from "./words.ts";

interface Arguments {
  readonly dataDirectory: string | undefined;
}

/** Started by wal-push and wal-drain; by hand only to try again at once. */
export const walDelta: Command<Arguments> = {
  name: "wal-delta",
  usage: "wal-delta [<data directory>]",
  summary: "Store which blocks archived WAL changed; wal-push starts it by itself.",
  details:
    "With WALNUT_USE_WAL_DELTA=true every pushed segment leaves notes of the blocks that it changes. " +
    "16 of them make one object, from which increments learn what they need not read.",
  flags: [],
  needsConfig: true,

  parse(words) {
    const [dataDirectory] = requirePositionals(words, ["the data directory"], 1);
    return { dataDirectory };
  },

  async run({ dataDirectory }, { config, log, signal, workingDirectory, openStorage }) {
    const place = dataDirectory ?? config.dataDirectory ?? ".";
    const queue = queueIn(resolve(workingDirectory, place));
    const configured = config.archiveQueue.spoolDirectory;
    const spool = await spoolDirectory({ ...config, ...queue, configured });
    await using storage = await openStorage("archive");
    const stored = await storeGroups(storage, {
      directory: notesDirectory(spool),
      codec: codecOf(config.compressionMethod),
      level: config.compressionLevel,
      codecJobs: config.codecJobs,
      log,
      signal,
    });
    log.info("stored what groups of segments changed", {
      groups: stored.length,
      storage: storage.name,
    });
  },
};
