/** Reversed Castagnoli polynomial. @source src/port/pg_crc32c_sb8.c */
const POLYNOMIAL = 0x82f6_3b78;
const STEP_BYTES = 16;
const WORD_BYTES = 4;

/** What is faster for long pieces. */
export interface LongCrc32c {
  /** From here on it is. */
  readonly bytesMin: number;
  /**
   * The checksum of bytes and of bytes [from, to) of `view` behind them; `checksum` is that of the
   * first, 0 of none.
   */
  readonly update: (view: DataView, from: number, to: number, checksum: number) => number;
}

/**
 * CRC-32C, sixteen bytes a step. An instance holds its tables (16 KiB) and nothing else, so that
 * one serves any number of sums.
 */
export class Crc32c {
  /** The running sum before the first byte. @source INIT_CRC32C, src/include/port/pg_crc32c.h */
  static readonly start = -1;

  readonly #tables = makeTables();
  readonly #long: LongCrc32c | undefined;

  readonly #longBytesMin: number;

  /** `long` is used where there is one. */
  constructor(long?: LongCrc32c) {
    this.#long = long;
    this.#longBytesMin = long?.bytesMin ?? Number.POSITIVE_INFINITY;
  }

  /** Adds bytes [from, to) of `view` to a running sum and returns it. */
  update(sum: number, view: DataView, from: number, to: number): number {
    if (this.#long !== undefined && to - from >= this.#longBytesMin) {
      return ~this.#long.update(view, from, to, ~sum >>> 0);
    }
    const t = this.#tables;
    let crc = sum;
    let i = from;
    for (; i + STEP_BYTES <= to; i += STEP_BYTES) {
      crc =
        fourTables(t, 3072, crc ^ view.getInt32(i, true)) ^
        fourTables(t, 2048, view.getInt32(i + 4, true)) ^
        fourTables(t, 1024, view.getInt32(i + 8, true)) ^
        fourTables(t, 0, view.getInt32(i + 12, true));
    }
    // Most records are short: what is left over is a good part of them.
    for (; i + WORD_BYTES <= to; i += WORD_BYTES) {
      crc = fourTables(t, 0, crc ^ view.getInt32(i, true));
    }
    for (; i < to; i += 1) crc = at(t, (crc ^ view.getUint8(i)) & 0xff) ^ (crc >>> 8);
    return crc;
  }

  /** Turns a running sum into the checksum, an unsigned 32-bit number. @source FIN_CRC32C */
  static finish(sum: number): number {
    return ~sum >>> 0;
  }
}

/**
 * The CRC-32C of all of `bytes`, bit by bit: at once for some hundred bytes, where making the
 * tables of a Crc32c would take longer.
 */
export function crc32c(bytes: Uint8Array): number {
  let sum = Crc32c.start;
  for (const byte of bytes) sum = addByte(sum ^ byte);
  return Crc32c.finish(sum);
}

function addByte(sum: number): number {
  let crc = sum;
  for (let bit = 0; bit < 8; bit += 1) crc = (crc >>> 1) ^ ((crc & 1) === 0 ? 0 : POLYNOMIAL);
  return crc;
}

/** Table k (256 entries from k * 256 on) takes a byte that k more bytes follow in its step. */
function makeTables(): Int32Array {
  const tables = new Int32Array(STEP_BYTES * 256);
  for (let i = 0; i < 256; i += 1) tables[i] = addByte(i);
  for (let i = 256; i < tables.length; i += 1) {
    const before = at(tables, i - 256);
    tables[i] = (before >>> 8) ^ at(tables, before & 0xff);
  }
  return tables;
}

function fourTables(tables: Int32Array, first: number, word: number): number {
  return (
    at(tables, first + 768 + (word & 0xff)) ^
    at(tables, first + 512 + ((word >>> 8) & 0xff)) ^
    at(tables, first + 256 + ((word >>> 16) & 0xff)) ^
    at(tables, first + (word >>> 24))
  );
}

function at(tables: Int32Array, index: number): number {
  return tables[index] ?? 0;
}
