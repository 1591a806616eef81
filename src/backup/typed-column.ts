import { free } from "../io/freed.ts";

/** What a column is made of; those of 64 bits hold numbers only. */
type Cells = Uint8Array | Uint16Array | Uint32Array | Float64Array;

/** Cells that are made at once: a column grows without being copied. */
const CHUNK_BITS = 14;
const CHUNK_CELLS = 1 << CHUNK_BITS;
const CELL_MASK = CHUNK_CELLS - 1;

/** Numbers by index, 0 where nothing was set; what nobody sets anything in takes no memory. */
export class Column {
  readonly #make: new (length: number) => Cells;
  readonly #chunks: (Cells | undefined)[] = [];

  constructor(make: new (length: number) => Cells) {
    this.#make = make;
  }

  get(index: number): number {
    return this.#chunks[index >>> CHUNK_BITS]?.[index & CELL_MASK] ?? 0;
  }

  /** `value` must fit into a cell. */
  set(index: number, value: number): void {
    const at = index >>> CHUNK_BITS;
    while (this.#chunks.length <= at) this.#chunks.push(undefined);
    const chunk = (this.#chunks[at] ??= new this.#make(CHUNK_CELLS));
    chunk[index & CELL_MASK] = value;
  }
}

const WORD = 2 ** 32;

/** Numbers from 0 to 2^53 - 1 by index, 4 bytes each while those next to them are below 2^32. */
export class WideColumn {
  readonly #low = new Column(Uint32Array);
  readonly #high = new Column(Uint32Array);

  get(index: number): number {
    return this.#high.get(index) * WORD + this.#low.get(index);
  }

  set(index: number, value: number): void {
    this.#low.set(index, value % WORD);
    const high = Math.floor(value / WORD);
    if (high > 0 || this.#high.get(index) > 0) this.#high.set(index, high);
  }
}

/** While a table of pairs has no more slots than this, it stays one. */
const MIN_DENSE_SLOTS = 8192;
const FIRST_SLOTS = 64;
/** At most this share of the slots is in use. */
const MAX_LOAD = 0.7;
/** Of a slot: index and value. */
const SLOT_WORDS = 2;
/** 2^32 divided by the golden ratio: neighbours come apart. @source Knuth, TAOCP 3, 6.4 */
const SPREAD = 0x9e3779b1;

/**
 * Numbers from 0 to 2^32 - 1 by index, 0 where nothing was set: 4 bytes for each index as long as
 * most have one, 12 to 23 for each that has one where few do.
 */
export class SparseColumn {
  /** Pairs of an index and 1 (0 = free) and its number; undefined once a column takes less. */
  #pairs: Uint32Array | undefined = new Uint32Array(FIRST_SLOTS * SLOT_WORDS);
  readonly #dense = new Column(Uint32Array);
  #pairCount = 0;
  #endIndex = 0;

  get(index: number): number {
    const pairs = this.#pairs;
    if (pairs === undefined) return this.#dense.get(index);
    return pairs[slotOf(pairs, index) + 1] ?? 0;
  }

  set(index: number, value: number): void {
    this.#endIndex = Math.max(this.#endIndex, index + 1);
    const pairs = this.#pairs;
    if (pairs === undefined) {
      this.#dense.set(index, value);
      return;
    }
    const slot = slotOf(pairs, index);
    if (pairs[slot] === 0) this.#pairCount += 1;
    pairs[slot] = index + 1;
    pairs[slot + 1] = value;
    if (this.#pairCount * SLOT_WORDS > pairs.length * MAX_LOAD) this.#grow(pairs);
  }

  #grow(pairs: Uint32Array): void {
    const slots = (pairs.length / SLOT_WORDS) * 2;
    const isDense = slots > MIN_DENSE_SLOTS && slots * SLOT_WORDS > this.#endIndex;
    const larger = isDense ? undefined : new Uint32Array(slots * SLOT_WORDS);
    for (let at = 0; at < pairs.length; at += SLOT_WORDS) {
      const [index, value] = [(pairs[at] ?? 0) - 1, pairs[at + 1] ?? 0];
      if (index < 0) continue;
      if (larger === undefined) {
        this.#dense.set(index, value);
        continue;
      }
      const slot = slotOf(larger, index);
      larger[slot] = index + 1;
      larger[slot + 1] = value;
    }
    this.#pairs = larger;
    free(new Uint8Array(pairs.buffer));
  }
}

/** Where the pair of the index is, or would be. */
function slotOf(pairs: Uint32Array, index: number): number {
  const mask = pairs.length / SLOT_WORDS - 1;
  const hash = Math.imul(index, SPREAD);
  for (let slot = (hash ^ (hash >>> 15)) & mask; ; slot = (slot + 1) & mask) {
    const found = pairs[slot * SLOT_WORDS];
    if (found === 0 || found === index + 1) return slot * SLOT_WORDS;
  }
}
