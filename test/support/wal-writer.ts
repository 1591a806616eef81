/** Writes WAL of any content as PostgreSQL would lay it out, for tests of those who read it. */
import { Crc32c, crc32c } from "../../src/postgres/crc32c.ts";
import { lsn } from "../../src/postgres/lsn.ts";
import { formatSegmentName } from "../../src/postgres/wal-file.ts";

export interface WalRecipe {
  readonly magic?: number;
  readonly timeline?: number;
  readonly systemId?: bigint;
  readonly segmentBytes?: number;
  readonly pageBytes?: number;
  /** Number of the first segment; 1 unless told. */
  readonly firstSegment?: bigint;
  readonly records: readonly RecordRecipe[];
}

export interface RecordRecipe {
  /** Behind the header. */
  readonly dataBytes: number;
  /** What stands there, `dataBytes` of it; made up unless told. */
  readonly data?: Uint8Array | undefined;
  readonly resourceManager?: number;
  readonly info?: number;
  /** Where the record claims that the one before it stands; the truth unless told. */
  readonly previous?: bigint;
}

/** Where a record stands, in bytes from the start of the first segment. */
export interface WrittenRecord {
  readonly start: number;
  /** Behind its last byte. */
  readonly end: number;
  /** `end` rounded up to 8: where the next one begins, or its page. */
  readonly next: number;
}

export interface WrittenWal {
  /** Whole segments, zeros behind the last record. */
  readonly segments: readonly { readonly name: string; readonly bytes: Uint8Array<ArrayBuffer> }[];
  readonly records: readonly WrittenRecord[];
}

export const SWITCH: RecordRecipe = { dataBytes: 0, resourceManager: 0, info: 0x40 };

class WalWriter {
  readonly records: WrittenRecord[] = [];
  readonly #recipe: Required<WalRecipe>;
  readonly #pages: Uint8Array<ArrayBuffer>[] = [];
  /** Bytes written, headers included. */
  #length = 0;
  #previous: bigint;

  constructor(recipe: Required<WalRecipe>) {
    this.#recipe = recipe;
    // Behind the first segment of a cluster a record without one before it is pg_resetwal's.
    this.#previous = recipe.firstSegment > 1n ? this.#positionOf(-64) : 0n;
  }

  append(record: RecordRecipe): void {
    if (this.#length % this.#recipe.pageBytes === 0) this.#beginPage(0);
    const start = this.#length;
    const bytes = this.#recordBytes(record);
    for (let taken = 0; taken < bytes.length;) {
      const room = this.#recipe.pageBytes - (this.#length % this.#recipe.pageBytes);
      if (room === this.#recipe.pageBytes) {
        this.#beginPage(bytes.length - taken);
        continue;
      }
      const part = bytes.subarray(taken, taken + room);
      this.#pages.at(-1)?.set(part, this.#length % this.#recipe.pageBytes);
      this.#length += part.length;
      taken += part.length;
    }
    const end = this.#length;
    this.#length = Math.ceil(end / 8) * 8;
    this.records.push({ start, end, next: this.#length });
    this.#previous = this.#positionOf(start);
  }

  finish(): WrittenWal {
    const { segmentBytes, timeline, firstSegment } = this.#recipe;
    const count = Math.ceil(this.#length / segmentBytes);
    const all = new Uint8Array(count * segmentBytes);
    for (const [index, page] of this.#pages.entries()) {
      all.set(page, index * this.#recipe.pageBytes);
    }
    const segments = Array.from({ length: count }, (_, index) => ({
      name: formatSegmentName(timeline, firstSegment + BigInt(index), segmentBytes),
      bytes: all.slice(index * segmentBytes, (index + 1) * segmentBytes),
    }));
    return { segments, records: this.records };
  }

  #positionOf(offset: number): bigint {
    return lsn(this.#recipe.firstSegment * BigInt(this.#recipe.segmentBytes) + BigInt(offset));
  }

  #recordBytes(record: RecordRecipe): Uint8Array {
    const { dataBytes, resourceManager = 10, info = 0, previous = this.#previous } = record;
    const bytes = new Uint8Array(24 + dataBytes);
    for (let i = 24; i < bytes.length; i += 1) bytes[i] = (this.#length + i * 7) & 0xff;
    if (record.data !== undefined) bytes.set(record.data, 24);
    const view = new DataView(bytes.buffer);
    view.setUint32(0, bytes.length, true);
    view.setBigUint64(8, previous, true);
    view.setUint8(16, info);
    view.setUint8(17, resourceManager);
    const summed = new Uint8Array(bytes.length - 4);
    summed.set(bytes.subarray(24));
    summed.set(bytes.subarray(0, 20), bytes.length - 24);
    view.setUint32(20, checksum(summed), true);
    return bytes;
  }

  #beginPage(continuationBytes: number): void {
    const { magic, timeline, systemId, segmentBytes, pageBytes } = this.#recipe;
    const isFirst = this.#length % segmentBytes === 0;
    const page = new Uint8Array(pageBytes);
    const view = new DataView(page.buffer);
    view.setUint16(0, magic, true);
    view.setUint16(2, (continuationBytes > 0 ? 1 : 0) | (isFirst ? 2 : 0), true);
    view.setUint32(4, timeline, true);
    view.setBigUint64(8, this.#positionOf(this.#length), true);
    view.setUint32(16, continuationBytes, true);
    if (isFirst) {
      view.setBigUint64(24, systemId, true);
      view.setUint32(32, segmentBytes, true);
      view.setUint32(36, pageBytes, true);
    }
    this.#pages.push(page);
    this.#length += isFirst ? 40 : 24;
  }
}

function checksum(bytes: Uint8Array): number {
  if (bytes.length < 8192) return crc32c(bytes);
  const view = new DataView(bytes.buffer);
  return Crc32c.finish(new Crc32c().update(Crc32c.start, view, 0, bytes.length));
}

/** Writes the records one behind the other; WAL of PostgreSQL 15 unless told. */
export function writeWal(recipe: WalRecipe): WrittenWal {
  const writer = new WalWriter({
    magic: 0xd110,
    timeline: 1,
    systemId: 0x1234_5678_9abc_def0n,
    segmentBytes: 1024 * 1024,
    pageBytes: 8192,
    firstSegment: 1n,
    ...recipe,
  });
  for (const record of recipe.records) writer.append(record);
  return writer.finish();
}
