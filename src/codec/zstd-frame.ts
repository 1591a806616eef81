import { FormatError } from "../errors.ts";

/**
 * The frame format of zstd: as much of it as tells where a frame ends, without decompressing.
 *
 * @source RFC 8878, section 3.1
 */
const FRAME_MAGIC = 0xfd2fb528;
/** Sixteen magic numbers: the lowest four bits are free. */
const SKIPPABLE_MAGIC = 0x184d2a50;
const MAGIC_BYTES = 4;
const BLOCK_HEADER_BYTES = 3;
const CHECKSUM_BYTES = 4;
/** Block_Maximum_Size for all windows that are not smaller. */
const MAX_BLOCK_BYTES = 128 * 1024;
/** Magic number, descriptor, window, dictionary id, content size. */
const MAX_HEADER_BYTES = 4 + 1 + 1 + 4 + 8;

const DICTIONARY_ID_BYTES = [0, 1, 2, 4] as const;
const RAW_BLOCK = 0;
const RLE_BLOCK = 1;
const RESERVED_BLOCK = 3;

export interface ZstdFrameHeader {
  readonly kind: "content";
  /** Absent when the writer did not know it at the start. */
  readonly contentBytes?: number;
  /** What a decoder must keep of the content, and so its memory. */
  readonly windowBytes: number;
  readonly hasChecksum: boolean;
}

/** Holds bytes for other programs, nothing of the content. */
export interface SkippableFrameHeader {
  readonly kind: "skippable";
}

type Step = "header" | "block-header" | "block" | "checksum" | "skippable" | "end";

/**
 * Walks over the bytes of one frame as they come and finds its end. Throws FormatError where they
 * can't be a frame. That the content is right only decompression shows.
 */
export class ZstdFrameWalker {
  /** Of the whole input, for messages. */
  readonly #start: number;
  readonly #scratch = new Uint8Array(MAX_HEADER_BYTES);
  readonly #view = new DataView(this.#scratch.buffer);
  #scratchBytes = 0;
  #step: Step = "header";
  /** Still to come of a block, the checksum or a skippable frame. */
  #leftBytes = 0;
  #isLastBlock = false;
  #walkedBytes = 0;
  #header: ZstdFrameHeader | SkippableFrameHeader | undefined;

  /** `position` is where the frame begins in the whole input, for messages. */
  constructor(position: number) {
    this.#start = position;
  }

  /** Known once the frame's first bytes, at most 18, were walked over. */
  get header(): ZstdFrameHeader | SkippableFrameHeader | undefined {
    return this.#header;
  }

  get isComplete(): boolean {
    return this.#step === "end";
  }

  /** Walks over `bytes` from `start` on; gives where this frame's bytes end in it. */
  walk(bytes: Uint8Array, start: number): number {
    let at = start;
    while (at < bytes.length && this.#step !== "end") {
      at += this.#takesScratch() ? this.#gather(bytes, at) : this.#pass(bytes.length - at);
      this.#advance();
    }
    this.#walkedBytes += at - start;
    return at;
  }

  #takesScratch(): boolean {
    return this.#step === "header" || this.#step === "block-header";
  }

  /** One byte at a time: headers are short, and how short only their own bytes tell. */
  #gather(bytes: Uint8Array, at: number): number {
    this.#scratch[this.#scratchBytes] = bytes[at] ?? 0;
    this.#scratchBytes += 1;
    return 1;
  }

  #pass(availableBytes: number): number {
    const passedBytes = Math.min(this.#leftBytes, availableBytes);
    this.#leftBytes -= passedBytes;
    return passedBytes;
  }

  #advance(): void {
    if (this.#step === "header") this.#readHeader();
    else if (this.#step === "block-header") this.#readBlockHeader();
    while (this.#leftBytes === 0) {
      if (this.#step === "block") this.#endBlock();
      else if (this.#step === "checksum" || this.#step === "skippable") this.#step = "end";
      else return;
    }
  }

  #endBlock(): void {
    if (!this.#isLastBlock) {
      this.#step = "block-header";
      return;
    }
    const hasChecksum = this.#header?.kind === "content" && this.#header.hasChecksum;
    this.#step = "checksum";
    this.#leftBytes = hasChecksum ? CHECKSUM_BYTES : 0;
  }

  #readHeader(): void {
    if (this.#scratchBytes <= MAGIC_BYTES) this.#requireMagic();
    if (this.#scratchBytes < MAGIC_BYTES + 1) return;
    const isSkippable = this.#view.getUint32(0, true) !== FRAME_MAGIC;
    const headerBytes = isSkippable ? MAGIC_BYTES + 4 : frameHeaderBytes(this.#scratch[4] ?? 0);
    if (this.#scratchBytes < headerBytes) return;

    this.#scratchBytes = 0;
    if (isSkippable) {
      this.#header = { kind: "skippable" };
      this.#leftBytes = this.#view.getUint32(4, true);
      this.#step = "skippable";
      return;
    }
    this.#header = this.#parseFrameHeader();
    this.#step = "block-header";
  }

  /** Fails at the first byte that can't be one, so that an object of another kind is named so. */
  #requireMagic(): void {
    const known = new Uint8Array(MAGIC_BYTES);
    const view = new DataView(known.buffer);
    const actual = this.#scratch.subarray(0, this.#scratchBytes);
    view.setUint32(0, FRAME_MAGIC, true);
    if (actual.every((byte, index) => byte === known[index])) return;
    view.setUint32(0, (SKIPPABLE_MAGIC | ((actual[0] ?? 0) & 0x0f)) >>> 0, true);
    if (actual.every((byte, index) => byte === known[index])) return;
    const found = Buffer.from(actual).toString("hex");
    throw new FormatError(`no zstd frame begins at byte ${this.#start}: found ${found}`);
  }

  #parseFrameHeader(): ZstdFrameHeader {
    const view = this.#view;
    const descriptor = view.getUint8(MAGIC_BYTES);
    if ((descriptor & 0x08) !== 0) throw this.#damaged("its header sets a reserved bit");

    const isSingleSegment = (descriptor & 0x20) !== 0;
    let at = MAGIC_BYTES + 1;
    let windowBytes = 0;
    if (!isSingleSegment) {
      const window = view.getUint8(at);
      const base = 2 ** (10 + (window >> 3));
      windowBytes = base + (base / 8) * (window & 0x07);
      at += 1;
    }
    const dictionaryIdBytes = dictionaryIdLength(descriptor);
    const dictionaryId = this.#scratch.subarray(at, at + dictionaryIdBytes);
    if (dictionaryId.some((byte) => byte !== 0)) {
      throw new FormatError(`zstd frame at byte ${this.#start} needs a dictionary`);
    }
    at += dictionaryIdBytes;

    const contentBytes = readContentBytes(view, at, contentSizeLength(descriptor));
    return {
      kind: "content",
      ...(contentBytes === undefined ? {} : { contentBytes }),
      windowBytes: isSingleSegment ? (contentBytes ?? 0) : windowBytes,
      hasChecksum: (descriptor & 0x04) !== 0,
    };
  }

  #readBlockHeader(): void {
    if (this.#scratchBytes < BLOCK_HEADER_BYTES) return;
    this.#scratchBytes = 0;
    const word = this.#view.getUint16(0, true) + this.#view.getUint8(2) * 0x10000;
    const type = (word >> 1) & 0x03;
    const sizeBytes = word >> 3;
    if (type === RESERVED_BLOCK) throw this.#damaged("a block has the reserved type");
    if (sizeBytes > MAX_BLOCK_BYTES) throw this.#damaged(`a block has ${sizeBytes} bytes`);
    if (type !== RAW_BLOCK && type !== RLE_BLOCK && sizeBytes === 0) {
      throw this.#damaged("a compressed block has no bytes");
    }
    this.#isLastBlock = (word & 0x01) !== 0;
    this.#leftBytes = type === RLE_BLOCK ? 1 : sizeBytes;
    this.#step = "block";
  }

  #damaged(reason: string): FormatError {
    const at = this.#start + this.#walkedBytes;
    return new FormatError(
      `zstd frame at byte ${this.#start} is damaged near byte ${at}: ${reason}`,
    );
  }
}

function frameHeaderBytes(descriptor: number): number {
  const windowDescriptorBytes = (descriptor & 0x20) === 0 ? 1 : 0;
  return (
    MAGIC_BYTES +
    1 +
    windowDescriptorBytes +
    dictionaryIdLength(descriptor) +
    contentSizeLength(descriptor)
  );
}

function dictionaryIdLength(descriptor: number): number {
  return DICTIONARY_ID_BYTES[descriptor & 0x03] ?? 0;
}

function contentSizeLength(descriptor: number): number {
  const flag = descriptor >> 6;
  if (flag === 0) return (descriptor & 0x20) === 0 ? 0 : 1;
  return 1 << flag;
}

function readContentBytes(view: DataView, at: number, length: number): number | undefined {
  if (length === 1) return view.getUint8(at);
  if (length === 2) return view.getUint16(at, true) + 256;
  if (length === 4) return view.getUint32(at, true);
  if (length === 8) return view.getUint32(at, true) + view.getUint32(at + 4, true) * 2 ** 32;
  return undefined;
}
