import { resolve } from "node:path";
import { archiveCommandLine } from "../archive/setup-lines.ts";
import { spoolDirectory } from "../archive/spool-directory.ts";
import { RefusedError, UsageError } from "../errors.ts";
import type { Command } from "./command.ts";

/** `walnut setup`, once, as the owner of the data directory. */
export const setup: Command<{ readonly dataDirectory: string | undefined }> = {
  name: "setup",
  usage: "setup [<data directory>]",
  summary: "Print the lines of postgresql.conf that archive with these settings.",
  details:
    "With the line that it prints, PostgreSQL's own shell sees that a file was archived ahead and " +
    "calls nothing else. Run it as the owner of the data directory, with the flags that the server " +
    "is to use; settings from the environment have to be in the server's environment, too.",
  flags: [],
  needsConfig: true,

  parse(words) {
    const [dataDirectory, ...surplus] = words.positionals;
    if (surplus.length > 0) throw new UsageError(`surplus argument ${JSON.stringify(surplus[0])}`);
    return { dataDirectory };
  },

  async run({ dataDirectory }, { config, self, workingDirectory, write }) {
    const place = dataDirectory ?? config.dataDirectory;
    if (place === undefined) {
      throw new UsageError("the data directory is missing", {
        hint: "Name it, or set PGDATA.",
      });
    }
    if (self === undefined) throw new RefusedError("setup can't run here");
    const spool = await spoolDirectory({
      dataDirectory: resolve(workingDirectory, place),
      configured: config.archiveQueue.spoolDirectory,
      cacheDirectory: config.cacheDirectory,
    });
    const lines = ["archive_mode = on", archiveCommandLine(self.words, spool)];
    await write(`${lines.join("\n")}\n`);
  },
};
