import { existsSync } from "node:fs";
import { readdir } from "node:fs/promises";
import { join, resolve } from "node:path";
import { fetchWal } from "../archive/fetch.ts";
import {
  listLocalHistories,
  requireLocalControl,
  readLocalHistory,
} from "../archive/local-control.ts";
import { hasCheckpoint } from "../archive/rewind-checkpoint.ts";
import { findFork, missingSegments, segmentNameOn } from "../archive/rewind-plan.ts";
import { OperationError, RefusedError, WrongClusterError } from "../errors.ts";
import { localFileError } from "../io/system-error.ts";
import type { Lsn } from "../postgres/lsn.ts";
import type { PgControl } from "../postgres/pg-control.ts";
import { isAncestor, type TimelineHistory } from "../postgres/timeline-history.ts";
import { formatHistoryName, segmentOfEnd } from "../postgres/wal-file.ts";
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
    "The target is the old primary that is to be rewound, the source the new one. Segments that are " +
    "gone from pg_wal are brought back: the new primary's, from the place where both parted, into its " +
    "pg_wal; the old primary's own into its, those from the last checkpoint before that place, too, " +
    "because pg_rewind begins there. Nothing that is there is touched, and every segment is checked " +
    "before it gets its name.\n\n" +
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
    const { signal, workingDirectory } = context;
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
    await using archive = new Archive(context);
    await bringMissing(source, fork, archive);
    const isToBeRewound = await bringMissing(target, fork, archive);
    if (isToBeRewound) await bringFromCheckpoint(target, fork, { archive, signal });
    archive.finish();
  },
};

/** Gives whether the server wrote anything behind the fork. */
async function bringMissing(
  { walDirectory, control, history }: Side,
  fork: Lsn,
  archive: Archive,
): Promise<boolean> {
  const local = await readdir(walDirectory).catch((error: unknown) => {
    throw localFileError("list", walDirectory, error);
  });
  const { walSegmentBytes: segmentBytes, checkpointLsn } = control;
  const names = missingSegments({ history, fork, segmentBytes, checkpointLsn, local });
  for (const name of names ?? []) await archive.bring(name, walDirectory);
  return names !== undefined;
}

/** So many segments in a row that can't be had are the end of what the archive holds. */
const LACKING_MAX = 8;

/**
 * Goes back from the fork to the checkpoint before it, as pg_rewind does; over segments that can't
 * be had, which may come from elsewhere.
 */
async function bringFromCheckpoint(
  { walDirectory, control, history }: Side,
  fork: Lsn,
  { archive, signal }: { readonly archive: Archive; readonly signal: AbortSignal },
): Promise<void> {
  const segmentBytes = control.walSegmentBytes;
  let lacking = 0;
  let number = segmentOfEnd(fork, segmentBytes);
  for (; number > 0n && lacking < LACKING_MAX; number -= 1n) {
    const name = segmentNameOn(history, number, segmentBytes);
    const path = join(walDirectory, name);
    const isThere = existsSync(path) || (await archive.bring(name, walDirectory));
    if (isThere && (await hasCheckpoint({ name, path }, fork, { signal }))) return;
    lacking = isThere ? 0 : lacking + 1;
  }
}

interface Failure {
  readonly name: string;
  readonly path: string;
  readonly error: OperationError;
}

/** Brings segments, and remembers which of them it could not. */
class Archive implements AsyncDisposable {
  readonly #context: Context;
  #storage: Storage | undefined;
  #wantedCount = 0;
  readonly #failures: Failure[] = [];

  constructor(context: Context) {
    this.#context = context;
  }

  /** Gives whether the segment is there now. What could not be brought is not tried again. */
  async bring(name: string, walDirectory: string): Promise<boolean> {
    const { config, log, signal } = this.#context;
    const path = join(walDirectory, name);
    if (this.#failures.some((failure) => failure.path === path)) return false;
    this.#wantedCount += 1;
    this.#storage ??= await this.#context.openStorage();
    try {
      await fetchWal(this.#storage, name, path, {
        timeoutMs: config.walTimeoutMs,
        codecJobs: config.codecJobs,
        cacheDirectory: config.cacheDirectory,
        usePartial: false,
        log,
        signal,
      });
      log.info("restored", { wal: name, path });
      return true;
    } catch (error) {
      if (!(error instanceof OperationError) || signal.aborted) throw error;
      log.error("not restored", { wal: name, reason: error.message });
      this.#failures.push({ name, path, error });
      return false;
    }
  }

  /** Says that there was nothing to do. Throws RefusedError if a segment could not be brought. */
  finish(): void {
    if (this.#wantedCount === 0) this.#context.log.info("No WAL files to restore");
    const [first] = this.#failures;
    if (first === undefined) return;
    throw new RefusedError(
      `${this.#failures.length} of ${this.#wantedCount} WAL segments could not be restored, the ` +
        `first is ${first.name}: ${first.error.message}`,
      {
        cause: first.error,
        hint: "pg_rewind will fail where it needs them: rebuild the server then.",
      },
    );
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.#storage?.[Symbol.asyncDispose]();
  }
}

async function readSide(directory: string, which: "own" | "newest"): Promise<Side> {
  const control = await requireLocalControl(directory);
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
