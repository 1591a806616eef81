import { readdir } from "node:fs/promises";
import { join, resolve } from "node:path";
import { fetchWal } from "../archive/fetch.ts";
import {
  listLocalHistories,
  readLocalControl,
  readLocalHistory,
} from "../archive/local-control.ts";
import { findFork, missingSegments } from "../archive/rewind-plan.ts";
import { OperationError, RefusedError, WrongClusterError } from "../errors.ts";
import { localFileError } from "../io/system-error.ts";
import type { PgControl } from "../postgres/pg-control.ts";
import { isAncestor, type TimelineHistory } from "../postgres/timeline-history.ts";
import { formatHistoryName } from "../postgres/wal-file.ts";
import type { Storage } from "../storage/storage.ts";
import type { Command, Context } from "./command.ts";
import { requirePositionals } from "./words.ts";

interface Arguments {
  readonly target: string;
  readonly source: string;
}

/** One of the two servers. */
interface Side {
  readonly directory: string;
  readonly walDirectory: string;
  readonly control: PgControl;
  readonly history: TimelineHistory;
}

/** `walnut wal-restore`, before pg_rewind. */
export const walRestore: Command<Arguments> = {
  name: "wal-restore",
  usage: "wal-restore <target data directory> <source data directory>",
  summary: "Bring the WAL that pg_rewind needs from the archive.",
  details:
    "The target is the old primary that is to be rewound, the source the new one. Segments from the " +
    "place where both parted, which are gone from pg_wal, are brought back: the new primary's into " +
    "its pg_wal, the old primary's own into its. Nothing that is there is touched, and every segment " +
    "is checked before it gets its name.\n\n" +
    "It fails if one of them is not in the archive, but brings all others first. From PostgreSQL 13 " +
    "on, pg_rewind --restore-target-wal uses restore_command and needs no help.",
  flags: [],
  needsConfig: true,

  parse(words) {
    const [target = "", source = ""] = requirePositionals(words, [
      "the data directory to rewind",
      "the data directory of the new primary",
    ]);
    return { target, source };
  },

  async run(args, context) {
    const { log, workingDirectory } = context;
    const target = await readSide(resolve(workingDirectory, args.target), "own");
    const source = await readSide(resolve(workingDirectory, args.source), "newest");
    if (target.control.systemId !== source.control.systemId) {
      throw new WrongClusterError(
        `${target.directory} is of cluster ${target.control.systemId}, ` +
          `${source.directory} of cluster ${source.control.systemId}`,
        { hint: "pg_rewind works between servers of one cluster only." },
      );
    }
    const fork = findFork(target.history, source.history);
    const wanted = (await Promise.all([source, target].map((side) => missing(side, fork)))).flat();
    if (wanted.length === 0) return log.info("No WAL files to restore");
    await using storage = await context.openStorage();
    await bring(storage, wanted, context);
  },
};

type Wanted = { readonly name: string; readonly path: string };

async function missing(
  { walDirectory, control, history }: Side,
  fork: Parameters<typeof missingSegments>[0]["fork"],
): Promise<readonly Wanted[]> {
  const local = await readdir(walDirectory).catch((error: unknown) => {
    throw localFileError("list", walDirectory, error);
  });
  const segmentBytes = control.walSegmentBytes;
  return missingSegments({ history, fork, segmentBytes, local }).map((name) => ({
    name,
    path: join(walDirectory, name),
  }));
}

async function bring(
  storage: Storage,
  wanted: readonly Wanted[],
  { config, log, signal }: Context,
): Promise<void> {
  const failures: { readonly name: string; readonly error: OperationError }[] = [];
  for (const { name, path } of wanted) {
    try {
      await fetchWal(storage, name, path, {
        timeoutMs: config.walTimeoutMs,
        codecJobs: config.codecJobs,
        cacheDirectory: config.cacheDirectory,
        usePartial: false,
        log,
        signal,
      });
      log.info("restored", { wal: name, path });
    } catch (error) {
      if (!(error instanceof OperationError) || signal.aborted) throw error;
      log.error("not restored", { wal: name, reason: error.message });
      failures.push({ name, error });
    }
  }
  const [first] = failures;
  if (first === undefined) return;
  throw new RefusedError(
    `${failures.length} of ${wanted.length} WAL segments could not be restored, the first is ` +
      `${first.name}: ${first.error.message}`,
    {
      cause: first.error,
      hint: "pg_rewind will fail where it needs them: rebuild the server then.",
    },
  );
}

async function readSide(directory: string, which: "own" | "newest"): Promise<Side> {
  const control = await readLocalControl(directory);
  if (control === undefined) {
    throw new RefusedError(`${directory} is no data directory: it has no pg_control`);
  }
  const walDirectory = join(directory, "pg_wal");
  const { timeline } = control;
  // pg_control of a server that was just promoted names its old timeline still.
  const newest =
    which === "newest"
      ? (await listLocalHistories(walDirectory)).find((history) => isAncestor(history, timeline))
      : await readLocalHistory(walDirectory, timeline);
  const history = newest ?? (timeline === 1 ? { timeline, ancestors: [] } : undefined);
  if (history === undefined) {
    throw new RefusedError(`${formatHistoryName(timeline)} is not in ${walDirectory}`, {
      hint: "Bring it with `walnut wal-fetch`, then try again.",
    });
  }
  return { directory, walDirectory, control, history };
}
