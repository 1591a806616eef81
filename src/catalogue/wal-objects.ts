import { COMPRESSED_EXTENSIONS, WAL_FOLDER } from "../layout/keys.ts";
import { withSum } from "../storage/object-sum.ts";
import type { ObjectInfo, ObjectKey } from "../storage/storage.ts";
import { markOf, type ObjectMark } from "./object-marks.ts";

/** What an object in the WAL folder is, by what follows the 24 digits of a segment in its key. */
export type WalObjectKind =
  /** The whole segment. */
  | "segment"
  | "partial"
  /** PostgreSQL's note of a backup that began in the segment. */
  | "backup-label"
  /** WAL-G's list of changed blocks of 16 segments, this being the first of them. */
  | "delta"
  /** WAL-G's note of when the segment was made. */
  | "note"
  /** Nothing that we know: never touched. */
  | "unknown";

interface Suffix {
  readonly text: string;
  readonly kind: WalObjectKind;
  /** Of the compression, without dot. */
  readonly extension: string;
}

const SEGMENT_DIGITS = /^([0-9A-F]{8})([0-9A-F]{8})([0-9A-F]{8})/;
const KINDS: readonly (readonly [RegExp, WalObjectKind])[] = [
  [/^$/, "segment"],
  [/^\.partial$/, "partial"],
  [/^\.[0-9A-F]{8}\.backup$/, "backup-label"],
  [/^_delta$/, "delta"],
  [/^\.json$/, "note"],
];
const FIRST_CAPACITY = 1024;

/**
 * Every object of the WAL folder that is named after a segment, in the order of their keys: by
 * timeline, then by position, the objects of one segment side by side. 24 bytes each, so that a
 * million of them fit beside everything else.
 */
export class WalObjects {
  #count = 0;
  #timelines = new Uint32Array(FIRST_CAPACITY);
  #highs = new Uint32Array(FIRST_CAPACITY);
  #lows = new Uint32Array(FIRST_CAPACITY);
  #suffixCodes = new Uint32Array(FIRST_CAPACITY);
  #sizes = new Uint32Array(FIRST_CAPACITY);
  #marks = new Uint32Array(FIRST_CAPACITY);
  readonly #suffixes: Suffix[] = [];
  readonly #codes = new Map<string, number>();

  /** How many there are; rows are numbered from 0. */
  get count(): number {
    return this.#count;
  }

  /** Takes an object in, in the order of keys. False, and nothing is done, if it is no such. */
  add({ key, sizeBytes, sum }: Pick<ObjectInfo, "key" | "sizeBytes" | "sum">): boolean {
    const name = key.slice(WAL_FOLDER.length);
    const match = SEGMENT_DIGITS.exec(name);
    if (match === null || name.includes("/")) return false;
    if (this.#count === this.#timelines.length) this.#grow();
    const row = this.#count;
    this.#timelines[row] = Number.parseInt(match[1] ?? "", 16);
    this.#highs[row] = Number.parseInt(match[2] ?? "", 16);
    this.#lows[row] = Number.parseInt(match[3] ?? "", 16);
    this.#suffixCodes[row] = this.#codeOf(name.slice(24));
    this.#sizes[row] = Math.min(sizeBytes, 0xffff_ffff);
    this.#marks[row] = markOf({ sizeBytes, ...withSum(sum) });
    this.#count += 1;
    return true;
  }

  timelineAt(row: number): number {
    return this.#timelines[row] ?? 0;
  }

  /** The second eight digits of the segment's name. */
  highAt(row: number): number {
    return this.#highs[row] ?? 0;
  }

  /** The last eight digits of the segment's name. */
  lowAt(row: number): number {
    return this.#lows[row] ?? 0;
  }

  /** Number of the segment in its timeline: exact, as it has at most 44 bits. */
  segmentNumberAt(row: number, segmentBytes: number): number {
    return this.highAt(row) * segmentsPerHigh(segmentBytes) + this.lowAt(row);
  }

  kindAt(row: number): WalObjectKind {
    return this.#suffixAt(row).kind;
  }

  /** Of the compression, without dot; "" for none. */
  extensionAt(row: number): string {
    return this.#suffixAt(row).extension;
  }

  /** As stored; what is larger than 4 GiB counts as that. */
  sizeAt(row: number): number {
    return this.#sizes[row] ?? 0;
  }

  /** What the listing says of its bytes. */
  markAt(row: number): ObjectMark {
    return this.#marks[row] ?? 0;
  }

  keyAt(row: number): ObjectKey {
    return `${WAL_FOLDER}${this.segmentNameAt(row)}${this.#suffixAt(row).text}`;
  }

  /** The 24 digits. */
  segmentNameAt(row: number): string {
    return hex8(this.timelineAt(row)) + hex8(this.highAt(row)) + hex8(this.lowAt(row));
  }

  /** The rows of each timeline, half-open, ascending by timeline. */
  timelineRanges(): readonly TimelineRows[] {
    const ranges: TimelineRows[] = [];
    let start = 0;
    while (start < this.#count) {
      const timeline = this.timelineAt(start);
      const end = this.#endOf(timeline, start);
      ranges.push({ timeline, start, end });
      start = end;
    }
    return ranges;
  }

  /** First row of a timeline's that is named after this segment or a later one. */
  firstRowOf({ start, end }: TimelineRows, number: number, segmentBytes: number): number {
    let low = start;
    let high = end;
    while (low < high) {
      const middle = Math.floor((low + high) / 2);
      if (this.segmentNumberAt(middle, segmentBytes) < number) low = middle + 1;
      else high = middle;
    }
    return low;
  }

  /** First row behind a timeline, which begins at `start`. */
  #endOf(timeline: number, start: number): number {
    let low = start;
    let high = this.#count;
    while (low < high) {
      const middle = Math.floor((low + high) / 2);
      if (this.timelineAt(middle) <= timeline) low = middle + 1;
      else high = middle;
    }
    return low;
  }

  #suffixAt(row: number): Suffix {
    const suffix = this.#suffixes[this.#suffixCodes[row] ?? 0];
    if (suffix === undefined || row >= this.#count) throw new RangeError(`no row ${row}`);
    return suffix;
  }

  #codeOf(text: string): number {
    const known = this.#codes.get(text);
    if (known !== undefined) return known;
    const code = this.#suffixes.length;
    this.#suffixes.push(parseSuffix(text));
    this.#codes.set(text, code);
    return code;
  }

  #grow(): void {
    const capacity = this.#timelines.length * 2;
    this.#timelines = grown(this.#timelines, capacity);
    this.#highs = grown(this.#highs, capacity);
    this.#lows = grown(this.#lows, capacity);
    this.#suffixCodes = grown(this.#suffixCodes, capacity);
    this.#sizes = grown(this.#sizes, capacity);
    this.#marks = grown(this.#marks, capacity);
  }
}

/** Rows `[start, end)` of one timeline. */
export interface TimelineRows {
  readonly timeline: number;
  readonly start: number;
  readonly end: number;
}

/** How many segments share their second eight digits. */
export function segmentsPerHigh(segmentBytes: number): number {
  return 2 ** 32 / segmentBytes;
}

function grown(column: Uint32Array, capacity: number): Uint32Array<ArrayBuffer> {
  const larger = new Uint32Array(capacity);
  larger.set(column);
  return larger;
}

function parseSuffix(text: string): Suffix {
  const { stem, extension } = withoutCompression(text);
  const kind = KINDS.find(([pattern]) => pattern.test(stem))?.[1] ?? "unknown";
  return { text, kind, extension };
}

/** "." at the end is how WAL-G before 3.0.9 named what it did not compress. */
function withoutCompression(text: string): { readonly stem: string; readonly extension: string } {
  const dot = text.lastIndexOf(".");
  const last = text.slice(dot + 1);
  const isCompression =
    dot >= 0 && (last === "" || COMPRESSED_EXTENSIONS.some((known) => known === last));
  if (!isCompression) return { stem: text, extension: "" };
  return { stem: text.slice(0, dot), extension: last };
}

function hex8(value: number): string {
  return value.toString(16).toUpperCase().padStart(8, "0");
}
