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
