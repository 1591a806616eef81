import { parseRelationPath } from "../postgres/relation-file.ts";
import type { Walked } from "./walk.ts";

/** Ways to put files together to parts, but the regular one; the first that is asked for counts. */
export const COMPOSERS = ["copy", "database", "rating"] as const;

/** How files are put together to parts; see COMPOSE.md. */
export type Composer = "regular" | (typeof COMPOSERS)[number];

/** Entries in an order of their own, and which of them may share a part: those of equal groups. */
export interface Composition {
  readonly entries: Iterable<Walked>;
  readonly groupOf: (entry: Walked) => string | number;
}

const DATABASE_DIRECTORY = /^\/(?:base|pg_tblspc\/\d+\/[^/]+)\/(\d+)(?:\/|$)/;

/** In the order of the walk, which stays within a database until it is done with it. */
export function byDatabase(walk: Iterable<Walked>): Composition {
  return { entries: walk, groupOf: ({ name }) => DATABASE_DIRECTORY.exec(name)?.[1] ?? "" };
}

/** In the order of the walk. */
export function inOrder(walk: Iterable<Walked>): Composition {
  return { entries: walk, groupOf: () => "" };
}

/** Changed rows of relations, by `relationGroup`. */
export type UpdateCounts = ReadonlyMap<string, bigint>;

/** Tells the relations of a cluster apart, in whatever tablespace they are. */
export function relationGroup(databaseOid: number, relfilenode: number): string {
  return `${databaseOid}/${relfilenode}`;
}

export interface RatingOptions {
  readonly counts: UpdateCounts;
  /** What the base recorded of files, by their entries' names; those that it counted only. */
  readonly earlier: ReadonlyMap<string, bigint>;
}

const CLASS_STEP = 100n;
const MAX_CLASS = 4;
const PERCENT = 100n;

/**
 * Files that change about as often together. `walks` gives the same entries each time, but for what
 * appears and disappears; each file goes with the first walk that it is seen in, by its class.
 */
export function byRating(
  walks: (index: number) => Iterable<Walked>,
  { counts, earlier }: RatingOptions,
): Composition {
  const countOf = ({ kind, name }: Walked): bigint => {
    const file = kind === "file" ? parseRelationPath(name.slice(1)) : undefined;
    if (file === undefined) return 0n;
    return counts.get(relationGroup(file.databaseOid, file.relfilenode)) ?? 0n;
  };
  const classOf = (entry: Walked): number => {
    const before = earlier.get(entry.name);
    const count = countOf(entry);
    return ratingClass(before === undefined ? count : (count * PERCENT) / before);
  };
  const lastClass = counts.size === 0 ? 0 : MAX_CLASS;
  const entries = function* (): Generator<Walked> {
    for (let current = 0; current <= lastClass; current += 1) {
      for (const entry of walks(current)) {
        if (classOf(entry) !== current) continue;
        yield entry.kind === "file" ? { ...entry, updatesCount: countOf(entry) } : entry;
      }
    }
  };
  return { entries: { [Symbol.iterator]: entries }, groupOf: classOf };
}

/** 0 for what never changes, then one more for each hundredfold. */
function ratingClass(rating: bigint): number {
  let result = 0;
  for (let limit = 1n; rating >= limit && result < MAX_CLASS; limit *= CLASS_STEP) result += 1;
  return result;
}

/** Hands out entries to several who pack parts at the same time, none across a group's border. */
export class GroupedEntries {
  readonly #entries: Iterator<Walked>;
  readonly #groupOf: Composition["groupOf"];
  #next: Walked | undefined;

  constructor({ entries, groupOf }: Composition) {
    this.#entries = entries[Symbol.iterator]();
    this.#groupOf = groupOf;
  }

  /** The first entry of a part, and what may follow it there; undefined when there is none. */
  begin(): { readonly first: Walked; readonly entries: Iterator<Walked> } | undefined {
    const first = this.#take();
    if (first === undefined) return undefined;
    const group = this.#groupOf(first);
    const next = (): IteratorResult<Walked> => {
      const entry = this.#take();
      if (entry !== undefined && this.#groupOf(entry) === group) {
        return { done: false, value: entry };
      }
      this.#next = entry;
      return { done: true, value: undefined };
    };
    return { first, entries: { next } };
  }

  #take(): Walked | undefined {
    const entry = this.#next;
    if (entry !== undefined) {
      this.#next = undefined;
      return entry;
    }
    const step = this.#entries.next();
    return step.done === true ? undefined : step.value;
  }
}
