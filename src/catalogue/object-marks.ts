import type { ObjectInfo } from "../storage/storage.ts";

/**
 * What a listing says of an object's bytes, in 32 bits: which kind of sum it is, and its first 28
 * bits; the size where the store tells no sum. 0 = nothing is known.
 */
export type ObjectMark = number;

const KINDS = ["size", "md5", "parts", "crc32c"] as const;
const VALUE_BITS = 28;
const VALUE_MASK = 2 ** VALUE_BITS - 1;
const MARK_DIGITS = 8;

export function markOf({ sum, sizeBytes }: Pick<ObjectInfo, "sum" | "sizeBytes">): ObjectMark {
  const [kind, digits = ""] = sum?.split(":") ?? ["size"];
  const code = KINDS.findIndex((known) => known === kind) + 1;
  const value =
    kind === "size" ? sizeBytes % 2 ** VALUE_BITS : Number.parseInt(digits.slice(0, 7), 16);
  return code * 2 ** VALUE_BITS + (value & VALUE_MASK);
}

/**
 * - "same", "changed": by the store's sum, or by the size where there is none.
 * - "unread": nothing is known from before, or another kind of sum (the object is in another store
 *   now).
 */
export type MarkComparison = "same" | "changed" | "unread";

export function compareMarks(known: ObjectMark, now: ObjectMark): MarkComparison {
  if (known === now) return known === 0 ? "unread" : "same";
  return kindOf(known) === kindOf(now) ? "changed" : "unread";
}

/** Whether the store told a sum. */
export function isSumMark(mark: ObjectMark): boolean {
  return kindOf(mark) > 1;
}

function kindOf(mark: ObjectMark): number {
  return Math.floor(mark / 2 ** VALUE_BITS);
}

/** Marks of objects as they were when they were read whole, by group and place in it. */
export class MarkMemory {
  readonly #groups = new Map<string, number[]>();

  constructor(known: ReadonlyMap<string, string>) {
    for (const [group, text] of known) {
      const marks: number[] = [];
      for (let at = 0; at < text.length; at += MARK_DIGITS) {
        marks.push(Number.parseInt(text.slice(at, at + MARK_DIGITS), 16) || 0);
      }
      this.#groups.set(group, marks);
    }
  }

  get(group: string, place: number): ObjectMark {
    return this.#groups.get(group)?.[place] ?? 0;
  }

  set(group: string, place: number, mark: ObjectMark): void {
    const marks = this.#groups.get(group) ?? [];
    while (marks.length < place) marks.push(0);
    marks[place] = mark;
    this.#groups.set(group, marks);
  }

  /** As the constructor takes them; only these groups. */
  only(groups: ReadonlySet<string>): ReadonlyMap<string, string> {
    const kept = new Map<string, string>();
    for (const [group, marks] of this.#groups) {
      if (!groups.has(group)) continue;
      kept.set(group, marks.map((mark) => mark.toString(16).padStart(MARK_DIGITS, "0")).join(""));
    }
    return kept;
  }
}
