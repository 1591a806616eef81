import { tarFolder } from "../layout/keys.ts";
import { formatSegmentName } from "../postgres/wal-file.ts";
import type { ObjectKey } from "../storage/storage.ts";
import { groupStart } from "./commit-index.ts";
import type { Finding } from "./finding.ts";
import { compareMarks, isSumMark, MarkMemory } from "./object-marks.ts";
import type { VerifyItem } from "./verify-plan.ts";
import type { WalObjects } from "./wal-objects.ts";

/** How many parts and segments the listing could be held against what was read before. */
export interface MarkCounts {
  /** The store's checksum is that of the object that was read. */
  readonly same: number;
  /** Checksum or size is another one. */
  readonly changed: number;
  /** There is a checksum, but the object was not read whole yet, or in another store. */
  readonly unread: number;
  /** The store tells no checksum: sizes were compared, where the object was read before. */
  readonly untold: number;
}

/** Holds what the listing says of each object against what it said when that was read whole. */
export class MarkCheck {
  readonly #memory: MarkMemory;
  readonly #wal: WalObjects;
  readonly #segmentBytes: number;
  readonly #changed = new Set<ObjectKey>();
  readonly #counts = { same: 0, changed: 0, unread: 0, untold: 0 };

  constructor(known: ReadonlyMap<string, string>, wal: WalObjects, segmentBytes: number) {
    this.#memory = new MarkMemory(known);
    this.#wal = wal;
    this.#segmentBytes = segmentBytes;
  }

  get counts(): MarkCounts {
    return { ...this.#counts };
  }

  /** Gives the items in which something changed: only reading them tells what it is. */
  compare(items: readonly VerifyItem[]): ReadonlySet<VerifyItem> {
    const suspects = new Set<VerifyItem>();
    for (const item of items) {
      const group = this.#groupOf(item);
      const before = this.#counts.changed;
      if (item.kind === "part") {
        this.#judge(group, item, () => partKeyOf(item));
      } else {
        for (const row of this.#rowsOf(item)) {
          const place = { place: this.#placeOf(row), mark: this.#wal.markAt(row) };
          this.#judge(group, place, () => this.#wal.keyAt(row));
        }
      }
      if (this.#counts.changed > before) suspects.add(item);
    }
    return suspects;
  }

  /** The object is what it has to be: what the store says of it now is right. */
  learnPart(item: Extract<VerifyItem, { kind: "part" }>): void {
    this.#memory.set(this.#groupOf(item), item.place, item.mark);
  }

  /** The same of a segment. */
  learnSegment(row: number): void {
    if (!this.#isMarked(row)) return;
    const number = this.#wal.segmentNumberAt(row, this.#segmentBytes);
    const group = this.#groupName(this.#wal.timelineAt(row), number);
    this.#memory.set(group, this.#placeOf(row), this.#wal.markAt(row));
  }

  /** What changed is explained, or reported already. */
  settle(key: ObjectKey): void {
    this.#changed.delete(key);
  }

  /** What changed and was not read again. */
  get finding(): readonly Finding[] {
    const [first] = this.#changed;
    if (first === undefined) return [];
    const others = this.#changed.size - 1;
    const text =
      `the store tells another checksum or size ${others === 0 ? "" : `of it and ${others} others `}` +
      "than when it was read; too much to read again now: `walnut verify --full` does";
    return [{ kind: "damaged", subject: first, text }];
  }

  /** To remember, of what there still is. */
  remembered(items: readonly VerifyItem[]): ReadonlyMap<string, string> {
    return this.#memory.only(new Set(items.map((item) => this.#groupOf(item))));
  }

  #judge(
    group: string,
    { place, mark }: { readonly place: number; readonly mark: number },
    keyOf: () => ObjectKey,
  ): void {
    const comparison = compareMarks(this.#memory.get(group, place), mark);
    if (comparison === "changed") this.#changed.add(keyOf());
    const isTold = isSumMark(mark) || comparison === "changed";
    this.#counts[isTold ? comparison : "untold"] += 1;
  }

  *#rowsOf({ rows }: Extract<VerifyItem, { kind: "wal" }>): Generator<number> {
    for (let row = rows.start; row < rows.end; row += 1) {
      if (this.#isMarked(row)) yield row;
    }
  }

  /** Of several objects that hold one segment the first has the place. */
  #isMarked(row: number): boolean {
    if (this.#wal.kindAt(row) !== "segment") return false;
    const name = this.#wal.segmentNameAt(row);
    for (let before = row - 1; before >= 0; before -= 1) {
      if (this.#wal.segmentNameAt(before) !== name) return true;
      if (this.#wal.kindAt(before) === "segment") return false;
    }
    return true;
  }

  #placeOf(row: number): number {
    const number = this.#wal.segmentNumberAt(row, this.#segmentBytes);
    return number - groupStart(number);
  }

  #groupOf(item: VerifyItem): string {
    return item.kind === "part" ? item.backup : this.#groupName(item.timeline, item.first);
  }

  #groupName(timeline: number, number: number): string {
    return formatSegmentName(timeline, BigInt(groupStart(number)), this.#segmentBytes);
  }
}

function partKeyOf({ backup, part }: Extract<VerifyItem, { kind: "part" }>): ObjectKey {
  return `${tarFolder(backup)}${part}`;
}
