/**
 * The pages of a file that are still to come from older backups, while a chain is restored from its
 * newest backup on: so each page is written once.
 */
export class PageGaps {
  /** Blocks of the file as it is to become. */
  readonly blockCount: number;
  /** A bit a block; set = missing. */
  readonly #bits: Uint8Array;
  #missingCount: number;
  #zeroCount = 0;

  private constructor(blockCount: number, bits: Uint8Array, missingCount: number) {
    this.blockCount = blockCount;
    this.#bits = bits;
    this.#missingCount = missingCount;
  }

  /** Everything is missing. */
  static of(blockCount: number): PageGaps {
    return new PageGaps(
      blockCount,
      new Uint8Array(Math.ceil(blockCount / 8)).fill(255),
      blockCount,
    );
  }

  get missingCount(): number {
    return this.#missingCount;
  }

  /** A copy that changes by itself: a part that turns out to be damaged is read again. */
  copy(): PageGaps {
    const copy = new PageGaps(this.blockCount, this.#bits.slice(), this.#missingCount);
    copy.#zeroCount = this.#zeroCount;
    return copy;
  }

  /** Pages that no backup had, which are zeros: in chains of WAL-G's only. */
  get zeroCount(): number {
    return this.#zeroCount;
  }

  isMissing(block: number): boolean {
    if (block >= this.blockCount) return false;
    return ((this.#bits[block >> 3] ?? 0) & (1 << (block & 7))) !== 0;
  }

  /** The page is there now. */
  close(block: number): void {
    if (!this.isMissing(block)) return;
    const index = block >> 3;
    this.#bits[index] = (this.#bits[index] ?? 0) & ~(1 << (block & 7));
    this.#missingCount -= 1;
  }

  /**
   * An older backup had the file with so many blocks only: what is still missing behind them was
   * never written, and must not come from a backup that is older still.
   */
  endAt(blockCount: number): void {
    for (let block = blockCount; block < this.blockCount; block += 1) {
      if (!this.isMissing(block)) continue;
      this.close(block);
      this.#zeroCount += 1;
    }
  }
}
