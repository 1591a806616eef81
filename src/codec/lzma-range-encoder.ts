import { EVEN_PROBABILITY, MOVE_BITS, PROBABILITY_BITS } from "./lzma-model.ts";

const FIRST_OUTPUT_BYTES = 64 * 1024;
const FLUSH_BYTES = 5;

/** Writes predicted bits as the number that LzmaDecoder takes apart. */
export class RangeEncoder {
  readonly #probabilities: Uint16Array;
  #output = new Uint8Array(FIRST_OUTPUT_BYTES);
  #outputBytes = 0;
  /** Up to 33 bits: the highest is a carry into bytes that are not written yet. */
  #low = 0;
  #range = 0xffffffff | 0;
  /** The byte before `low`, then so many bytes 0xff: all of them change if a carry comes. */
  #cachedByte = 0;
  #cachedCount = 1;

  constructor(probabilities: Uint16Array) {
    this.#probabilities = probabilities;
  }

  bit(index: number, bit: number): void {
    const probability = this.#probabilities[index] ?? EVEN_PROBABILITY;
    const bound = Math.imul(this.#range >>> PROBABILITY_BITS, probability);
    if (bit === 0) {
      this.#range = bound;
      this.#probabilities[index] =
        probability + (((1 << PROBABILITY_BITS) - probability) >> MOVE_BITS);
    } else {
      this.#low += bound >>> 0;
      this.#range = (this.#range - bound) | 0;
      this.#probabilities[index] = probability - (probability >> MOVE_BITS);
    }
    if ((this.#range & 0xff000000) === 0) this.#shift();
  }

  /** The lowest `bitCount` bits of `symbol`, highest first, each predicted by those before it. */
  tree(start: number, bitCount: number, symbol: number): void {
    let index = 1;
    for (let shift = bitCount - 1; shift >= 0; shift -= 1) {
      const bit = (symbol >>> shift) & 1;
      this.bit(start + index, bit);
      index = (index << 1) | bit;
    }
  }

  /** The same, lowest bit first. */
  reverseTree(start: number, bitCount: number, symbol: number): void {
    let index = 1;
    for (let shift = 0; shift < bitCount; shift += 1) {
      const bit = (symbol >>> shift) & 1;
      this.bit(start + index, bit);
      index = (index << 1) | bit;
    }
  }

  /** The lowest `bitCount` bits of `value`, highest first, without prediction. */
  directBits(value: number, bitCount: number): void {
    for (let shift = bitCount - 1; shift >= 0; shift -= 1) {
      this.#range >>>= 1;
      if (((value >>> shift) & 1) === 1) this.#low += this.#range;
      if ((this.#range & 0xff000000) === 0) this.#shift();
    }
  }

  flush(): void {
    for (let count = 0; count < FLUSH_BYTES; count += 1) this.#shiftLow();
  }

  /** A copy of the output since the last call. */
  take(): Uint8Array {
    const output = this.#output.slice(0, this.#outputBytes);
    this.#outputBytes = 0;
    return output;
  }

  #shift(): void {
    this.#range <<= 8;
    this.#shiftLow();
  }

  #shiftLow(): void {
    const carry = this.#low > 0xffffffff ? 1 : 0;
    if (carry === 1 || this.#low < 0xff000000) {
      this.#put(this.#cachedByte + carry);
      for (; this.#cachedCount > 1; this.#cachedCount -= 1) this.#put(0xff + carry);
      this.#cachedByte = (this.#low >>> 24) & 0xff;
      this.#cachedCount = 0;
    }
    this.#cachedCount += 1;
    this.#low = (this.#low & 0x00ffffff) * 0x100;
  }

  #put(byte: number): void {
    if (this.#outputBytes === this.#output.length) {
      const larger = new Uint8Array(2 * this.#output.length);
      larger.set(this.#output);
      this.#output = larger;
    }
    this.#output[this.#outputBytes] = byte;
    this.#outputBytes += 1;
  }
}
