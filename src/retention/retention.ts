import { type Catalogue, readCatalogue } from "../catalogue/catalogue.ts";
import type { Clock } from "../io/clock.ts";
import { RateLimit } from "../io/rate-limit.ts";
import { type TimeNs, timeNsOf } from "../layout/time.ts";
import type { Log } from "../io/log.ts";
import type { Storage } from "../storage/storage.ts";
import { findHolds, type Holds, NO_HOLDS, sparing } from "./holds.ts";
import { planRetention, type RetentionPlan } from "./plan.ts";
import { checkPlan } from "./plan-check.ts";
import { applyPlan } from "./removal.ts";
import { readRemovalNotes, type RemovalNote, removalKey } from "./removal-note.ts";
import type { Selection } from "./selection.ts";
import { soberNow } from "./sober-clock.ts";
import { type Survey, surveyOf } from "./survey.ts";

export interface RetentionOptions {
  /** See AbandonRules. */
  readonly abandonedAfterMs: number;
  /** Restorable full backups that have to be left, if there are as many now. */
  readonly minimumFulls: number;
  /** Objects removed per second at most; absent = as fast as the store takes them. */
  readonly deletesPerSecond?: number | undefined;
  readonly clock: Clock;
  readonly log: Log;
  readonly signal: AbortSignal;
}

/** A plan that was checked, and what carrying it out needs. */
export interface PreparedRetention {
  readonly plan: RetentionPlan;
  readonly survey: Survey;
  readonly oldNotes: readonly RemovalNote[];
  readonly selection: Selection;
  readonly holds: Holds;
  /** From when ages are counted: see `soberNow`. */
  readonly nowNs: TimeNs;
}

/**
 * Reads the repository and makes the plan for what `select` wants; undefined if that wants nothing.
 * Nothing is written. Rejects with RefusedError for a plan that would break something.
 */
export async function prepareRetention(
  storage: Storage,
  select: (survey: Survey, nowNs: TimeNs) => Selection | undefined,
  options: RetentionOptions,
): Promise<PreparedRetention | undefined> {
  const { clock, signal } = options;
  const catalogue = await readCatalogue(storage, { signal });
  warnOfProblems(catalogue, options.log);
  const survey = surveyOf(catalogue);
  const nowNs = await soberNow(storage, survey, options);
  const selection = select(survey, nowNs);
  if (selection === undefined) return undefined;
  const oldNotes = await readRemovalNotes(storage, catalogue.ownKeys, { signal });
  const parts = { survey, selection, oldNotes, nowNs };
  const wished = makePlan({ ...parts, holds: NO_HOLDS }, options);
  const keepsVersions = await storage.upkeep?.keepsVersions?.({ signal });
  if (keepsVersions === true) sayVersions(storage, options.log);
  const { log, deletesPerSecond } = options;
  const rateLimit =
    deletesPerSecond === undefined ? undefined : new RateLimit(deletesPerSecond, clock);
  const holds = await findHolds(storage, wished, { signal, nowMs: clock.now(), rateLimit, log });
  const prepared = { ...parts, holds };
  const plan = makePlan(prepared, options);
  checkPlan(plan, options.minimumFulls);
  return { ...prepared, plan };
}

/** Carries it out; gives the number of objects removed. See applyPlan for what it rejects with. */
export async function applyRetention(
  storage: Storage,
  prepared: PreparedRetention,
  options: RetentionOptions & {
    /** Tells this run from others of the same moment. */
    readonly runId: string;
    readonly onProgress?: (removedCount: number) => void;
  },
): Promise<number> {
  const { clock, deletesPerSecond, runId } = options;
  const { onProgress, log, signal, minimumFulls } = options;
  return await applyPlan(storage, prepared.plan, {
    log,
    signal,
    minimumFulls,
    ...(onProgress === undefined ? {} : { onProgress }),
    rateLimit: deletesPerSecond === undefined ? undefined : new RateLimit(deletesPerSecond, clock),
    noteKey: removalKey(timeNsOf(clock.now()), runId),
    oldNotes: prepared.oldNotes,
    replan: (more) => {
      const pins = new Map([...prepared.holds.pins, ...more]);
      return makePlan({ ...prepared, holds: { ...prepared.holds, pins } }, options);
    },
  });
}

/** We never remove versions: they are what helps after a mistake. */
function sayVersions({ name }: Storage, log: Log): void {
  log.info("the bucket keeps versions: what is removed takes its room until the version goes", {
    storage: name,
    hint: "A lifecycle rule for noncurrent versions removes them; docs/retention.md has one.",
  });
}

function makePlan(
  { survey, selection, oldNotes, holds, nowNs }: Omit<PreparedRetention, "plan">,
  { clock, abandonedAfterMs }: RetentionOptions,
): RetentionPlan {
  const plan = planRetention(survey, selection, {
    nowNs,
    clockNs: timeNsOf(clock.now()),
    abandonedAfterMs,
    removing: new Set(oldNotes.flatMap(({ backups }) => backups)),
    pins: holds.pins,
    heldWal: holds.heldWal,
  });
  return sparing(plan, holds);
}

function warnOfProblems({ backups, histories, unknownKeys }: Catalogue, log: Log): void {
  for (const { name, problems } of backups) {
    for (const reason of problems) log.warning("a backup is not wholly readable", { name, reason });
  }
  for (const { key, problem } of histories) {
    if (problem !== undefined) log.warning("a history can't be read", { key, reason: problem });
  }
  const [first] = unknownKeys;
  if (first === undefined) return;
  log.warning("objects that walnut does not know are left alone", {
    count: unknownKeys.length,
    first,
  });
}
