import { FormatError, TruncatedError, WrongClusterError } from "../errors.ts";
import type { ByteStream } from "../io/bytes.ts";
import { loadNativeCrc32c } from "../io/crc32c.ts";
import { parseTimelineHistory } from "../postgres/timeline-history.ts";
import { parseWalFileName } from "../postgres/wal-file.ts";
import { type WalWalk, WalWalker } from "../postgres/wal-record.ts";
import type { OpenRecord } from "../postgres/wal-record-scan.ts";
import {
  beginsAnew,
  checkSegmentStart,
  SEGMENT_START_BYTES,
  type SegmentHeader,
} from "../postgres/wal-segment.ts";
import { HISTORY_BYTES_MAX } from "./local-wal.ts";

export interface WalExpectation {
  /** As PostgreSQL calls the file. */
  readonly name: string;
  /** The cluster that will read it, where that is known. */
  readonly systemId: bigint | undefined;
  /** Whether the records of a segment are to be followed. */
  readonly mustCheckRecords: boolean;
  /**
   * Set where whoever takes the content hands every byte of it to this, so that both need it at the
   * same time; the content is refused at the end if that was not done.
   */
  readonly records?: RecordFollower;
  /** What the segment before left open, where that segment is at hand. */
  readonly findOpenRecord?: (header: SegmentHeader) => Promise<OpenRecord | undefined>;
  /** Told before anything of a segment is passed on with which the WAL begins anew; may reject. */
  readonly onBeginning?: (header: SegmentHeader) => Promise<void>;
  /**
   * Asked where the records break off, by bytes that are known to be what was stored; may let them,
   * or reject. Without it no records may break off.
   */
  readonly onBreak?: (walk: WalWalk) => Promise<void>;
  /** Told at the end what the segment itself leaves open, where its records were followed. */
  readonly onOpenRecord?: (openRecord: OpenRecord | undefined) => void;
}

/** Follows the records of one segment in the bytes that it is handed, in order. */
export class RecordFollower {
  #walker: WalWalker | undefined;

  /** `walker` was given all bytes until now. */
  begin(walker: WalWalker): void {
    this.#walker = walker;
  }

  /** Nothing is followed before the header is known, nor where records don't count. */
  readonly follow = (piece: Uint8Array): void => this.#walker?.push(piece);
}

/**
 * Passes the content of a WAL file on and checks on the way that it is what its name says; the
 * stream ends without error only if all of it was.
 *
 * Rejects with FormatError when it is something else, too long, or has a record that breaks off;
 * TruncatedError when it is too short; WrongClusterError when it is another cluster's segment.
 */
export function checkedWal(content: ByteStream, expectation: WalExpectation): ByteStream {
  const file = parseWalFileName(expectation.name);
  if (file?.kind === "history") return checkedHistory(content, file.timeline);
  if (file?.kind === "segment") return checkedSegment(content, expectation);
  // An unfinished segment ends somewhere: that its records do so proves nothing.
  const unfollowed = { ...expectation, mustCheckRecords: false };
  return file?.kind === "partial" ? checkedSegment(content, unfollowed) : content;
}

async function* checkedSegment(content: ByteStream, expectation: WalExpectation): ByteStream {
  const { name, systemId, mustCheckRecords, records, findOpenRecord } = expectation;
  const head = Buffer.alloc(SEGMENT_START_BYTES);
  let header: SegmentHeader | undefined;
  let walker: WalWalker | undefined;
  let sizeBytes = 0;
  for await (const chunk of content) {
    const passedBytes = sizeBytes;
    if (header === undefined) head.set(chunk.subarray(0, head.length - passedBytes), passedBytes);
    sizeBytes += chunk.length;
    if (header === undefined && sizeBytes >= head.length) {
      header = checkSegmentStart(head, name);
      requireCluster(header, { name, systemId });
      if (beginsAnew(head, header)) await expectation.onBeginning?.(header);
      if (mustCheckRecords) {
        const [openRecord, crc] = [await findOpenRecord?.(header), await loadNativeCrc32c()];
        walker = new WalWalker(name, openRecord, undefined, crc);
        walker.push(head.subarray(0, passedBytes));
        records?.begin(walker);
      }
    }
    // Before it is written: a wrong object must not fill the disk.
    if (header !== undefined && sizeBytes > header.segmentBytes) {
      throw new FormatError(
        `WAL segment ${name} has more than the ${header.segmentBytes} bytes that its header says`,
      );
    }
    if (records === undefined) walker?.push(chunk);
    yield chunk;
  }
  const { segmentBytes } = header ?? checkSegmentStart(head.subarray(0, sizeBytes), name);
  if (sizeBytes < segmentBytes) {
    throw new TruncatedError(
      `WAL segment ${name} has ${sizeBytes} bytes, its header says ${segmentBytes}`,
    );
  }
  const walk = walker?.finish();
  if (walk?.end === "invalid") {
    if (expectation.onBreak === undefined) throw new FormatError(breakText(name, walk));
    await expectation.onBreak(walk);
  }
  if (walker !== undefined) expectation.onOpenRecord?.(walker.openRecord);
}

/** For people: where the records of a segment end too early. */
export function breakText(name: string, { endOfRecords, reason }: WalWalk): string {
  return `the records of WAL segment ${name} break off after byte ${endOfRecords}: ${reason}`;
}

function requireCluster(
  header: SegmentHeader,
  { name, systemId }: Pick<WalExpectation, "name" | "systemId">,
): void {
  if (systemId === undefined || systemId === header.systemId) return;
  throw new WrongClusterError(
    `archived WAL segment ${name} is of cluster ${header.systemId}, ` +
      `the data directory of cluster ${systemId}`,
    { hint: "restore_command reads the archive of another cluster: correct its prefix." },
  );
}

async function* checkedHistory(content: ByteStream, timeline: number): ByteStream {
  const chunks: Buffer[] = [];
  let sizeBytes = 0;
  for await (const chunk of content) {
    sizeBytes += chunk.length;
    if (sizeBytes > HISTORY_BYTES_MAX) {
      throw new FormatError(`a timeline history has more than ${HISTORY_BYTES_MAX} bytes`);
    }
    chunks.push(Buffer.from(chunk));
  }
  const text = Buffer.concat(chunks);
  parseTimelineHistory(text.toString("utf8"), timeline);
  yield text;
}
