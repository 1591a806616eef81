/**
 * The block format of lz4 in TypeScript: slower than the addon, on the main thread, and there where
 * the addon can't be loaded.
 *
 * @source doc/lz4_Block_format.md of the lz4 sources
 */
const MIN_MATCH_BYTES = 4;
/** The last match begins so far before the end, */
const LAST_MATCH_BYTES = 12;
/** and the last bytes are literals. */
const LAST_LITERAL_BYTES = 5;
const MAX_DISTANCE = 65_535;
/** A nibble of the token; more of a length follows in bytes. */
const LONG_LENGTH = 15;

const HASH_BITS = 14;
/** After so many misses in a row, steps between the places that are tried grow by one. */
const MISSES_PER_STEP = 64;

/** Runs of bytes from this length on are worth a call. */
const BULK_BYTES = 32;

/** Gives the compressed block behind `prefixBytes` that are left free. */
export function compressLz4Block(content: Uint8Array, prefixBytes: number): Buffer {
  const maxBytes = content.length + Math.ceil(content.length / 255) + 16;
  const writer = new BlockWriter(Buffer.allocUnsafeSlow(prefixBytes + maxBytes), prefixBytes);
  const positions = new Int32Array(1 << HASH_BITS).fill(-1);
  const view = new DataView(content.buffer, content.byteOffset, content.length);
  const matchLimit = content.length - LAST_LITERAL_BYTES;

  let literalStart = 0;
  let at = 0;
  let misses = 0;
  while (at <= content.length - LAST_MATCH_BYTES) {
    const word = view.getInt32(at, true);
    const hash = Math.imul(word, 0x9e3779b1) >>> (32 - HASH_BITS);
    const candidate = positions[hash] ?? -1;
    positions[hash] = at;
    const isNear = candidate >= 0 && at - candidate <= MAX_DISTANCE;
    if (!isNear || view.getInt32(candidate, true) !== word) {
      at += 1 + Math.floor(misses / MISSES_PER_STEP);
      misses += 1;
      continue;
    }
    let end = at + MIN_MATCH_BYTES;
    while (end < matchLimit && content[end] === content[candidate + end - at]) end += 1;
    writer.sequence(content.subarray(literalStart, at), at - candidate, end - at);
    literalStart = end;
    at = end;
    misses = 0;
  }
  writer.lastLiterals(content.subarray(literalStart));
  return writer.finish();
}

/**
 * Gives the content of a block, at most `maxBytes`; `history` is what the block may refer to before
 * its own content. Throws RangeError, with the reason alone, for what is no such block.
 */
export function decompressLz4Block(
  block: Uint8Array,
  maxBytes: number,
  history: Uint8Array,
): Buffer {
  const output = Buffer.allocUnsafeSlow(history.length + maxBytes);
  output.set(history);
  let at = 0;
  let end = history.length;

  const longLength = (length: number): number => {
    let total = length;
    for (let byte = 255; byte === 255; at += 1) {
      byte = block[at] ?? fail("a length goes beyond it");
      total += byte;
    }
    return total;
  };

  for (;;) {
    const token = block[at] ?? fail("it ends without literals");
    at += 1;
    let literalBytes = token >>> 4;
    if (literalBytes === LONG_LENGTH) literalBytes = longLength(literalBytes);
    if (at + literalBytes > block.length) fail("literals go beyond it");
    if (end + literalBytes > output.length) fail(`it holds more than ${maxBytes} bytes`);
    if (literalBytes < BULK_BYTES) {
      for (let count = 0; count < literalBytes; count += 1) {
        output[end + count] = block[at + count] ?? 0;
      }
    } else output.set(block.subarray(at, at + literalBytes), end);
    at += literalBytes;
    end += literalBytes;
    if (at === block.length) return output.subarray(history.length, end);

    const distance = (block[at] ?? 0) | ((block[at + 1] ?? fail("a distance goes beyond it")) << 8);
    at += 2;
    let matchBytes = token & LONG_LENGTH;
    if (matchBytes === LONG_LENGTH) matchBytes = longLength(matchBytes);
    matchBytes += MIN_MATCH_BYTES;
    if (distance === 0 || distance > end) fail(`a match lies ${distance} bytes back`);
    if (end + matchBytes > output.length) fail(`it holds more than ${maxBytes} bytes`);
    if (matchBytes < BULK_BYTES || distance < matchBytes) {
      for (const stop = end + matchBytes; end < stop; end += 1) {
        output[end] = output[end - distance] ?? 0;
      }
    } else {
      output.copyWithin(end, end - distance, end - distance + matchBytes);
      end += matchBytes;
    }
  }
}

function fail(reason: string): never {
  throw new RangeError(reason);
}

class BlockWriter {
  readonly #output: Buffer;
  #at: number;

  constructor(output: Buffer, at: number) {
    this.#output = output;
    this.#at = at;
  }

  /** `literals`, then a match `distance` back. */
  sequence(literals: Uint8Array, distance: number, matchBytes: number): void {
    const length = matchBytes - MIN_MATCH_BYTES;
    this.#literals(literals, Math.min(length, LONG_LENGTH));
    this.#at = this.#output.writeUInt16LE(distance, this.#at);
    if (length >= LONG_LENGTH) this.#longLength(length);
  }

  lastLiterals(literals: Uint8Array): void {
    this.#literals(literals, 0);
  }

  finish(): Buffer {
    return this.#output.subarray(0, this.#at);
  }

  #literals(literals: Uint8Array, matchNibble: number): void {
    const nibble = Math.min(literals.length, LONG_LENGTH);
    this.#at = this.#output.writeUInt8((nibble << 4) | matchNibble, this.#at);
    if (nibble === LONG_LENGTH) this.#longLength(literals.length);
    this.#output.set(literals, this.#at);
    this.#at += literals.length;
  }

  #longLength(length: number): void {
    let rest = length - LONG_LENGTH;
    for (; rest >= 255; rest -= 255) this.#at = this.#output.writeUInt8(255, this.#at);
    this.#at = this.#output.writeUInt8(rest, this.#at);
  }
}
