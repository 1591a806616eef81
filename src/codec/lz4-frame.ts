import { FormatError } from "../errors.ts";
import { xxh32 } from "../io/xxh32.ts";

/**
 * The headers of the lz4 frame format, version 1.6.4.
 *
 * @source doc/lz4_Frame_format.md of the lz4 sources
 */
export const FRAME_MAGIC = 0x184d2204;
/** Of `lz4 -l` and the Linux kernel: 8 MiB blocks up to the end of the file, no checksum. */
export const LEGACY_MAGIC = 0x184c2102;
export const MAGIC_BYTES = 4;
export const LEGACY_BLOCK_BYTES = 8 * 1024 * 1024;
/** How far back a block may refer, also to the blocks before it. */
export const HISTORY_BYTES = 64 * 1024;
/** In a block's length word: the block is stored as it is. */
export const STORED_FLAG = 0x80000000;
/** A length word that no block has. */
export const END_MARK = 0;

const VERSION_MASK = 0xc0;
const VERSION = 0x40;
const INDEPENDENT_FLAG = 0x20;
const BLOCK_CHECKSUM_FLAG = 0x10;
const CONTENT_SIZE_FLAG = 0x08;
const CONTENT_CHECKSUM_FLAG = 0x04;
const RESERVED_FLAG = 0x02;
const DICTIONARY_FLAG = 0x01;
const BLOCK_SIZE_RESERVED = 0x8f;

export interface Lz4FrameHeader {
  readonly hasIndependentBlocks: boolean;
  readonly hasBlockChecksums: boolean;
  readonly hasContentChecksum: boolean;
  readonly maxBlockBytes: number;
  readonly contentBytes?: number;
}

/** Whether it is one of the sixteen magic numbers of frames that hold nothing of the content. */
export function isSkippableMagic(magic: number): boolean {
  return magic >>> 4 === 0x184d2a5;
}

/** Whether `bytes`, at most four, may begin a frame of any kind. */
export function isMagicPrefix(bytes: Uint8Array): boolean {
  const candidates = [FRAME_MAGIC, LEGACY_MAGIC, 0x184d2a50 | ((bytes[0] ?? 0) & 0x0f)];
  return candidates.some((magic) =>
    bytes.every((byte, index) => byte === ((magic >>> (8 * index)) & 0xff)),
  );
}

/** Bytes of the descriptor by its first one: flags, block size, content size, header checksum. */
export function descriptorLength(flags: number): number {
  if ((flags & DICTIONARY_FLAG) !== 0) throw new FormatError("lz4 frame needs a dictionary");
  return 3 + ((flags & CONTENT_SIZE_FLAG) === 0 ? 0 : 8);
}

/** Reads what stands between the magic number and the first block; `descriptor` is all of it. */
export function parseDescriptor(descriptor: Uint8Array): Lz4FrameHeader {
  const view = new DataView(descriptor.buffer, descriptor.byteOffset, descriptor.length);
  const flags = view.getUint8(0);
  const blockSize = view.getUint8(1);
  const checksum = view.getUint8(descriptor.length - 1);
  const expected = headerChecksum(descriptor.subarray(0, -1));
  if (checksum !== expected) {
    throw new FormatError(
      `lz4 frame header is damaged: its checksum is ${checksum}, computed ${expected}`,
    );
  }
  const hasReservedBits = (flags & RESERVED_FLAG) !== 0 || (blockSize & BLOCK_SIZE_RESERVED) !== 0;
  const blockSizeCode = blockSize >> 4;
  if ((flags & VERSION_MASK) !== VERSION || hasReservedBits || blockSizeCode < 4) {
    throw new FormatError(
      `lz4 frame has flags 0x${flags.toString(16)} and block size 0x${blockSize.toString(16)}, ` +
        "of another version of the format",
    );
  }
  return {
    hasIndependentBlocks: (flags & INDEPENDENT_FLAG) !== 0,
    hasBlockChecksums: (flags & BLOCK_CHECKSUM_FLAG) !== 0,
    hasContentChecksum: (flags & CONTENT_CHECKSUM_FLAG) !== 0,
    maxBlockBytes: 2 ** (8 + 2 * blockSizeCode),
    ...((flags & CONTENT_SIZE_FLAG) === 0 ? {} : { contentBytes: readUint64(view, 2) }),
  };
}

/** Magic number and descriptor as WAL-G writes them: independent 4 MiB blocks, content checksum. */
export function formatFrameHeader(): Buffer {
  const header = Buffer.alloc(MAGIC_BYTES + 3);
  header.writeUInt32LE(FRAME_MAGIC, 0);
  header.writeUInt8(VERSION | INDEPENDENT_FLAG | CONTENT_CHECKSUM_FLAG, MAGIC_BYTES);
  header.writeUInt8(0x70, MAGIC_BYTES + 1);
  const descriptor = header.subarray(MAGIC_BYTES, -1);
  header.writeUInt8(headerChecksum(descriptor), MAGIC_BYTES + 2);
  return header;
}

function headerChecksum(descriptor: Uint8Array): number {
  return (xxh32(descriptor) >>> 8) & 0xff;
}

function readUint64(view: DataView, at: number): number {
  return view.getUint32(at, true) + view.getUint32(at + 4, true) * 2 ** 32;
}
