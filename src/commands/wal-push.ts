import { basename, resolve } from "node:path";
import { withinDeadline } from "../archive/deadline.ts";
import { pushWal } from "../archive/push.ts";
import { codecOf } from "../codec/table.ts";
import type { Command } from "./command.ts";
import { onePath } from "./words.ts";

/** `archive_command = 'walnut wal-push %p'` */
export const walPush: Command<{ readonly path: string }> = {
  name: "wal-push",
  usage: "wal-push <path>",
  summary: "Archive one WAL file; PostgreSQL's archive_command.",
  details:
    "postgresql.conf: archive_command = 'walnut wal-push %p'\n\n" +
    "Exit code 0 means that the store has acknowledged the whole file, or holds the same content " +
    "already. A file that is there with other content is never overwritten.",
  flags: [],
  needsConfig: true,

  parse: (words) => ({ path: onePath(words, "the WAL file") }),

  async run({ path }, context) {
    const { config, log, signal, workingDirectory } = context;
    const wal = { path: resolve(workingDirectory, path), name: basename(path) };
    const limits = { timeoutMs: config.walTimeoutMs, signal };
    await using storage = await withinDeadline(limits, ({ begin }) => {
      begin("opening the storage");
      return context.openStorage();
    });
    const outcome = await pushWal(storage, wal, {
      ...limits,
      codec: codecOf(config.compressionMethod),
      level: config.compressionLevel,
      codecJobs: config.codecJobs,
      cacheDirectory: config.cacheDirectory,
      log,
    });
    log.info(outcome, { wal: wal.name, storage: storage.name });
  },
};
