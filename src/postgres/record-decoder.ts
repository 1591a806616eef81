import { FormatError } from "../errors.ts";
import { DEFAULT_BLOCK_BYTES } from "./data-page.ts";
import type { RelationFork } from "./relation-file.ts";

/** What a full-page image is compressed with; before 15 it could be pglz only. */
export type ImageCompression = "none" | "pglz" | "lz4" | "zstd";

/** The full-page image that comes with a block reference. */
export interface BlockImage {
  /** As stored: without its hole, compressed. */
  readonly sizeBytes: number;
  /** The zeros between lower and upper are left out; 0 and 0 if none are. */
  readonly holeOffset: number;
  readonly holeBytes: number;
  readonly compression: ImageCompression;
  /** Redo puts it in place; otherwise it is there for wal_consistency_checking only. */
  readonly isApplied: boolean;
}

/** A block that a record changed, or that redo of it looks at. */
export interface BlockReference {
  /** 0 to 32; numbers may be left out. */
  readonly blockId: number;
  readonly tablespaceOid: number;
  readonly databaseOid: number;
  readonly relfilenode: number;
  readonly fork: RelationFork;
  readonly block: number;
  /** Redo makes the page anew, whatever was there (BKPBLOCK_WILL_INIT). */
  readonly willInit: boolean;
  /** The relation was not written again: it is that of the reference before (BKPBLOCK_SAME_REL). */
  readonly isSameRelation: boolean;
  /** What the resource manager stored for this block. */
  readonly dataBytes: number;
  readonly image: BlockImage | undefined;
}

/** SizeOfXLogRecord */
const HEADER_BYTES = 24;
const MAX_BLOCK_ID = 32;
const ID_DATA_SHORT = 255;
const ID_DATA_LONG = 254;
const ID_ORIGIN = 253;
const ID_TOP_XID = 252;
/** XLR_BLOCK_ID_TOPLEVEL_XID came with 14. */
const TOP_XID_SINCE = 14;

const FORK_MASK = 0x0f;
const HAS_IMAGE = 0x10;
const HAS_DATA = 0x20;
const WILL_INIT = 0x40;
const SAME_RELATION = 0x80;
/** ForkNumber. */
const FORKS = ["main", "fsm", "vm", "init"] as const;

const IMAGE_HAS_HOLE = 0x01;
/** The bits of bimg_info, which 15 gave new meanings. @source BKPIMAGE_*, xlogrecord.h */
const IMAGE_BITS_SINCE = 15;
const OLD_IMAGE = { apply: 0x04, compressed: [[0x02, "pglz"]] } as const;
const NEW_IMAGE = {
  apply: 0x02,
  compressed: [
    [0x04, "pglz"],
    [0x08, "lz4"],
    [0x10, "zstd"],
  ],
} as const;

interface MutableReference {
  blockId: number;
  tablespaceOid: number;
  databaseOid: number;
  relfilenode: number;
  fork: RelationFork;
  block: number;
  willInit: boolean;
  isSameRelation: boolean;
  dataBytes: number;
  image: BlockImage | undefined;
}

export interface DecoderOptions {
  /** Of the server that wrote the WAL: SegmentHeader.majorVersion. */
  readonly majorVersion: number;
  /** BLCKSZ of that server; 8 KiB unless told. */
  readonly blockBytes?: number;
}

/**
 * Takes WAL records apart: the header, the block references, where the main data is. One decoder
 * is used again for each record, and its fields are those of the last one: copy what is to stay.
 *
 * Decodes only; that the record is whole and its CRC right is WalRecordScan's part.
 *
 * @source DecodeXLogRecord, src/backend/access/transam/xlogreader.c
 */
export class RecordDecoder {
  /** Of the whole record, header included. */
  lengthBytes = 0;
  /** 0: none. */
  xid = 0;
  /** Resource manager, RM_*_ID: 0 to 21, from 128 on those of extensions. */
  rmgr = 0;
  /** All 8 bits: the upper 4 are the resource manager's own. */
  info = 0;
  /** Replication origin; undefined if there is none. */
  originId: number | undefined;
  /** Of the transaction that `xid` is a part of; undefined unless it says so. */
  topXid: number | undefined;
  /** Of `blocks`, the first so many are of this record. */
  blockCount = 0;
  readonly blocks: readonly BlockReference[];
  /** Length of `mainData`. */
  mainDataBytes = 0;

  readonly #blocks: MutableReference[];
  readonly #blockBytes: number;
  readonly #hasTopXid: boolean;
  readonly #imageBits: typeof OLD_IMAGE | typeof NEW_IMAGE;
  #view: DataView = new DataView(new ArrayBuffer(0));
  #recordEnd = 0;
  /** Next byte of the headers. */
  #at = 0;
  /** Behind the record, or what is given of it. */
  #end = 0;
  /** Bytes of the record behind its headers that were announced so far. */
  #announcedBytes = 0;

  constructor({ majorVersion, blockBytes = DEFAULT_BLOCK_BYTES }: DecoderOptions) {
    this.#blockBytes = blockBytes;
    this.#hasTopXid = majorVersion >= TOP_XID_SINCE;
    this.#imageBits = majorVersion >= IMAGE_BITS_SINCE ? NEW_IMAGE : OLD_IMAGE;
    this.#blocks = Array.from({ length: MAX_BLOCK_ID + 1 }, emptyReference);
    this.blocks = this.#blocks;
  }

  /**
   * What the resource manager stored for the record, which may be empty. If the record was not
   * given to its end, only as much of it as was: compare with `mainDataBytes`.
   */
  get mainData(): DataView {
    const from = Math.min(this.#recordEnd - this.mainDataBytes, this.#end);
    return new DataView(this.#view.buffer, this.#view.byteOffset + from, this.#end - from);
  }

  /**
   * Reads the record at `view[at]`. `view` may end before the record does, but not before its
   * headers do. Throws FormatError for what no PostgreSQL of this release writes.
   */
  decode(view: DataView, at: number): void {
    if (view.byteLength - at < HEADER_BYTES) throw new FormatError("WAL record without a header");
    this.lengthBytes = view.getUint32(at, true);
    this.xid = view.getUint32(at + 4, true);
    this.info = view.getUint8(at + 16);
    this.rmgr = view.getUint8(at + 17);
    this.originId = undefined;
    this.topXid = undefined;
    this.blockCount = 0;
    this.mainDataBytes = 0;
    this.#view = view;
    this.#at = at + HEADER_BYTES;
    this.#announcedBytes = 0;
    this.#recordEnd = at + this.lengthBytes;
    this.#end = Math.min(this.#recordEnd, view.byteLength);
    this.#readHeaders();
    const leftBytes = this.#recordEnd - this.#at;
    if (leftBytes !== this.#announcedBytes) {
      throw this.#wrong(`${leftBytes} bytes of data, not ${this.#announcedBytes}`);
    }
  }

  #readHeaders(): void {
    while (this.#recordEnd - this.#at > this.#announcedBytes) {
      const id = this.#u8();
      if (id <= MAX_BLOCK_ID) {
        this.#readReference(id);
      } else if (id === ID_DATA_SHORT || id === ID_DATA_LONG) {
        this.mainDataBytes = id === ID_DATA_SHORT ? this.#u8() : this.#u32();
        this.#announcedBytes += this.mainDataBytes;
        // By convention the last.
        return;
      } else if (id === ID_ORIGIN) {
        this.originId = this.#u16();
      } else if (id === ID_TOP_XID && this.#hasTopXid) {
        this.topXid = this.#u32();
      } else {
        throw this.#wrong(`block id ${id}`);
      }
    }
  }

  #readReference(blockId: number): void {
    const before = this.blockCount === 0 ? undefined : this.#blocks[this.blockCount - 1];
    if (before !== undefined && blockId <= before.blockId) {
      throw this.#wrong(`block ${blockId} behind block ${before.blockId}`);
    }
    const reference = this.#blocks[this.blockCount];
    if (reference === undefined) throw this.#wrong("too many blocks");
    const flags = this.#u8();
    const fork = FORKS[flags & FORK_MASK];
    if (fork === undefined) throw this.#wrong(`fork ${flags & FORK_MASK}`);
    reference.blockId = blockId;
    reference.fork = fork;
    reference.willInit = (flags & WILL_INIT) !== 0;
    reference.isSameRelation = (flags & SAME_RELATION) !== 0;
    reference.dataBytes = this.#u16();
    if (((flags & HAS_DATA) !== 0) !== reference.dataBytes > 0) {
      throw this.#wrong(`flags 0x${flags.toString(16)} with ${reference.dataBytes} bytes of data`);
    }
    this.#announcedBytes += reference.dataBytes;
    reference.image = (flags & HAS_IMAGE) === 0 ? undefined : this.#readImage();
    if (!reference.isSameRelation) {
      reference.tablespaceOid = this.#u32();
      reference.databaseOid = this.#u32();
      reference.relfilenode = this.#u32();
    } else if (before === undefined) {
      throw this.#wrong("the same relation as no other");
    } else {
      reference.tablespaceOid = before.tablespaceOid;
      reference.databaseOid = before.databaseOid;
      reference.relfilenode = before.relfilenode;
    }
    reference.block = this.#u32();
    this.blockCount += 1;
  }

  #readImage(): BlockImage {
    const sizeBytes = this.#u16();
    const holeOffset = this.#u16();
    const bits = this.#u8();
    const compression = this.#compressionOf(bits);
    const hasHole = (bits & IMAGE_HAS_HOLE) !== 0;
    const isWhole = sizeBytes === this.#blockBytes;
    let holeBytes = 0;
    if (compression === "none") holeBytes = this.#blockBytes - sizeBytes;
    else if (hasHole) holeBytes = this.#u16();
    this.#announcedBytes += sizeBytes;
    const isPlausible = hasHole
      ? holeOffset > 0 && holeBytes > 0 && !isWhole
      : holeOffset === 0 && holeBytes === 0;
    if (!isPlausible || isWhole !== (!hasHole && compression === "none")) {
      throw this.#wrong(
        `image of ${sizeBytes} bytes with flags 0x${bits.toString(16)} ` +
          `and a hole of ${holeBytes} bytes at ${holeOffset}`,
      );
    }
    const isApplied = (bits & this.#imageBits.apply) !== 0;
    return { sizeBytes, holeOffset, holeBytes, compression, isApplied };
  }

  #compressionOf(bits: number): ImageCompression {
    for (const [bit, method] of this.#imageBits.compressed) if ((bits & bit) !== 0) return method;
    return "none";
  }

  #u8(): number {
    this.#at += 1;
    this.#requireRead();
    return this.#view.getUint8(this.#at - 1);
  }

  #u16(): number {
    this.#at += 2;
    this.#requireRead();
    return this.#view.getUint16(this.#at - 2, true);
  }

  #u32(): number {
    this.#at += 4;
    this.#requireRead();
    return this.#view.getUint32(this.#at - 4, true);
  }

  #requireRead(): void {
    if (this.#at > this.#end) throw this.#wrong("headers that go on behind its end");
  }

  #wrong(what: string): FormatError {
    return new FormatError(
      `WAL record of resource manager ${this.rmgr}, ${this.lengthBytes} bytes, has ${what}`,
    );
  }
}

function emptyReference(): MutableReference {
  return {
    blockId: 0,
    tablespaceOid: 0,
    databaseOid: 0,
    relfilenode: 0,
    fork: "main",
    block: 0,
    willInit: false,
    isSameRelation: false,
    dataBytes: 0,
    image: undefined,
  };
}
