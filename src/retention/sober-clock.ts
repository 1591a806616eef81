import { CommitFinder } from "../catalogue/commit-finder.ts";
import { historyOf, walView } from "../catalogue/wal-view.ts";
import type { Clock } from "../io/clock.ts";
import type { Log } from "../io/log.ts";
import { formatTimeUtc, type TimeNs, timeNsOf } from "../layout/time.ts";
import { lsn } from "../postgres/lsn.ts";
import type { Storage } from "../storage/storage.ts";
import type { Survey } from "./survey.ts";

const NS_PER_DAY = 86_400_000_000_000n;
/** Segments that are read at most, the newest first, for a commit. */
const LOOKED_MAX = 16;

export interface SoberClockOptions {
  readonly clock: Clock;
  readonly log: Log;
  readonly signal: AbortSignal;
}

/**
 * The time from which retention counts days: the clock's, but at most a day later than what the
 * repository recorded last itself, a backup's end or a commit. So a clock that is a year ahead, or
 * an archive that stands still, ends no promise: nothing came after what is there.
 */
export async function soberNow(
  storage: Storage,
  survey: Survey,
  options: SoberClockOptions,
): Promise<TimeNs> {
  const { clock, log } = options;
  const nowNs = timeNsOf(clock.now());
  const newestBackupNs = newestFinish(survey);
  if (newestBackupNs === undefined) return nowNs;
  const isFresh = nowNs <= newestBackupNs + NS_PER_DAY;
  const commitNs = isFresh ? undefined : await newestCommit(storage, survey, options);
  const recordedNs =
    commitNs !== undefined && commitNs > newestBackupNs ? commitNs : newestBackupNs;
  const [newest, now] = [formatTimeUtc(recordedNs), formatTimeUtc(nowNs)];
  if (recordedNs > nowNs + NS_PER_DAY) {
    log.warning("the newest backup is of the future: is this machine's clock behind?", {
      newest,
      clock: now,
    });
  }
  const latestNs = recordedNs + NS_PER_DAY;
  if (nowNs <= latestNs) return nowNs;
  log.warning("the repository holds nothing newer: days are counted from there, not from now", {
    newest,
    clock: now,
    hint: "Do backups and archiving still run, and is this machine's clock right?",
  });
  return latestNs;
}

function newestFinish({ catalogue: { backups } }: Survey): TimeNs | undefined {
  let newestNs: TimeNs | undefined;
  for (const { finishTimeNs, startTimeNs } of backups) {
    const timeNs = finishTimeNs ?? startTimeNs;
    if (timeNs !== undefined && (newestNs === undefined || timeNs > newestNs)) newestNs = timeNs;
  }
  return newestNs;
}

/** The last commit of the newest timeline, if the last segments of it have any. */
async function newestCommit(
  storage: Storage,
  { catalogue }: Survey,
  { signal }: SoberClockOptions,
): Promise<TimeNs | undefined> {
  const view = walView(catalogue);
  const set = [...view.sets.values()].at(-1);
  const run = set?.runs.at(-1);
  if (set === undefined || run === undefined) return undefined;
  // What it learns is not written down: a plan changes nothing.
  const options = { jobs: 1, codecJobs: 1, signal };
  const finder = await CommitFinder.open(storage, { catalogue, view }, options);
  const range = { first: Math.max(run.first, run.last - LOOKED_MAX + 1), last: run.last };
  const commit = await finder.lastCommit(historyOf(view, set.timeline), range, lsn(0n));
  return commit?.timeNs;
}
