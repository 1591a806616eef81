import type { TimeNs } from "../layout/time.ts";
import { type Lsn, lsn } from "../postgres/lsn.ts";
import type { TimelineHistory } from "../postgres/timeline-history.ts";
import type { CommitFinder } from "./commit-finder.ts";
import type { CommitPoint, PlacedEnd } from "./commit-scan.ts";
import type { SegmentRun } from "./segment-set.ts";

/** What is looked for. */
export type FindQuery =
  | { readonly kind: "time"; readonly timeNs: TimeNs }
  | { readonly kind: "lsn"; readonly lsn: Lsn }
  | { readonly kind: "xid"; readonly xid: number }
  | { readonly kind: "relation"; readonly relation: SoughtRelation };

/** A relation by its numbers; any of them may be unknown. */
export interface SoughtRelation {
  readonly databaseOid?: number | undefined;
  readonly oid?: number | undefined;
  readonly relfilenode?: number | undefined;
}

/** One commit or abort that answers. */
export interface FindMatch {
  readonly end: PlacedEnd;
  readonly timeline: number;
  /** The commit before it, unless a hole or the beginning of the archive is between them. */
  readonly before: CommitPoint | undefined;
  /** What it did to the relation that was looked for. */
  readonly effect: "dropped" | "rewritten" | "files removed" | undefined;
}

export interface FindPlace {
  readonly finder: CommitFinder;
  readonly history: TimelineHistory;
  /** Where to look, oldest first; all of it is archived. */
  readonly runs: readonly SegmentRun[];
}

/** Segments that are read together when everything has to be read. */
const CHUNK_SEGMENTS = 16;

/**
 * The answers, oldest first; [] when there is none. Of a time, an LSN and a number it is the one
 * commit at which a restore stops; of a relation, all of the newest segments that have any.
 */
export async function find(place: FindPlace, query: FindQuery): Promise<readonly FindMatch[]> {
  if (query.kind === "time") return await findAt(place, ({ timeNs }) => timeNs >= query.timeNs);
  if (query.kind === "lsn") return await findAt(place, ({ lsn }) => lsn >= query.lsn);
  if (query.kind === "relation") {
    return await findBackwards(place, (end) => effectOn(end, query.relation), "removing");
  }
  const { xid } = query;
  return await findBackwards(place, (end) =>
    end.xid === xid || end.subXids.includes(xid) ? "match" : undefined,
  );
}

/** The first commit for which `isReached`, which stays true from there on. */
async function findAt(
  place: FindPlace,
  isReached: (point: CommitPoint) => boolean,
): Promise<readonly FindMatch[]> {
  const { runs } = place;
  const numbers = new Numbers(runs);
  let low = 0;
  let high = numbers.count;
  while (low < high) {
    const middle = Math.floor((low + high) / 2);
    // A segment without commits is on the side of the next one that has some.
    const next = await nextCommits(place, numbers, { from: middle, to: high });
    if (next === undefined || isReached(next.last)) high = middle;
    else low = next.index + 1;
  }
  // What is reached may be in a segment behind some without commits.
  for (let from = low; from < numbers.count;) {
    const next = await nextCommits(place, numbers, { from, to: numbers.count });
    if (next === undefined) return [];
    const [first] = await matchesIn(
      place,
      { first: Math.max(next.number - 1, 0), last: next.number },
      (end) => (end.kind === "commit" && isReached(end) ? "match" : undefined),
    );
    if (first !== undefined) return [first];
    from = next.index + 1;
  }
  return [];
}

/** The first segment with commits among those of these indexes, half-open. */
async function nextCommits(
  { finder, history }: FindPlace,
  numbers: Numbers,
  { from, to }: { readonly from: number; readonly to: number },
): Promise<{ number: number; index: number; last: CommitPoint } | undefined> {
  const indexes = new Map<number, number>();
  const some = function* (): Generator<number> {
    for (let index = from; index < to; index += 1) {
      const number = numbers.at(index);
      indexes.set(number, index);
      yield number;
    }
  };
  const found = await finder.nearestCommits(history, some());
  const index = indexes.get(found?.number ?? -1);
  const last = found?.commits.last;
  if (found === undefined || index === undefined || last === undefined) return undefined;
  return { number: found.number, index, last };
}

type Judge = (end: PlacedEnd) => FindMatch["effect"] | "match";

/** From the newest segments back, until some have an answer. */
async function findBackwards(
  place: FindPlace,
  judge: Judge,
  needs: "any" | "removing" = "any",
): Promise<readonly FindMatch[]> {
  const { finder, history } = place;
  for (const run of place.runs.toReversed()) {
    for (let last = run.last; last >= run.first; last -= CHUNK_SEGMENTS) {
      const first = Math.max(run.first, last - CHUNK_SEGMENTS + 1);
      const isWorthIt = needs === "any" || (await finder.mayRemove(history, { first, last }));
      if (!isWorthIt) continue;
      const matches = await matchesIn(place, { first, last }, judge);
      if (matches.length > 0) return matches;
    }
  }
  return [];
}

async function matchesIn(
  place: FindPlace,
  range: SegmentRun,
  judge: Judge,
): Promise<readonly FindMatch[]> {
  const { finder, history } = place;
  const matches: FindMatch[] = [];
  let before: CommitPoint | undefined;
  for await (const { end, timeline } of finder.ends(history, range)) {
    const verdict = judge(end);
    if (verdict !== undefined) {
      const effect = verdict === "match" ? undefined : verdict;
      matches.push({ end, timeline, before, effect });
    }
    if (end.kind === "commit") before = { lsn: end.lsn, timeNs: end.timeNs, xid: end.xid };
  }
  const [first, ...others] = matches;
  if (first === undefined || first.before !== undefined) return matches;
  return [{ ...first, before: await commitBefore(place, range.first) }, ...others];
}

/** The last commit in segments before this one, back to a hole. */
async function commitBefore(
  { finder, history, runs }: FindPlace,
  number: number,
): Promise<CommitPoint | undefined> {
  const run = runs.find((one) => one.first < number && number <= one.last + 1);
  if (run === undefined) return undefined;
  return await finder.lastCommit(history, { first: run.first, last: number - 1 }, lsn(0n));
}

/** What a commit does to a relation; undefined for nothing. */
export function effectOn(end: PlacedEnd, relation: SoughtRelation): FindMatch["effect"] {
  if (end.kind !== "commit") return undefined;
  const { databaseOid, oid, relfilenode } = relation;
  const isHere = (other: number): boolean =>
    databaseOid === undefined || other === databaseOid || other === 0;
  const isDropped = end.droppedRelations?.some(
    (dropped) => dropped.relationOid === oid && isHere(dropped.databaseOid),
  );
  if (isDropped === true) return "dropped";
  const isRemoved = end.removedFiles.some(
    (file) => file.relfilenode === relfilenode && isHere(file.databaseOid),
  );
  if (!isRemoved) return undefined;
  return end.droppedRelations === undefined || oid === undefined ? "files removed" : "rewritten";
}

/** Segments of runs, by index, without a list of them. */
class Numbers {
  readonly count: number;
  readonly #runs: readonly SegmentRun[];

  constructor(runs: readonly SegmentRun[]) {
    this.#runs = runs;
    this.count = runs.reduce((sum, { first, last }) => sum + last - first + 1, 0);
  }

  at(index: number): number {
    let left = index;
    for (const { first, last } of this.#runs) {
      const count = last - first + 1;
      if (left < count) return first + left;
      left -= count;
    }
    throw new RangeError(`no segment ${index} of ${this.count}`);
  }
}
