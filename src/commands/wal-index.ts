import { basename, dirname, join, resolve } from "node:path";
import type { PushWitness } from "../archive/push.ts";
import type { Spool } from "../archive/spool-directory.ts";
import type { Command, Context } from "./command.ts";
import { onePath } from "./words.ts";

/** Started by wal-push and wal-drain; never by hand. */
export const walIndex: Command<{ readonly path: string }> = {
  name: "wal-index",
  usage: "wal-index <wal-file>",
  summary: "Note the commits of archived WAL; wal-push starts it by itself.",
  details:
    "Every 16 segments the times and positions of their first and last commits go into a small " +
    "object, so that `walnut timeline` and `walnut find` need not read them. Whatever is not noted " +
    "is read when somebody asks. WALNUT_COMMIT_INDEX=false turns it off.",
  flags: [],
  needsConfig: true,

  parse: (words) => ({ path: onePath(words, "the WAL file") }),

  async run({ path }, { log, signal, workingDirectory, openStorage }) {
    const { indexLocalBatch } = await import("../catalogue/index-local.ts");
    const file = resolve(workingDirectory, path);
    await using storage = await openStorage("archive");
    const place = { walDirectory: dirname(file), name: basename(file) };
    const count = await indexLocalBatch(storage, place, { signal });
    log.info("noted commits", { segments: count, storage: storage.name });
  },
};

/** Starts `wal-index` where a batch of segments is stored; undefined where it is not wanted. */
export function indexAfter(
  { config, self, log }: Context,
  { walDirectory, spool }: { readonly walDirectory: string; readonly spool: Spool },
): PushWitness["onStored"] {
  if (!config.archiveQueue.isIndexingCommits || self === undefined) return undefined;
  return (name) => {
    if (!/^[0-9A-F]{23}F$/.test(name)) return;
    try {
      self.startDetached(["wal-index", join(walDirectory, name)], join(spool.path, "index.log"));
    } catch (error) {
      log.debug("commits are not noted", { reason: String(error) });
    }
  };
}
