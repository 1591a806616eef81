/** Half-open range [start, end) of block numbers. */
export interface BlockRange {
  readonly start: number;
  readonly end: number;
}

/** 8 KiB of bits: half a relation segment of the usual size. */
const CHUNK_BLOCKS = 65_536;
const FIRST_CHUNK_BYTES = 8;

/**
 * Any set of block numbers, 0 to 2^32 - 1. Takes one bit a block, up to the highest block in each
 * chunk of 65,536 blocks that has one: a relation of 1 TiB needs 16 MiB at most.
 */
export class BlockSet {
  readonly #chunks = new Map<number, Uint8Array<ArrayBuffer>>();
  /** The chunk that was added to last, as in #chunks: neighbours are added one after the other. */
  #lastIndex = -1;
  #lastBits = new Uint8Array(0);

  get isEmpty(): boolean {
    return this.#chunks.size === 0;
  }

  add(block: number): void {
    const bit = block % CHUNK_BLOCKS;
    const bits = this.#grown((block - bit) / CHUNK_BLOCKS, bit >>> 3);
    bits[bit >>> 3] = (bits[bit >>> 3] ?? 0) | (1 << (bit & 7));
  }

  addRange({ start, end }: BlockRange): void {
    let block = start;
    while (block < end) {
      const index = Math.floor(block / CHUNK_BLOCKS);
      const first = block % CHUNK_BLOCKS;
      const last = Math.min(end - index * CHUNK_BLOCKS, CHUNK_BLOCKS);
      setBits(this.#grown(index, (last - 1) >>> 3), first, last);
      block = index * CHUNK_BLOCKS + last;
    }
  }

  addAll(other: BlockSet): void {
    for (const [index, bits] of other.#chunks) {
      const own = this.#grown(index, bits.length - 1);
      for (const [at, byte] of bits.entries()) own[at] = (own[at] ?? 0) | byte;
    }
  }

  has(block: number): boolean {
    const bits = this.#chunks.get(Math.floor(block / CHUNK_BLOCKS));
    const bit = block % CHUNK_BLOCKS;
    return ((bits?.[bit >>> 3] ?? 0) & (1 << (bit & 7))) !== 0;
  }

  /** The blocks in [from, to), ascending, as ranges with gaps between them. */
  *ranges(from = 0, to: number = 2 ** 32): Generator<BlockRange> {
    let open: { start: number; end: number } | undefined;
    for (const block of this.#blocks(from, to)) {
      if (open !== undefined && open.end === block.start) {
        open.end = block.end;
        continue;
      }
      if (open !== undefined) yield open;
      open = { ...block };
    }
    if (open !== undefined) yield open;
  }

  /** Whole bytes of ones are one range; neighbours are not joined yet. */
  *#blocks(from: number, to: number): Generator<BlockRange> {
    for (const index of [...this.#chunks.keys()].toSorted((a, b) => a - b)) {
      const base = index * CHUNK_BLOCKS;
      const bits = this.#chunks.get(index);
      if (bits === undefined || base + CHUNK_BLOCKS <= from) continue;
      const firstByte = Math.max(Math.floor((from - base) / 8), 0);
      for (let at = firstByte; at < bits.length && base + at * 8 < to; at += 1) {
        const byte = bits[at] ?? 0;
        const start = base + at * 8;
        if (byte === 0xff && start >= from && start + 8 <= to) yield { start, end: start + 8 };
        else if (byte !== 0) yield* bitsOf(byte, start, { start: from, end: to });
      }
    }
  }

  #grown(index: number, lastByte: number): Uint8Array {
    if (index === this.#lastIndex && this.#lastBits.length > lastByte) return this.#lastBits;
    this.#lastBits = this.#grownChunk(index, lastByte);
    this.#lastIndex = index;
    return this.#lastBits;
  }

  #grownChunk(index: number, lastByte: number): Uint8Array<ArrayBuffer> {
    const bits = this.#chunks.get(index);
    if (bits !== undefined && bits.length > lastByte) return bits;
    let sizeBytes = bits?.length ?? FIRST_CHUNK_BYTES;
    while (sizeBytes <= lastByte) sizeBytes *= 2;
    const grown = new Uint8Array(sizeBytes);
    if (bits !== undefined) grown.set(bits);
    this.#chunks.set(index, grown);
    return grown;
  }
}

function* bitsOf(byte: number, start: number, within: BlockRange): Generator<BlockRange> {
  for (let bit = 0; bit < 8; bit += 1) {
    const block = start + bit;
    if ((byte & (1 << bit)) === 0 || block < within.start || block >= within.end) continue;
    yield { start: block, end: block + 1 };
  }
}

function setBits(bits: Uint8Array, first: number, end: number): void {
  let bit = first;
  for (; bit < end && (bit & 7) !== 0; bit += 1) {
    bits[bit >>> 3] = (bits[bit >>> 3] ?? 0) | (1 << (bit & 7));
  }
  const wholeEnd = end & ~7;
  if (bit < wholeEnd) {
    bits.fill(0xff, bit >>> 3, wholeEnd >>> 3);
    bit = wholeEnd;
  }
  for (; bit < end; bit += 1) bits[bit >>> 3] = (bits[bit >>> 3] ?? 0) | (1 << (bit & 7));
}
