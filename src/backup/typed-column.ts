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
