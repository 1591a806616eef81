import { FormatError } from "../errors.ts";
import type { ByteStream } from "../io/bytes.ts";
import { loadNativeCrc32c } from "../io/crc32c.ts";
import type { ChangeMap, RestEnd } from "../layout/change-map.ts";
import { ChangedBlocks } from "../postgres/changed-blocks.ts";
import { Crc32c } from "../postgres/crc32c.ts";
import { formatLsn, type Lsn, lsn } from "../postgres/lsn.ts";
import { neededBytes } from "../postgres/record-changes.ts";
import { ChangeSink } from "../postgres/wal-changes.ts";
import { parseWalPageHeader } from "../postgres/wal-page.ts";
import { WalWalker, type WalWalk } from "../postgres/wal-record.ts";
import type { OpenRecord } from "../postgres/wal-record-scan.ts";
import { beginsAnew, SEGMENT_START_BYTES } from "../postgres/wal-segment.ts";

/** SizeOfXLogRecord; the CRC covers what stands before it in the header, last. */
const HEADER_BYTES = 24;
const HEADER_CRC = 20;

/** What is known where a fold has got to. */
interface Edge {
  readonly endLsn: Lsn;
  /**
   * "unknown": all so far is the middle of a record that began before; then `rest` has it.
   */
  readonly open: OpenRecord | "unknown" | undefined;
}

/**
 * Adds up what consecutive segments, or maps of some, changed, and puts the records together that
 * lie across their borders. Once something does not fit, `holeReason` says what, and stays.
 */
export class ChangeFold {
  readonly changes = new ChangedBlocks();
  #holeReason = "";
  #edge: Edge | undefined;
  #first: ChangeMap | undefined;
  #segmentCount = 0;
  #restEnd: RestEnd = "none";
  readonly #rest: Uint8Array[] = [];

  /** Why the changes do not tell all; "" while they do. */
  get holeReason(): string {
    return this.#holeReason;
  }

  /** The record that the next segment has to continue, as far as it is known. */
  get open(): OpenRecord | undefined {
    return typeof this.#edge?.open === "object" ? this.#edge.open : undefined;
  }

  /** Up to where segments were added; undefined before the first. */
  get endLsn(): Lsn | undefined {
    return this.#edge?.endLsn;
  }

  add(map: ChangeMap): void {
    if (this.#holeReason !== "") return;
    const first = (this.#first ??= map);
    const reason = whyForeign(map, first) ?? this.#whyApart(map) ?? this.#join(map);
    if (reason !== undefined) {
      this.#holeReason = reason;
      return;
    }
    this.#segmentCount += map.segmentCount;
    this.changes.addAll(map.changes);
  }

  /** All that was added, as one map. Only if there is no hole and something was added. */
  toMap(): ChangeMap {
    const first = this.#first;
    if (first === undefined || this.#holeReason !== "") throw new RangeError("no map of a hole");
    return {
      ...first,
      segmentCount: this.#segmentCount,
      changes: this.changes,
      restEnd: this.#restEnd,
      rest: Buffer.concat(this.#rest),
      open: this.open,
    };
  }

  #whyApart({ startLsn }: ChangeMap): string | undefined {
    const edge = this.#edge;
    if (edge === undefined || edge.endLsn === startLsn) return undefined;
    return `changes up to ${formatLsn(edge.endLsn)} are followed by those from ${formatLsn(startLsn)}`;
  }

  /** Takes the beginning of the map and its end into account; gives why it does not fit. */
  #join(map: ChangeMap): string | undefined {
    const before = this.#edge === undefined ? "unknown" : this.#edge.open;
    const pendingBytes = typeof before === "object" ? before.pendingBytes : 0;
    const isLost = typeof before === "object" && map.isOverwrite;
    if (before !== "unknown" && !isLost && pendingBytes !== map.continuationBytes) {
      return (
        `at ${formatLsn(map.startLsn)} ${pendingBytes} bytes of a record are to come, ` +
        `but the next segment continues one by ${map.continuationBytes}`
      );
    }
    if (before === "unknown") {
      this.#rest.push(map.rest);
      this.#restEnd = map.restEnd;
    }
    const continued = typeof before === "object" && !isLost ? append(before, map) : undefined;
    if (map.restEnd === "complete" && continued !== undefined) {
      const reason = noteWhole(continued, map.majorVersion, this.changes);
      if (reason !== undefined) return reason;
    }
    let open: Edge["open"] = map.open;
    if (map.restEnd === "continues") open = before === "unknown" ? "unknown" : continued;
    const sizeBytes = BigInt(map.segmentCount) * BigInt(map.segmentBytes);
    this.#edge = { endLsn: lsn(map.startLsn + sizeBytes), open };
    return undefined;
  }
}

function whyForeign(map: ChangeMap, first: ChangeMap): string | undefined {
  for (const field of ["systemId", "majorVersion", "segmentBytes"] as const) {
    if (map[field] !== first[field]) {
      return `changes with ${field} ${map[field]} follow those with ${first[field]}`;
    }
  }
  return undefined;
}

function append(open: OpenRecord, { rest }: ChangeMap): OpenRecord {
  const view = new DataView(rest.buffer, rest.byteOffset, rest.length);
  const headBytes = Math.min(HEADER_BYTES - open.head.length, rest.length);
  const head = Buffer.concat([open.head, rest.subarray(0, headBytes)]);
  const crc = new Crc32c().update(open.crc, view, headBytes, rest.length);
  const kept = Buffer.concat([open.kept ?? open.head, rest]);
  const isHeadWhole = head.length === HEADER_BYTES;
  const wantedBytes = isHeadWhole ? neededBytes(viewOf(head)) : kept.length;
  return {
    pendingBytes: open.pendingBytes - rest.length,
    crc,
    head,
    kept: kept.subarray(0, wantedBytes),
  };
}

function noteWhole(
  record: OpenRecord,
  majorVersion: number,
  changes: ChangedBlocks,
): string | undefined {
  const head = viewOf(record.head);
  if (head.byteLength < HEADER_BYTES) return "a record that ends within its header";
  const crc = Crc32c.finish(new Crc32c().update(record.crc, head, 0, HEADER_CRC));
  if (crc !== head.getUint32(HEADER_CRC, true)) {
    return "a record on the border of two segments has a wrong CRC";
  }
  const sink = new ChangeSink(majorVersion, { changes });
  sink.record(viewOf(record.kept ?? record.head), 0);
  return sink.holeReason === "" ? undefined : sink.holeReason;
}

function viewOf(bytes: Uint8Array): DataView {
  return new DataView(bytes.buffer, bytes.byteOffset, bytes.length);
}

/** A segment that was walked. */
export interface WalkedSegment {
  readonly walk: WalWalk;
  readonly map: ChangeMap;
}

export interface WalkOptions {
  /** Of a record that began earlier; what has more is refused. A segment's size unless told. */
  readonly restBytesMax?: number;
}

/**
 * Reads a segment and notes what it changes. Gives a reason where the records can't be taken apart.
 * Rejects with FormatError when it is not the segment of that name.
 */
export async function walkChanges(
  name: string,
  content: ByteStream,
  { restBytesMax = Number.POSITIVE_INFINITY }: WalkOptions = {},
): Promise<WalkedSegment | string> {
  const start = new Uint8Array(SEGMENT_START_BYTES);
  let filled = 0;
  let parts: { readonly walker: WalWalker; readonly sink: ChangeSink } | undefined;
  for await (const chunk of content) {
    const taken = chunk.subarray(0, SEGMENT_START_BYTES - filled);
    start.set(taken, filled);
    filled += taken.length;
    if (filled < SEGMENT_START_BYTES) continue;
    if (parts === undefined) {
      const sink = new ChangeSink(parseWalPageHeader(start).majorVersion, { restBytesMax });
      const crc = await loadNativeCrc32c();
      parts = { walker: new WalWalker(name, undefined, sink, crc), sink };
      parts.walker.push(start);
    }
    parts.walker.push(chunk.subarray(taken.length));
    if (parts.walker.isDone || parts.sink.holeReason !== "") break;
  }
  if (parts === undefined) throw new FormatError(`WAL segment ${name} has ${filled} bytes`);
  const { walker, sink } = parts;
  if (sink.holeReason !== "") return `${name} has ${sink.holeReason}`;
  const walk = walker.finish();
  const { header } = walk;
  // What was written before, and lost with its WAL, may stand in any page.
  if (beginsAnew(start, header)) return `with ${name} the WAL begins anew, as behind pg_resetwal`;
  const open = walker.openRecord;
  const rest = sink.restBytes;
  const { systemId, majorVersion, timeline, startLsn, segmentBytes, continuationBytes } = header;
  const map: ChangeMap = {
    systemId,
    majorVersion,
    timeline,
    startLsn,
    segmentBytes,
    segmentCount: 1,
    changes: sink.changes,
    continuationBytes,
    isOverwrite: parseWalPageHeader(start).isOverwrite,
    restEnd: restEndOf(walk, rest.length, open),
    rest,
    open,
  };
  return { walk, map };
}

function restEndOf(walk: WalWalk, restBytes: number, open: OpenRecord | undefined): RestEnd {
  const { continuationBytes } = walk.header;
  if (continuationBytes === 0) return "none";
  if (restBytes === continuationBytes) return "complete";
  const isAllRest = walk.end === "segment-end" && walk.recordCount === 0 && open === undefined;
  return isAllRest ? "continues" : "voided";
}
