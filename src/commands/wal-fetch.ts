import { resolve } from "node:path";
import type { ForkSegment } from "../archive/fork-segment.ts";
import { isRecoveryName } from "../archive/prefetch-directory.ts";
import { UsageError } from "../errors.ts";
import type { Command, Context } from "./command.ts";
import {
  isAheadWanted,
  type Recovery,
  recoveryOf,
  startPrefetcher,
  takeAhead,
  type WantedSegment,
} from "./fetch-ahead.ts";
import { requirePositionals } from "./words.ts";

interface WalFetchArguments {
  /** As PostgreSQL calls the file. */
  readonly name: string;
  readonly destination: string;
  readonly recovery?: string | undefined;
}

/** Of the time for one fetch, that part is always left to our own. */
const OWN_SHARE = 0.5;

/** `restore_command = 'exec walnut wal-fetch %f %p'` */
export const walFetch: Command<WalFetchArguments> = {
  name: "wal-fetch",
  usage: "wal-fetch <name> <destination>",
  summary: "Bring one WAL file from the archive; PostgreSQL's restore_command.",
  details:
    "postgresql.conf: restore_command = 'exec walnut wal-fetch %f %p'; `walnut setup` prints a " +
    "faster one.\n\n" +
    "Exit code 74 means that the archive has proved not to hold the file. For any other failure " +
    "the server must not believe that the archive ends here: it is stopped by a code above 125, " +
    "and a standby, which asks again, is told 75.\n\n" +
    "At the end of an archive that wal-receive feeds, the unfinished segment is given, filled up " +
    "with zeros: recovery gets every commit that was stored. WALNUT_FETCH_PARTIAL=false prevents it.\n\n" +
    "During a recovery a second process fetches the segments that come next, so that the calls for " +
    "them return at once: WALG_DOWNLOAD_CONCURRENCY=1 turns that off.",
  flags: [{ name: "recovery", value: "<name>", text: "The recovery, as setup's line names it." }],
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
    const recovery = words.value("recovery");
    return {
      name,
      destination,
      recovery: isRecoveryName(recovery ?? "") ? recovery : undefined,
    };
  },

  async run({ name, destination, recovery }, context) {
    const { workingDirectory } = context;
    const wanted = { name, destination: resolve(workingDirectory, destination), recovery };
    const around = await recoveryOf(wanted, context);
    if (around === undefined) return await fetchDirectly(wanted, context);
    const { noteFork, readForkEnd } = await import("../archive/fork-note.ts");
    const end = await readForkEnd(around, name);
    if (end !== undefined)
      return await fetchToFork({ name, destination: wanted.destination, end }, context);
    try {
      await fetchOrTake(wanted, around, context);
    } catch (error) {
      await noteFork(around, name);
      throw error;
    }
  },
};

/** The segment as it was fetched ahead, or else by a fetch of our own. */
async function fetchOrTake(
  wanted: WantedSegment,
  around: Recovery,
  context: Context,
): Promise<void> {
  if (!isAheadWanted(context)) return await fetchDirectly(wanted, context);
  const { config, clock } = context;
  const startMs = clock.monotonicMs();
  const answer = await takeAhead(wanted, around, context);
  if (answer === "ready") return;
  const { walTimeoutMs } = config;
  const leftMs = walTimeoutMs - (clock.monotonicMs() - startMs);
  const limited = { ...config, walTimeoutMs: Math.max(leftMs, walTimeoutMs * OWN_SHARE) };
  // It starts beside the rest of this fetch, and has what comes next the sooner.
  const start = () => startPrefetcher(wanted, around, context);
  const onFound = answer === "absent" ? start : undefined;
  await fetchDirectly(wanted, { ...context, config: limited }, onFound);
}

/** Of a timeline that recovery leaves within the segment: what is before that. */
async function fetchToFork(segment: ForkSegment, context: Context): Promise<void> {
  const { config, log, signal } = context;
  const { fetchForkSegment } = await import("../archive/fork-segment.ts");
  const limits = { timeoutMs: config.walTimeoutMs, signal };
  await using storage = await context.openStorage();
  const { codecJobs, canEndAtHole } = config;
  await fetchForkSegment(storage, segment, { ...limits, codecJobs, canEndAtHole, log });
}

async function fetchDirectly(
  { name, destination }: { readonly name: string; readonly destination: string },
  context: Context,
  onFound?: () => void,
): Promise<void> {
  const [{ fetchWal }, { withinDeadline }] = await Promise.all([
    import("../archive/fetch.ts"),
    import("../archive/deadline.ts"),
  ]);
  const { config, log, signal } = context;
  const limits = { timeoutMs: config.walTimeoutMs, signal };
  await using storage = await withinDeadline(limits, ({ begin }) => {
    begin("opening the storage");
    return context.openStorage();
  });
  await fetchWal(storage, name, destination, {
    ...limits,
    codecJobs: config.codecJobs,
    cacheDirectory: config.cacheDirectory,
    usePartial: config.isPartialFetched,
    canEndAtHole: config.canEndAtHole,
    ...(onFound === undefined ? {} : { onFound }),
    log,
  });
  log.debug("fetched", { wal: name, storage: storage.name });
}
