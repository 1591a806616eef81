import { MAX_MATCH_BYTES } from "./lzma-model.ts";

/** How far back matches are looked for. More costs memory, four bytes for each. */
const LOOK_BACK_BYTES = 2 * 1024 * 1024;
const POSITION_MASK = LOOK_BACK_BYTES - 1;
const HASH_BITS = 17;
/** Matches are found by their first bytes; shorter ones are not worth their distance. */
const HASHED_BYTES = 4;
/** Room for what was appended and is not encoded yet. */
const LOOK_AHEAD_BYTES = 128 * 1024;

export interface Match {
  /** 0 when there is none. */
  readonly matchBytes: number;
  /** Less one, as the format counts. */
  readonly distance: number;
}

export const NO_MATCH: Match = { matchBytes: 0, distance: 0 };

export interface MatchEffort {
  /** Places that are tried for each match. */
  readonly tryCount: number;
  /** A match of this length is not improved further. */
  readonly niceBytes: number;
}

/** The content that can be referred to, and where in it the same bytes were before. */
export class MatchFinder {
  readonly #effort: MatchEffort;
  readonly #bytes = new Uint8Array(2 * LOOK_BACK_BYTES + LOOK_AHEAD_BYTES);
  #filledBytes = 0;
  #at = 0;
  /** Positions below are in the chains. */
  #insertedEnd = 0;
  /** The newest position, plus one, of each hash; 0 for none. */
  readonly #heads = new Int32Array(1 << HASH_BITS);
  /** The position before it with the same hash, plus one. */
  readonly #chains = new Int32Array(LOOK_BACK_BYTES);

  constructor(effort: MatchEffort) {
    this.#effort = effort;
  }

  get availableBytes(): number {
    return this.#filledBytes - this.#at;
  }

  /** At most LOOK_AHEAD_BYTES / 2, and only while less than that is available. */
  append(bytes: Uint8Array): void {
    if (this.#filledBytes + bytes.length > this.#bytes.length) this.#dropOldest();
    this.#bytes.set(bytes, this.#filledBytes);
    this.#filledBytes += bytes.length;
  }

  /** The byte at `offset` from the current position: negative for content before it. */
  byteAt(offset: number): number {
    return this.#bytes[this.#at + offset] ?? 0;
  }

  /** Bytes that are the same here and `distance` + 1 before; 0 where that is before the content. */
  repeatedBytes(distance: number): number {
    const other = this.#at - distance - 1;
    return other < 0 ? 0 : this.#commonBytes(this.#at, other);
  }

  /** The longest match `offset` bytes ahead. Call once for each position, in order. */
  find(offset: number): Match {
    const position = this.#at + offset;
    if (position + HASHED_BYTES > this.#filledBytes) return NO_MATCH;
    while (this.#insertedEnd < position) this.#insert(this.#insertedEnd);
    let candidate = this.#insert(position) - 1;

    const { tryCount, niceBytes } = this.#effort;
    const oldest = Math.max(0, position - POSITION_MASK);
    let bestBytes = HASHED_BYTES - 1;
    let bestPosition = -1;
    for (let tries = 0; candidate >= oldest && tries < tryCount; tries += 1) {
      if (this.#bytes[candidate + bestBytes] === this.#bytes[position + bestBytes]) {
        const commonBytes = this.#commonBytes(position, candidate);
        if (commonBytes > bestBytes) {
          bestBytes = commonBytes;
          bestPosition = candidate;
          if (commonBytes >= niceBytes) break;
        }
      }
      candidate = (this.#chains[candidate & POSITION_MASK] ?? 0) - 1;
    }
    if (bestPosition < 0) return NO_MATCH;
    return { matchBytes: bestBytes, distance: position - bestPosition - 1 };
  }

  advance(count: number): void {
    this.#at += count;
    const end = Math.min(this.#at, this.#filledBytes - HASHED_BYTES + 1);
    while (this.#insertedEnd < end) this.#insert(this.#insertedEnd);
  }

  /** Gives what the position's hash had before. */
  #insert(position: number): number {
    const bytes = this.#bytes;
    const word =
      (bytes[position] ?? 0) |
      ((bytes[position + 1] ?? 0) << 8) |
      ((bytes[position + 2] ?? 0) << 16) |
      ((bytes[position + 3] ?? 0) << 24);
    const hash = Math.imul(word, 0x9e3779b1) >>> (32 - HASH_BITS);
    const previous = this.#heads[hash] ?? 0;
    this.#chains[position & POSITION_MASK] = previous;
    this.#heads[hash] = position + 1;
    this.#insertedEnd = position + 1;
    return previous;
  }

  #commonBytes(position: number, other: number): number {
    const bytes = this.#bytes;
    const limit = Math.min(MAX_MATCH_BYTES, this.#filledBytes - position);
    let count = 0;
    while (count < limit && bytes[other + count] === bytes[position + count]) count += 1;
    return count;
  }

  /** Moves everything down by one look-back, so that places in the chains stay what they are. */
  #dropOldest(): void {
    this.#bytes.copyWithin(0, LOOK_BACK_BYTES, this.#filledBytes);
    this.#filledBytes -= LOOK_BACK_BYTES;
    this.#at -= LOOK_BACK_BYTES;
    this.#insertedEnd -= LOOK_BACK_BYTES;
    for (const positions of [this.#heads, this.#chains]) {
      for (let index = 0; index < positions.length; index += 1) {
        positions[index] = Math.max(0, (positions[index] ?? 0) - LOOK_BACK_BYTES);
      }
    }
  }
}
