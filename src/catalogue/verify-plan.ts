import type { Clock } from "../io/clock.ts";
import type { BackupName } from "../layout/backup-name.ts";
import { tarFolder } from "../layout/keys.ts";
import type { ObjectKey } from "../storage/storage.ts";
import type { Catalogue } from "./catalogue.ts";
import type { ObjectMark } from "./object-marks.ts";
import type { ProvedBackup, ProvedRun, VerifyMemory } from "./verify-memory.ts";

/** Something that is read as a whole: a part of a backup, or neighbouring segments. */
export type VerifyItem =
  | {
      readonly kind: "part";
      readonly backup: BackupName;
      /** Last component of its key. */
      readonly part: string;
      readonly sizeBytes: number;
      /** Counts from 0 within the backup, the same in each run. */
      readonly place: number;
      /** What the listing says of it. */
      readonly mark: ObjectMark;
    }
  | {
      readonly kind: "wal";
      readonly timeline: number;
      /** Numbers of the first and the last segment. */
      readonly first: number;
      readonly last: number;
      /** Rows of the listing, half-open. */
      readonly rows: { readonly start: number; readonly end: number };
      readonly sizeBytes: number;
    };

/** Of the objects that are read for an item. */
export function keysOfItem(item: VerifyItem, { wal }: Pick<Catalogue, "wal">): ObjectKey[] {
  if (item.kind === "part") return [`${tarFolder(item.backup)}${item.part}`];
  const { start, end } = item.rows;
  return Array.from({ length: end - start }, (_, place) => wal.keyAt(start + place));
}

/** When an item was proved last, in milliseconds since 1970; 0 = never. */
export function provedAtMs(memory: VerifyMemory, item: VerifyItem): number {
  if (item.kind === "wal") return walProvedAtMs(memory.wal, item);
  const backup: ProvedBackup | undefined = memory.backups.get(item.backup);
  return backup?.partsAtMs.get(item.part) ?? backup?.allAtMs ?? 0;
}

function walProvedAtMs(
  wal: readonly ProvedRun[],
  { timeline, first, last }: Extract<VerifyItem, { kind: "wal" }>,
): number {
  let oldest = Number.POSITIVE_INFINITY;
  let next = first;
  for (const run of wal) {
    if (run.timeline !== timeline || run.last < next || run.first > last) continue;
    if (run.first > next) return 0;
    oldest = Math.min(oldest, run.atMs);
    next = run.last + 1;
  }
  return next > last ? oldest : 0;
}

/**
 * Chooses what to read with a budget: what changed in the store, what was never proved, then what
 * was proved longest ago; of those alike the newest, which are the most likely to be needed. At
 * least one item, so that a budget smaller than every item proves all in the end. `items` are in
 * order of age, oldest first.
 */
export function chooseSample(
  items: readonly VerifyItem[],
  { memory, suspects }: { memory: VerifyMemory; suspects: ReadonlySet<VerifyItem> },
  budgetBytes: number,
): readonly VerifyItem[] {
  const ranked = items
    .map((item, index) => {
      const atMs = suspects.has(item) ? Number.NEGATIVE_INFINITY : provedAtMs(memory, item);
      return { item, index, atMs };
    })
    .toSorted((one, other) => compare(one.atMs, other.atMs) || other.index - one.index);
  const chosen: typeof ranked = [];
  let leftBytes = budgetBytes;
  for (const candidate of ranked) {
    if (chosen.length > 0 && candidate.item.sizeBytes > leftBytes) continue;
    chosen.push(candidate);
    leftBytes -= candidate.item.sizeBytes;
  }
  return chosen.map(({ item }) => item);
}

/** Also where both are infinite. */
function compare(one: number, other: number): number {
  return one === other ? 0 : one - other;
}

/** Stored bytes of all of them. */
export function sumBytes(items: readonly VerifyItem[]): number {
  return items.reduce((sum, { sizeBytes }) => sum + sizeBytes, 0);
}

/** Since when all of them are proved: 0 = some never were, undefined without any. */
export function oldestProof(
  items: readonly VerifyItem[],
  memory: VerifyMemory,
): number | undefined {
  if (items.length === 0) return undefined;
  return Math.min(...items.map((item) => provedAtMs(memory, item)));
}

/** For how long a verify begins to read more. */
export class TimeBudget {
  readonly startedAtMs: number;
  readonly #budgetMs: number;
  readonly #clock: Clock;
  #hasBegun = false;

  constructor(
    {
      clock,
      budgetMs = Infinity,
    }: { readonly clock: Clock; readonly budgetMs?: number | undefined },
    startedAtMs: number,
  ) {
    this.startedAtMs = startedAtMs;
    this.#budgetMs = budgetMs;
    this.#clock = clock;
  }

  /** Once is always true, so that a time that is too short proves everything in the end, too. */
  mayBegin(): boolean {
    const mayBegin = !this.#hasBegun || this.#isInTime();
    this.#hasBegun = true;
    return mayBegin;
  }

  /**
   * Where time may run out a few items of one kind at once, as long as it lasts: so that parts do
   * not take the turn of segments that have waited longer. Else all of them.
   */
  *batches(items: readonly VerifyItem[], size: number): Generator<readonly VerifyItem[]> {
    if (this.#budgetMs === Infinity) {
      yield items;
      return;
    }
    for (let at = 0; at < items.length && (at === 0 || this.#isInTime());) {
      const some = items.slice(at, at + size);
      const end = some.findIndex(({ kind }) => kind !== some[0]?.kind);
      const batch = end < 0 ? some : some.slice(0, end);
      yield batch;
      at += batch.length;
    }
  }

  #isInTime(): boolean {
    return this.#clock.now() - this.startedAtMs < this.#budgetMs;
  }
}
