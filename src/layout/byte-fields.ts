import { FormatError, TruncatedError } from "../errors.ts";

const FIRST_BYTES = 4096;
const VARINT_BYTES_MAX = 5;

/** Writes little-endian numbers one behind the other. */
export class ByteWriter {
  #bytes = new Uint8Array(FIRST_BYTES);
  #view = new DataView(this.#bytes.buffer);
  #length = 0;

  u8(value: number): void {
    const at = this.#grow(1);
    this.#bytes[at] = value;
  }

  u32(value: number): void {
    const at = this.#grow(4);
    this.#view.setUint32(at, value, true);
  }

  u64(value: bigint): void {
    const at = this.#grow(8);
    this.#view.setBigUint64(at, value, true);
  }

  /** LEB128 of a number below 2^32 + 1. */
  varint(value: number): void {
    let left = value;
    while (left >= 0x80) {
      this.u8((left % 0x80) | 0x80);
      left = Math.floor(left / 0x80);
    }
    this.u8(left);
  }

  lengthAndBytes(bytes: Uint8Array): void {
    this.u32(bytes.length);
    const at = this.#grow(bytes.length);
    this.#bytes.set(bytes, at);
  }

  /** All so far; valid until more is written. */
  written(): Uint8Array {
    return this.#bytes.subarray(0, this.#length);
  }

  #grow(count: number): number {
    const at = this.#length;
    this.#length += count;
    if (this.#length > this.#bytes.length) {
      const grown = new Uint8Array(Math.max(this.#length, 2 * this.#bytes.length));
      grown.set(this.#bytes);
      this.#bytes = grown;
      this.#view = new DataView(grown.buffer);
    }
    return at;
  }
}

/** Reads what ByteWriter writes. Throws TruncatedError where the bytes end too early. */
export class ByteReader {
  readonly #bytes: Uint8Array;
  readonly #view: DataView;
  readonly #what: string;
  #at = 0;

  /** `what` is for messages: "change map". */
  constructor(bytes: Uint8Array, what: string) {
    this.#bytes = bytes;
    this.#view = new DataView(bytes.buffer, bytes.byteOffset, bytes.length);
    this.#what = what;
  }

  get leftBytes(): number {
    return this.#bytes.length - this.#at;
  }

  u8(): number {
    return this.#view.getUint8(this.#take(1));
  }

  u32(): number {
    return this.#view.getUint32(this.#take(4), true);
  }

  u64(): bigint {
    return this.#view.getBigUint64(this.#take(8), true);
  }

  /** Throws FormatError for a number above 2^35. */
  varint(): number {
    let value = 0;
    for (let index = 0; index < VARINT_BYTES_MAX; index += 1) {
      const byte = this.u8();
      value += (byte & 0x7f) * 0x80 ** index;
      if (byte < 0x80) return value;
    }
    throw new FormatError(`${this.#what} with a number of more than ${VARINT_BYTES_MAX} bytes`);
  }

  /** A copy. */
  lengthAndBytes(): Uint8Array {
    const length = this.u32();
    const at = this.#take(length);
    return this.#bytes.slice(at, at + length);
  }

  #take(count: number): number {
    if (count > this.leftBytes) {
      throw new TruncatedError(`${this.#what} ends after ${this.#bytes.length} bytes`);
    }
    const at = this.#at;
    this.#at += count;
    return at;
  }
}
