import { receiveWal } from "../archive/receive.ts";
import { codecOf } from "../codec/table.ts";
import type { Log } from "../io/log.ts";
import type { Storage } from "../storage/storage.ts";
import type { Command } from "./command.ts";
import { requirePositionals } from "./words.ts";

/** `walnut wal-receive`, a service beside the server or anywhere else. */
export const walReceive: Command<{ readonly isSynchronous: boolean }> = {
  name: "wal-receive",
  usage: "wal-receive [--synchronous]",
  summary: "Stream WAL from a replication slot into the archive, until it is stopped.",
  details:
    "Complete segments are stored as wal-push would; what is not complete is stored as <segment>." +
    "partial every WALNUT_RECEIVE_PARTIAL_INTERVAL, and wal-fetch gives it to a recovery that has " +
    "reached the end of the archive. The slot keeps WAL in the server until the store has it: set " +
    "max_slot_wal_keep_size, so that a store that stays away can't fill the server's disk.\n\n" +
    "With --synchronous everything is stored at once. Put the PGAPPNAME of this command into " +
    "synchronous_standby_names, and a commit returns only when the store has it.\n\n" +
    "A lost connection or store is tried again for ever; the command ends by itself only when that " +
    "can't help: another cluster, a slot that was invalidated, an archive that holds other WAL.",
  flags: [{ name: "synchronous", text: "As WALNUT_RECEIVE_SYNCHRONOUS=true." }],
  needsConfig: true,

  parse(words) {
    requirePositionals(words, []);
    return { isSynchronous: words.has("synchronous") };
  },

  async run({ isSynchronous }, context) {
    const { config, log, clock, signal } = context;
    const { slot, partialIntervalMs, partialBytes } = config.receive;
    await using storage = await context.openStorage("archive");
    await using index = config.archiveQueue.isIndexingCommits
      ? await openIndex(storage, log)
      : undefined;
    await receiveWal(storage, {
      onSegment: index === undefined ? undefined : (segment) => index.note(segment),
      settings: config.postgres,
      slot,
      isSynchronous: isSynchronous || config.receive.isSynchronous,
      partialIntervalMs,
      partialBytes,
      codec: codecOf(config.compressionMethod),
      level: config.compressionLevel,
      codecJobs: config.codecJobs,
      cacheDirectory: config.cacheDirectory,
      timeoutMs: config.walTimeoutMs,
      log,
      clock,
      signal,
    });
  },
};

/** Times of commits, for `walnut timeline` and `walnut find`. */
async function openIndex(storage: Storage, log: Log) {
  const { ReceivedIndex } = await import("../catalogue/index-received.ts");
  return new ReceivedIndex(storage, log);
}
