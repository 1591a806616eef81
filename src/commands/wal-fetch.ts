import { resolve } from "node:path";
import { withinDeadline } from "../archive/deadline.ts";
import { fetchWal } from "../archive/fetch.ts";
import { UsageError } from "../errors.ts";
import type { Command } from "./command.ts";
import { requirePositionals } from "./words.ts";

interface WalFetchArguments {
  /** As PostgreSQL calls the file. */
  readonly name: string;
  readonly destination: string;
}

/** `restore_command = 'walnut wal-fetch %f %p'` */
export const walFetch: Command<WalFetchArguments> = {
  name: "wal-fetch",
  usage: "wal-fetch <name> <destination>",
  summary: "Bring one WAL file from the archive; PostgreSQL's restore_command.",
  details:
    "postgresql.conf: restore_command = 'walnut wal-fetch %f %p'\n\n" +
    "Exit code 74 means that the archive has proved not to hold the file. For any other failure " +
    "the server must not believe that the archive ends here: it is stopped by a code above 125, " +
    "and a standby, which asks again, is told 75.\n\n" +
    "At the end of an archive that wal-receive feeds, the unfinished segment is given, filled up " +
    "with zeros: recovery gets every commit that was stored. WALNUT_FETCH_PARTIAL=false prevents it.",
  flags: [],
  needsConfig: true,

  parse(words) {
    const [name = "", destination = ""] = requirePositionals(words, [
      "the name of the WAL file",
      "the destination",
    ]);
    if (name.includes("/")) {
      throw new UsageError(`${JSON.stringify(name)} is no name of a WAL file: it has a slash`, {
        hint: "The name comes first, then the destination: wal-fetch %f %p.",
      });
    }
    return { name, destination };
  },

  async run({ name, destination }, context) {
    const { config, log, signal, workingDirectory } = context;
    const limits = { timeoutMs: config.walTimeoutMs, signal };
    await using storage = await withinDeadline(limits, ({ begin }) => {
      begin("opening the storage");
      return context.openStorage();
    });
    await fetchWal(storage, name, resolve(workingDirectory, destination), {
      ...limits,
      codecJobs: config.codecJobs,
      cacheDirectory: config.cacheDirectory,
      usePartial: config.isPartialFetched,
      log,
    });
    log.debug("fetched", { wal: name, storage: storage.name });
  },
};
