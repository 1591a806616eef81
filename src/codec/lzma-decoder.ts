import { FormatError, TruncatedError } from "../errors.ts";
import {
  ALIGN_BITS,
  DISTANCE_ALIGN,
  DISTANCE_MODEL,
  DISTANCE_SLOT,
  DISTANCE_SLOT_BITS,
  END_DISTANCE,
  FIRST_DIRECT_SLOT,
  FIRST_MATCH_STATE,
  FIRST_MODEL_SLOT,
  IS_LONG_REPEAT_0,
  IS_MATCH,
  IS_REPEAT,
  IS_REPEAT_0,
  IS_REPEAT_1,
  IS_REPEAT_2,
  LENGTH_CHOICE,
  LENGTH_CHOICE_2,
  LENGTH_HIGH,
  LENGTH_LOW,
  LENGTH_MIDDLE,
  type LzmaProperties,
  MATCH_LENGTH,
  MAX_POSITION_STATES,
  MIN_MATCH_BYTES,
  MOVE_BITS,
  PROBABILITY_BITS,
  REPEAT_LENGTH,
  lengthState,
  literalStart,
  newProbabilities,
  stateAfterLiteral,
  stateAfterMatch,
  stateAfterRepeat,
  stateAfterShortRepeat,
} from "./lzma-model.ts";

/** No literal or match takes more bytes of the input. */
const MAX_SYMBOL_BYTES = 20;
/** The range decoder begins with so many bytes, the first of them zero. */
const INITIAL_BYTES = 5;
/** `decode` returns when it has about so much output. */
const OUTPUT_BYTES = 256 * 1024;

export interface LzmaStreamShape extends LzmaProperties {
  readonly dictionaryBytes: number;
  /** Absent when an end marker ends the stream. */
  readonly contentBytes?: number;
}

/** Decodes one raw LZMA stream whose bytes come in pieces. */
export class LzmaDecoder {
  readonly #shape: LzmaStreamShape;
  readonly #probabilities: Uint16Array;
  readonly #positionMask: number;

  /** The last content, a ring: what matches refer to, and what was not taken yet. */
  readonly #window: Uint8Array;
  #windowAt = 0;
  #pendingBytes = 0;
  #totalBytes = 0;

  #input: Uint8Array = new Uint8Array(0);
  #at = 0;
  #range = 0xffffffff | 0;
  #code = 0;
  #isBegun = false;
  #isEnded = false;

  #state = 0;
  /** The distances of the last four matches, less one. */
  readonly #distances = new Uint32Array(4);

  constructor(shape: LzmaStreamShape) {
    this.#shape = shape;
    this.#probabilities = newProbabilities(shape);
    this.#positionMask = (1 << shape.positionBits) - 1;
    this.#window = new Uint8Array(Math.max(shape.dictionaryBytes, 2 * OUTPUT_BYTES));
  }

  /** Whether the stream's end was read: further input is not part of it. */
  get isEnded(): boolean {
    return this.#isEnded;
  }

  /**
   * Decodes from `input[start]` on and gives where it stopped: before the last bytes if `isLast` is
   * false, because one symbol may need them all, or because `take` must be called.
   */
  decode(input: Uint8Array, start: number, isLast: boolean): number {
    this.#input = input;
    this.#at = start;
    const safeEnd = isLast ? Number.POSITIVE_INFINITY : input.length - MAX_SYMBOL_BYTES;
    if (!this.#isBegun && this.#at <= safeEnd) this.#begin();
    while (this.#at <= safeEnd && this.#pendingBytes < OUTPUT_BYTES && !this.#isEnded) {
      if (this.#isAtDeclaredEnd(isLast)) this.#isEnded = true;
      else this.#symbol();
    }
    return this.#at;
  }

  /** A copy of the output since the last call. */
  take(): Uint8Array {
    const output = Buffer.allocUnsafe(this.#pendingBytes);
    const start = this.#windowAt - this.#pendingBytes;
    if (start >= 0) output.set(this.#window.subarray(start, this.#windowAt));
    else {
      output.set(this.#window.subarray(start));
      output.set(this.#window.subarray(0, this.#windowAt), -start);
    }
    this.#pendingBytes = 0;
    return output;
  }

  #begin(): void {
    if (this.#nextByte() !== 0) throw this.#damaged("it does not begin with a zero");
    for (let count = 1; count < INITIAL_BYTES; count += 1) {
      this.#code = (this.#code << 8) | this.#nextByte();
    }
    this.#isBegun = true;
  }

  /** A stream of known size may have an end marker all the same. */
  #isAtDeclaredEnd(isLast: boolean): boolean {
    if (this.#totalBytes !== this.#shape.contentBytes || !isLast) return false;
    this.#normalize();
    return this.#at === this.#input.length && this.#code === 0;
  }

  #symbol(): void {
    const positionState = this.#totalBytes & this.#positionMask;
    const stateIndex = this.#state * MAX_POSITION_STATES + positionState;
    if (this.#bit(IS_MATCH + stateIndex) === 0) {
      this.#literal();
      this.#state = stateAfterLiteral(this.#state);
      return;
    }
    if (this.#bit(IS_REPEAT + this.#state) === 0) {
      this.#match(positionState);
      return;
    }
    if (this.#totalBytes === 0) throw this.#damaged("it repeats before its first byte");
    if (this.#bit(IS_REPEAT_0 + this.#state) === 0) {
      if (this.#bit(IS_LONG_REPEAT_0 + stateIndex) === 0) {
        this.#state = stateAfterShortRepeat(this.#state);
        this.#copy(1);
        return;
      }
    } else {
      this.#selectDistance();
    }
    const matchBytes = this.#length(REPEAT_LENGTH, positionState);
    this.#state = stateAfterRepeat(this.#state);
    this.#copy(matchBytes);
  }

  #literal(): void {
    const probabilities = literalStart(this.#shape, this.#totalBytes, this.#byteBefore(0));
    let symbol = 1;
    if (this.#state >= FIRST_MATCH_STATE) {
      let matched = this.#byteBefore(this.#distances[0] ?? 0);
      while (symbol < 0x100) {
        const matchedBit = (matched >> 7) & 1;
        matched <<= 1;
        const bit = this.#bit(probabilities + ((1 + matchedBit) << 8) + symbol);
        symbol = (symbol << 1) | bit;
        if (bit !== matchedBit) break;
      }
    }
    while (symbol < 0x100) symbol = (symbol << 1) | this.#bit(probabilities + symbol);
    this.#put(symbol & 0xff);
  }

  #match(positionState: number): void {
    const matchBytes = this.#length(MATCH_LENGTH, positionState);
    const distance = this.#distance(matchBytes);
    if (distance === END_DISTANCE) {
      this.#end();
      return;
    }
    const distances = this.#distances;
    distances.copyWithin(1, 0, 3);
    distances[0] = distance;
    this.#state = stateAfterMatch(this.#state);
    this.#copy(matchBytes);
  }

  #end(): void {
    const { contentBytes } = this.#shape;
    if (contentBytes !== undefined && contentBytes !== this.#totalBytes) {
      throw this.#damaged(`it declares ${contentBytes} bytes and holds ${this.#totalBytes}`);
    }
    this.#normalize();
    if (this.#code !== 0) throw this.#damaged("bits are left at its end");
    this.#isEnded = true;
  }

  /** One of the older distances becomes the newest. */
  #selectDistance(): void {
    const distances = this.#distances;
    let index = 1;
    if (this.#bit(IS_REPEAT_1 + this.#state) === 1) {
      index = 2 + this.#bit(IS_REPEAT_2 + this.#state);
    }
    const distance = distances[index] ?? 0;
    distances.copyWithin(1, 0, index);
    distances[0] = distance;
  }

  #length(coder: number, positionState: number): number {
    if (this.#bit(coder + LENGTH_CHOICE) === 0) {
      return MIN_MATCH_BYTES + this.#tree(coder + LENGTH_LOW + positionState * 8, 3);
    }
    if (this.#bit(coder + LENGTH_CHOICE_2) === 0) {
      return MIN_MATCH_BYTES + 8 + this.#tree(coder + LENGTH_MIDDLE + positionState * 8, 3);
    }
    return MIN_MATCH_BYTES + 16 + this.#tree(coder + LENGTH_HIGH, 8);
  }

  #distance(matchBytes: number): number {
    const slotTree = DISTANCE_SLOT + (lengthState(matchBytes) << DISTANCE_SLOT_BITS);
    const slot = this.#tree(slotTree, DISTANCE_SLOT_BITS);
    if (slot < FIRST_MODEL_SLOT) return slot;
    const bitCount = (slot >> 1) - 1;
    const base = (2 | (slot & 1)) << bitCount;
    if (slot < FIRST_DIRECT_SLOT) {
      return base + this.#reverseTree(DISTANCE_MODEL + base - slot, bitCount);
    }
    const direct = this.#directBits(bitCount - ALIGN_BITS) << ALIGN_BITS;
    return (base + direct + this.#reverseTree(DISTANCE_ALIGN, ALIGN_BITS)) >>> 0;
  }

  #tree(start: number, bitCount: number): number {
    let symbol = 1;
    for (let count = 0; count < bitCount; count += 1) {
      symbol = (symbol << 1) | this.#bit(start + symbol);
    }
    return symbol - (1 << bitCount);
  }

  #reverseTree(start: number, bitCount: number): number {
    let index = 1;
    let symbol = 0;
    for (let count = 0; count < bitCount; count += 1) {
      const bit = this.#bit(start + index);
      index = (index << 1) | bit;
      symbol |= bit << count;
    }
    return symbol;
  }

  #directBits(bitCount: number): number {
    let result = 0;
    for (let count = 0; count < bitCount; count += 1) {
      this.#normalize();
      this.#range >>>= 1;
      const isOne = (this.#code ^ 0x80000000) >= (this.#range ^ 0x80000000);
      if (isOne) this.#code = (this.#code - this.#range) | 0;
      result = (result << 1) | (isOne ? 1 : 0);
    }
    return result;
  }

  #bit(index: number): number {
    this.#normalize();
    const probability = this.#probabilities[index] ?? 0;
    const bound = Math.imul(this.#range >>> PROBABILITY_BITS, probability);
    // Unsigned: 32-bit integers of JavaScript are signed, and doubles would be slower.
    if ((this.#code ^ 0x80000000) < (bound ^ 0x80000000)) {
      this.#range = bound;
      this.#probabilities[index] =
        probability + (((1 << PROBABILITY_BITS) - probability) >> MOVE_BITS);
      return 0;
    }
    this.#range = (this.#range - bound) | 0;
    this.#code = (this.#code - bound) | 0;
    this.#probabilities[index] = probability - (probability >> MOVE_BITS);
    return 1;
  }

  #normalize(): void {
    if ((this.#range & 0xff000000) !== 0) return;
    this.#range <<= 8;
    this.#code = (this.#code << 8) | this.#nextByte();
  }

  #nextByte(): number {
    const byte = this.#input[this.#at];
    if (byte === undefined) {
      throw new TruncatedError(`lzma data ends after ${this.#totalBytes} bytes of its content`);
    }
    this.#at += 1;
    return byte;
  }

  /** The byte `distance` + 1 before the next one; 0 before the first. */
  #byteBefore(distance: number): number {
    const at = this.#windowAt - distance - 1;
    return this.#window[at < 0 ? at + this.#window.length : at] ?? 0;
  }

  #copy(matchBytes: number): void {
    const distance = this.#distances[0] ?? 0;
    if (distance >= this.#totalBytes || distance >= this.#window.length) {
      throw this.#damaged(`a match lies ${distance + 1} bytes back`);
    }
    for (let count = 0; count < matchBytes; count += 1) this.#put(this.#byteBefore(distance));
  }

  #put(byte: number): void {
    if (this.#totalBytes === this.#shape.contentBytes) {
      throw this.#damaged(`it holds more than the ${this.#totalBytes} bytes that it declares`);
    }
    this.#window[this.#windowAt] = byte;
    this.#windowAt += 1;
    if (this.#windowAt === this.#window.length) this.#windowAt = 0;
    this.#pendingBytes += 1;
    this.#totalBytes += 1;
  }

  #damaged(reason: string): FormatError {
    const at = this.#totalBytes;
    return new FormatError(`lzma data is damaged after ${at} bytes of its content: ${reason}`);
  }
}
