/** Signed, as all arithmetic here: doubles would make the loop three times as slow. */
const PRIME_1 = 0x9e3779b1 | 0;
const PRIME_2 = 0x85ebca77 | 0;
const PRIME_3 = 0xc2b2ae3d | 0;
const PRIME_4 = 0x27d4eb2f | 0;
const PRIME_5 = 0x165667b1 | 0;

/** Four lanes of four bytes. */
const STRIPE_BYTES = 16;

/** XXH32 of bytes that come in pieces, as the lz4 frame format uses it. */
export class Xxh32 {
  readonly #lanes = new Int32Array(4);
  /** The last bytes of the input so far, less than a stripe. */
  readonly #rest = new Uint8Array(STRIPE_BYTES);
  #restBytes = 0;
  #totalBytes = 0;

  constructor() {
    this.#lanes.set([PRIME_1 + PRIME_2, PRIME_2, 0, -PRIME_1]);
  }

  update(bytes: Uint8Array): void {
    this.#totalBytes += bytes.length;
    let at = 0;
    if (this.#restBytes > 0) {
      at = Math.min(STRIPE_BYTES - this.#restBytes, bytes.length);
      this.#rest.set(bytes.subarray(0, at), this.#restBytes);
      this.#restBytes += at;
      if (this.#restBytes < STRIPE_BYTES) return;
      this.#mix(this.#rest);
      this.#restBytes = 0;
    }
    const end = bytes.length - ((bytes.length - at) % STRIPE_BYTES);
    if (end > at) this.#mix(bytes.subarray(at, end));
    this.#rest.set(bytes.subarray(end));
    this.#restBytes = bytes.length - end;
  }

  /** The hash of everything so far, as an unsigned 32-bit number; more may follow. */
  digest(): number {
    const [a = 0, b = 0, c = 0, d = 0] = this.#lanes;
    let hash =
      this.#totalBytes < STRIPE_BYTES
        ? PRIME_5
        : rotate(a, 1) + rotate(b, 7) + rotate(c, 12) + rotate(d, 18);
    hash = (hash + this.#totalBytes) | 0;

    const rest = new DataView(this.#rest.buffer, 0, this.#restBytes);
    let at = 0;
    for (; at + 4 <= this.#restBytes; at += 4) {
      const word = Math.imul(rest.getInt32(at, true), PRIME_3);
      hash = Math.imul(rotate(hash + word, 17), PRIME_4);
    }
    for (; at < this.#restBytes; at += 1) {
      const byte = Math.imul(rest.getUint8(at), PRIME_5);
      hash = Math.imul(rotate(hash + byte, 11), PRIME_1);
    }
    hash = Math.imul(hash ^ (hash >>> 15), PRIME_2);
    hash = Math.imul(hash ^ (hash >>> 13), PRIME_3);
    return (hash ^ (hash >>> 16)) >>> 0;
  }

  /** `bytes` is a whole number of stripes. */
  #mix(bytes: Uint8Array): void {
    // An Int32Array is three times as fast as a DataView, and begins at a multiple of four.
    const aligned = bytes.byteOffset % 4 === 0 ? bytes : new Uint8Array(bytes);
    const words = new Int32Array(aligned.buffer, aligned.byteOffset, aligned.length / 4);
    let a = this.#lanes[0] ?? 0;
    let b = this.#lanes[1] ?? 0;
    let c = this.#lanes[2] ?? 0;
    let d = this.#lanes[3] ?? 0;
    for (let at = 0; at < words.length; at += 4) {
      a = Math.imul(rotate((a + Math.imul(words[at] ?? 0, PRIME_2)) | 0, 13), PRIME_1);
      b = Math.imul(rotate((b + Math.imul(words[at + 1] ?? 0, PRIME_2)) | 0, 13), PRIME_1);
      c = Math.imul(rotate((c + Math.imul(words[at + 2] ?? 0, PRIME_2)) | 0, 13), PRIME_1);
      d = Math.imul(rotate((d + Math.imul(words[at + 3] ?? 0, PRIME_2)) | 0, 13), PRIME_1);
    }
    this.#lanes[0] = a;
    this.#lanes[1] = b;
    this.#lanes[2] = c;
    this.#lanes[3] = d;
  }
}

/** XXH32 of all of `bytes`, as an unsigned 32-bit number. */
export function xxh32(bytes: Uint8Array): number {
  const hash = new Xxh32();
  hash.update(bytes);
  return hash.digest();
}

function rotate(value: number, bits: number): number {
  return (value << bits) | (value >>> (32 - bits));
}
