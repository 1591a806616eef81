import type { StoredWal } from "../archive/stored-wal.ts";
import { formatSegmentName } from "../postgres/wal-file.ts";
import type { CallOptions, Storage } from "../storage/storage.ts";
import type { Catalogue } from "./catalogue.ts";
import { type CommitIndex, groupStart } from "./commit-index.ts";
import type { Finding } from "./finding.ts";
import type { HasherPool } from "./hasher-pool.ts";
import { readSegments, type SegmentObject, type SegmentReading } from "./segment-reader.ts";
import { judgeSegment } from "./segment-verdict.ts";
import type { UnfinishedHashes } from "./unfinished-hashes.ts";
import type { ProvedRun } from "./verify-memory.ts";
import type { VerifyItem } from "./verify-plan.ts";
import { segmentsPerHigh } from "./wal-objects.ts";
import type { WalView } from "./wal-view.ts";

const OTHER_BYTES = "its stored bytes are not those that an earlier verify read";

const NEW_BEGINNING =
  "the WAL begins anew with it, as behind pg_resetwal: what follows can't be reached from before";

type WalItem = Extract<VerifyItem, { kind: "wal" }>;

/** All segments of an archive, in groups of neighbours; by timeline and position. */
export function walItems({ wal }: Catalogue, { segmentBytes }: WalView): readonly WalItem[] {
  const items: WalItem[] = [];
  for (const { timeline, start, end } of wal.timelineRanges()) {
    let open: { first: number; last: number; start: number; sizeBytes: number } | undefined;
    const close = (row: number): void => {
      if (open === undefined) return;
      const { first, last, sizeBytes } = open;
      items.push({
        kind: "wal",
        timeline,
        first,
        last,
        rows: { start: open.start, end: row },
        sizeBytes,
      });
      open = undefined;
    };
    for (let row = start; row < end; row += 1) {
      const kind = wal.kindAt(row);
      if (kind !== "segment" && kind !== "partial") continue;
      if (wal.lowAt(row) >= segmentsPerHigh(segmentBytes)) continue;
      const number = wal.segmentNumberAt(row, segmentBytes);
      const isNeighbour =
        open !== undefined &&
        number <= open.last + 1 &&
        groupStart(number) === groupStart(open.first);
      if (!isNeighbour) close(row);
      open ??= { first: number, last: number, start: row, sizeBytes: 0 };
      open.last = number;
      open.sizeBytes += wal.sizeAt(row);
    }
    close(end);
  }
  return items;
}

export interface WalCheckOptions extends CallOptions {
  readonly items: readonly WalItem[];
  readonly index: CommitIndex;
  readonly hashers: HasherPool;
  readonly jobs: number;
  readonly codecJobs: number;
  readonly isRelearning: boolean;
  readonly unfinished: UnfinishedHashes;
  readonly atMs: number;
  /** Asked before each item; false ends the check. */
  readonly mayBegin: () => boolean;
  readonly onBytes: (count: number) => void;
  /** Of each row that was read and found sound. */
  readonly onSound: (row: number) => void;
}

export interface WalCheckResult {
  readonly findings: readonly Finding[];
  readonly proved: readonly ProvedRun[];
  readonly objectCount: number;
}

/** Reads segments and follows their records from one to the next. */
export async function verifyWal(
  storage: Storage,
  {
    catalogue,
    view,
    systemId,
  }: {
    readonly catalogue: Catalogue;
    readonly view: WalView;
    readonly systemId: bigint | undefined;
  },
  options: WalCheckOptions,
): Promise<WalCheckResult> {
  const findings: Finding[] = [];
  const proved: ProvedRun[] = [];
  const damaged = new Set<string>();
  let objectCount = 0;
  const inOrder = options.items.toSorted((one, other) => one.rows.start - other.rows.start);
  const rows = new Map<SegmentObject, number>();
  const objects = segmentObjects(catalogue, view, { ...options, items: inOrder, rows });
  const reader = { ...options, segmentBytes: view.segmentBytes };
  for await (const reading of readSegments(storage, objects, reader)) {
    objectCount += 1;
    options.onBytes(reading.readBytes);
    const fault =
      judgeSegment(reading, { view, systemId }) ?? (await compareWithMemory(reading, options));
    const { timeline, number, stored, name } = reading.object;
    const row = rows.get(reading.object);
    rows.delete(reading.object);
    if (fault !== undefined) {
      findings.push({ kind: "damaged", subject: stored.key, text: fault });
      damaged.add(`${timeline} ${number}`);
      continue;
    }
    if (reading.beginsAnew && view.sets.get(timeline)?.has(number - 1) === true) {
      findings.push({ kind: "hole", subject: name, text: NEW_BEGINNING });
      // So that it is read, and told, each time.
      damaged.add(`${timeline} ${number}`);
      continue;
    }
    // Else a timeline that ends with an unfinished one would count as never read.
    proved.push({ timeline, first: number, last: number, atMs: options.atMs });
    if (name.endsWith(".partial")) continue;
    if (row !== undefined) options.onSound(row);
    await options.index.note(timeline, number, {
      segment: name,
      commits: reading.commits,
      isExact: reading.isExact,
      key: stored.key,
      stored: reading.stored,
    });
  }
  await options.index.flush();
  // Another object of the segment, or an unfinished one, may be sound: it proves nothing then.
  const sound = proved.filter(({ timeline, first }) => !damaged.has(`${timeline} ${first}`));
  return { findings, proved: joinRuns(sound), objectCount };
}

/** Also what decompresses alike is not as it was stored when its bytes are others. */
async function compareWithMemory(
  reading: SegmentReading,
  { index, isRelearning, unfinished }: WalCheckOptions,
): Promise<string | undefined> {
  const { object, stored } = reading;
  if (object.name.endsWith(".partial")) {
    return unfinished.isOther(reading, isRelearning) ? OTHER_BYTES : undefined;
  }
  if (isRelearning) return undefined;
  const known = await index.find(object.timeline, object.number);
  const isOther =
    known?.key === object.stored.key &&
    known.stored !== undefined &&
    known.stored.xxh64 !== stored?.xxh64;
  return isOther ? OTHER_BYTES : undefined;
}

async function* segmentObjects(
  { wal }: Catalogue,
  { segmentBytes }: WalView,
  {
    items,
    mayBegin,
    rows: rowsOf,
  }: Pick<WalCheckOptions, "items" | "mayBegin"> & { readonly rows: Map<SegmentObject, number> },
): AsyncGenerator<SegmentObject> {
  for (const { timeline, rows } of items) {
    if (!mayBegin()) return;
    for (let row = rows.start; row < rows.end; row += 1) {
      const kind = wal.kindAt(row);
      if (kind !== "segment" && kind !== "partial") continue;
      const number = wal.segmentNumberAt(row, segmentBytes);
      const segment = formatSegmentName(timeline, BigInt(number), segmentBytes);
      const stored: StoredWal = { key: wal.keyAt(row), extension: wal.extensionAt(row) };
      const name = kind === "partial" ? `${segment}.partial` : segment;
      const object = { name, timeline, number, stored };
      rowsOf.set(object, row);
      yield object;
    }
  }
}

/** Ascending runs, neighbours joined: so many single segments would be slow to add. */
function joinRuns(runs: readonly ProvedRun[]): readonly ProvedRun[] {
  const joined: ProvedRun[] = [];
  for (const run of runs) {
    const last = joined.at(-1);
    if (last?.timeline === run.timeline && run.first <= last.last + 1) {
      joined[joined.length - 1] = { ...last, last: run.last };
    } else joined.push(run);
  }
  return joined;
}
