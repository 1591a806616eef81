import type { CatalogueBackup } from "../catalogue/catalogue.ts";
import { chainOf } from "../catalogue/chain.ts";
import { timeMsOf, type TimeNs } from "../layout/time.ts";
import { formatSegmentName } from "../postgres/wal-file.ts";
import { Reasons, type Selection, WHOLE_SCOPE } from "./selection.ts";
import type { Survey } from "./survey.ts";
import { byEnd, findFault, wayToNewest, type WayToNewest } from "./wholeness.ts";

/** What an administrator wants to keep: whatever any of the rules keeps stays. */
export interface RetentionPolicy {
  /** Newest full backups, with the increments on them. */
  readonly fullCount?: number | undefined;
  /** Every time within so many days can be restored to, and every backup of that time stays. */
  readonly windowDays?: number | undefined;
  /** The newest backup of each of so many days, weeks, months, years in which there is one. */
  readonly daily?: number | undefined;
  readonly weekly?: number | undefined;
  readonly monthly?: number | undefined;
  readonly yearly?: number | undefined;
  /** Every time within so many days can be restored to; older backups keep their own WAL only. */
  readonly pitrDays?: number | undefined;
  /** Never are fewer restorable full backups left than this. */
  readonly minimumFulls: number;
}

const NS_PER_DAY = 86_400_000_000_000n;
const MS_PER_DAY = 86_400_000;

/** Whether the policy says anything: noughts alone, which may mean "off", keep nothing. */
export function isPolicyGiven(policy: RetentionPolicy): boolean {
  const { minimumFulls: _, ...rules } = policy;
  return Object.values(rules).some((value) => value !== undefined && value > 0);
}

/** Decides by the policy which backups stay. Pure: `nowNs` is when "within so many days" ends. */
export function selectByPolicy(survey: Survey, policy: RetentionPolicy, nowNs: TimeNs): Selection {
  return new PolicyRun(survey, policy, nowNs).select();
}

class PolicyRun {
  readonly #survey: Survey;
  readonly #policy: RetentionPolicy;
  readonly #nowNs: TimeNs;
  readonly #reasons = new Reasons();
  /** By position. */
  readonly #backups: readonly CatalogueBackup[];
  /** Those that count: the sound ones, unless there are none. */
  readonly #candidates: readonly CatalogueBackup[];
  readonly #times: ReadonlyMap<CatalogueBackup, TimeNs>;
  readonly #ways = new Map<CatalogueBackup, WayToNewest | undefined>();

  constructor(survey: Survey, policy: RetentionPolicy, nowNs: TimeNs) {
    this.#survey = survey;
    this.#policy = policy;
    this.#nowNs = nowNs;
    this.#backups = survey.catalogue.backups;
    const sound = this.#backups.filter((backup) => isSound(survey, backup));
    this.#candidates = sound.length > 0 ? sound : this.#backups;
    this.#times = latestTimes(this.#backups);
  }

  select(): Selection {
    const { windowDays, pitrDays } = this.#policy;
    this.#keepFulls();
    this.#keepPeriods();
    const window = windowDays === undefined ? undefined : this.#keepWindow(windowDays);
    const pitr = pitrDays === undefined ? undefined : this.#keepPitr(pitrDays);
    this.#keepMinimum();
    this.#keepNewest();
    const promises = [window, pitr].filter((one) => one !== undefined);
    const [widest] = promises.toSorted((one, other) => (one.fromNs < other.fromNs ? -1 : 1));
    return {
      kept: this.#reasons.all,
      replayFrom: this.#replayFrom(widest),
      scope: WHOLE_SCOPE,
      promise:
        widest?.backup === undefined
          ? undefined
          : { fromNs: widest.fromNs, backup: widest.backup.name },
    };
  }

  #keepFulls(): void {
    const { fullCount } = this.#policy;
    if (fullCount === undefined) return;
    const fulls = this.#candidates.filter(isFull);
    const kept = new Set(fullCount === 0 ? [] : fulls.slice(-fullCount));
    const reason =
      fullCount === 1 ? "the newest full backup" : `one of the newest ${fullCount} full backups`;
    for (const full of kept) this.#reasons.add(full, reason);
    for (const backup of this.#candidates) {
      const root = chainOf(this.#survey, backup).at(-1);
      if (typeof root === "string" || root === undefined || root === backup) continue;
      if (kept.has(root)) this.#reasons.add(backup, `increment on full backup ${root.name}`);
    }
  }

  #keepPeriods(): void {
    const { daily, weekly, monthly, yearly } = this.#policy;
    const rules = [
      ["day", daily, dayOf],
      ["week", weekly, weekOf],
      ["month", monthly, monthOf],
      ["year", yearly, yearOf],
    ] as const;
    for (const [word, count, periodOf] of rules) {
      if (count === undefined) continue;
      const newest = new Map<string, CatalogueBackup>();
      for (const backup of this.#candidates) {
        const timeNs = this.#times.get(backup);
        if (timeNs === undefined) continue;
        const period = periodOf(new Date(timeMsOf(timeNs)));
        const before = newest.get(period);
        if (before === undefined || this.#isBetter(backup, before)) newest.set(period, backup);
      }
      const periods = [...newest].toSorted(([one], [other]) => (one < other ? 1 : -1));
      for (const [period, backup] of periods.slice(0, count)) {
        this.#reasons.add(backup, `newest of ${word} ${period}`);
      }
    }
  }

  /** A full backup stands for its period before increments, then the later one. */
  #isBetter(backup: CatalogueBackup, other: CatalogueBackup): boolean {
    if (isFull(backup) !== isFull(other)) return isFull(backup);
    return (this.#times.get(backup) ?? 0n) >= (this.#times.get(other) ?? 0n);
  }

  #keepWindow(days: number): { fromNs: TimeNs; backup: CatalogueBackup | undefined } {
    const fromNs = this.#nowNs - BigInt(days) * NS_PER_DAY;
    for (const backup of this.#backups) {
      const timeNs = this.#times.get(backup);
      if (timeNs === undefined) this.#reasons.add(backup, "when it was taken is not recorded");
      else if (timeNs > fromNs) this.#reasons.add(backup, `taken within the ${lastDays(days)}`);
    }
    const backup = this.#startOf(fromNs);
    if (backup !== undefined) this.#reasons.add(backup, `start of the ${lastDays(days)}`);
    return { fromNs, backup };
  }

  #keepPitr(days: number): { fromNs: TimeNs; backup: CatalogueBackup | undefined } {
    const fromNs = this.#nowNs - BigInt(days) * NS_PER_DAY;
    const backup = this.#startOf(fromNs);
    if (backup !== undefined) {
      const span = days === 0 ? "" : `the ${lastDays(days)} of `;
      this.#reasons.add(backup, `start of ${span}point-in-time recovery`);
      this.#keepBehindHoles(backup);
    }
    return { fromNs, backup };
  }

  /**
   * With which a restore to that time begins, on the way to the newest timeline: the newest backup
   * that was ready by then; where there is none, the one that was ready first.
   */
  #startOf(timeNs: TimeNs): CatalogueBackup | undefined {
    const leading = this.#leading();
    const ready = leading.filter((backup) => (this.#times.get(backup) ?? timeNs + 1n) <= timeNs);
    return ready.at(-1) ?? this.#firstToEnd(leading);
  }

  /** Those that lead to the newest timeline; if none does, nothing better is known than all. */
  #leading(): readonly CatalogueBackup[] {
    const leading = this.#candidates.filter((backup) => this.#way(backup) !== undefined);
    return leading.length > 0 ? leading : this.#candidates;
  }

  /** The one from which the earliest position can be restored to: not always the first to begin. */
  #firstToEnd(backups: readonly CatalogueBackup[]): CatalogueBackup | undefined {
    const timeOf = (backup: CatalogueBackup): number => Number(this.#times.get(backup) ?? 0n);
    return backups.toSorted((one, other) => byEnd(one, other) || timeOf(one) - timeOf(other))[0];
  }

  #way(backup: CatalogueBackup): WayToNewest | undefined {
    const known = this.#ways.get(backup);
    if (known !== undefined || this.#ways.has(backup)) return known;
    const way = wayToNewest(this.#survey, backup);
    this.#ways.set(backup, way);
    return way;
  }

  /** A replay ends where a segment is missing: what lies behind is reached from the next backup. */
  #keepBehindHoles(start: CatalogueBackup): void {
    const { segmentBytes } = this.#survey;
    const leading = this.#leading();
    let hole = this.#way(start)?.hole;
    while (hole !== undefined) {
      const { timeline, segmentNumber } = hole;
      const behind = leading.filter((one) => (this.#way(one)?.first ?? 0) > segmentNumber);
      const next = this.#firstToEnd(behind);
      if (next === undefined) return;
      const name = formatSegmentName(timeline, BigInt(segmentNumber), segmentBytes);
      this.#reasons.add(next, `first behind WAL segment ${name}, which is missing`);
      hole = this.#way(next)?.hole;
    }
  }

  #keepMinimum(): void {
    const { minimumFulls } = this.#policy;
    if (minimumFulls <= 0) return;
    for (const full of this.#candidates.filter(isFull).slice(-minimumFulls)) {
      this.#reasons.add(
        full,
        `never fewer than ${minimumFulls} full ${minimumFulls === 1 ? "backup" : "backups"}`,
      );
    }
  }

  /** The newest that can be relied on, and those after it: they may be whole in a moment. */
  #keepNewest(): void {
    const newest = this.#candidates.at(-1);
    if (newest === undefined) return;
    this.#reasons.add(newest, "the newest backup without known damage");
    for (const backup of this.#backups.slice(this.#backups.indexOf(newest) + 1)) {
      this.#reasons.add(backup, `newer than ${newest.name}, but damaged or not complete`);
    }
  }

  #replayFrom(
    promise: { fromNs: TimeNs; backup: CatalogueBackup | undefined } | undefined,
  ): Selection["replayFrom"] {
    const kept = this.#backups.filter((backup) => this.#reasons.has(backup));
    const replayed =
      promise === undefined
        ? kept
        : kept.filter((backup) => {
            const timeNs = this.#times.get(backup);
            return backup === promise.backup || timeNs === undefined || timeNs > promise.fromNs;
          });
    return new Map(
      replayed.map((backup) => [
        backup.name,
        `WAL for point-in-time recovery since ${backup.name}`,
      ]),
    );
  }
}

/** Without fault as far as the listing shows, and without damaged pages in the chain. */
export function isSound(survey: Survey, backup: CatalogueBackup): boolean {
  const isClean = chainOf(survey, backup).every(
    (member) => typeof member !== "string" && (member.corruptPages ?? 0) === 0,
  );
  return isClean && findFault(survey, backup) === undefined;
}

/** A catch-up backup has no base, and is none for a restore. */
export function isFull({ baseName }: CatalogueBackup): boolean {
  return baseName === undefined;
}

/**
 * When each backup was finished by its own record; for one without record the latest that it can
 * have been: when the next one by position was.
 */
function latestTimes(backups: readonly CatalogueBackup[]): ReadonlyMap<CatalogueBackup, TimeNs> {
  const times = new Map<CatalogueBackup, TimeNs>();
  let next: { readonly timeline: number; readonly timeNs: TimeNs } | undefined;
  for (const backup of backups.toReversed()) {
    const { timeline } = backup;
    const recorded = backup.finishTimeNs ?? backup.startTimeNs;
    const timeNs = recorded ?? (next?.timeline === timeline ? next.timeNs : undefined);
    if (timeNs === undefined) continue;
    times.set(backup, timeNs);
    next = { timeline, timeNs };
  }
  return times;
}

function dayOf(date: Date): string {
  return date.toISOString().slice(0, 10);
}

/** "2026-W47". @source ISO 8601: the week of its Thursday. */
function weekOf(date: Date): string {
  const weekday = (date.getUTCDay() + 6) % 7;
  const thursday = new Date(date.getTime() + (3 - weekday) * MS_PER_DAY);
  const firstDay = Date.UTC(thursday.getUTCFullYear(), 0, 1);
  const week = Math.floor((thursday.getTime() - firstDay) / (7 * MS_PER_DAY)) + 1;
  return `${thursday.getUTCFullYear()}-W${String(week).padStart(2, "0")}`;
}

function monthOf(date: Date): string {
  return date.toISOString().slice(0, 7);
}

function yearOf(date: Date): string {
  return date.toISOString().slice(0, 4);
}

function lastDays(days: number): string {
  return days === 1 ? "last day" : `last ${days} days`;
}
