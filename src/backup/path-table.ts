import { free } from "../io/freed.ts";
import { collectGarbage } from "../io/runtime.ts";
import { Column } from "./typed-column.ts";

const CHUNK_BITS = 20;
const CHUNK_BYTES = 1 << CHUNK_BITS;
const BYTE_MASK = CHUNK_BYTES - 1;
const MAX_BYTES = 2 ** 32 - 1;
const FIRST_SLOTS = 4096;
/** Things made of the table, a hundred bytes or so each, that may lie about. */
const THINGS_PER_COLLECTION = 65_536;
/** At most this share of the slots is in use. */
const MAX_LOAD = 0.7;
const FIRST_NAME_BYTES = 1024;
/** Of one UTF-16 unit. */
const MAX_UTF8_BYTES = 3;
const MAX_ASCII = 0x7f;
/** @source Fowler, Noll, Vo: FNV-1a of 32 bits */
const FNV_OFFSET = 0x811c9dc5;
const FNV_PRIME = 0x01000193;

/**
 * Paths, each with a number from 0 on: about 35 bytes for each of a data directory's. A million of
 * them as strings, in each of the sets that a restore needs, would be a gigabyte. Made once for all
 * backups of a chain, which have nearly all of them in common.
 */
export class PathTable {
  /** One after the other, in pieces of CHUNK_BYTES. */
  readonly #bytes: Buffer[] = [];
  /** Where each path ends. */
  readonly #ends = new Column(Uint32Array);
  /** By hash: the path's number and 1; 0 = free. */
  #slots = new Uint32Array(FIRST_SLOTS);
  #count = 0;
  #endBytes = 0;
  #madeCount = 0;
  /** The path that is looked for; used again and again. */
  #wanted = Buffer.allocUnsafeSlow(FIRST_NAME_BYTES);

  /** Numbers are below this. */
  get count(): number {
    return this.#count;
  }

  /** The number of a path that was added; -1 for any other. */
  find(path: string): number {
    const length = this.#encode(path);
    return (this.#slots[this.#slotOf(length)] ?? 0) - 1;
  }

  /** The number of a path, which gets one if it has none. */
  add(path: string): number {
    const length = this.#encode(path);
    const slot = this.#slotOf(length);
    const found = this.#slots[slot] ?? 0;
    if (found > 0) return found - 1;
    const id = this.#count;
    this.#append(length);
    this.#slots[slot] = id + 1;
    if (this.#count > this.#slots.length * MAX_LOAD) this.#grow();
    return id;
  }

  /** The path of a number; only of those that were given out. */
  pathOf(id: number): string {
    this.noteMade();
    const [start, end] = [this.#startOf(id), this.#ends.get(id)];
    const chunk = this.#bytes[start >>> CHUNK_BITS];
    const at = start & BYTE_MASK;
    if (chunk !== undefined && at + end - start <= CHUNK_BYTES) {
      return chunk.toString("utf8", at, at + end - start);
    }
    const bytes = Buffer.alloc(end - start);
    for (let index = 0; index < bytes.length; index += 1) bytes[index] = this.#byte(start + index);
    return bytes.toString();
  }

  /**
   * To be called for each string and object that is made of what is packed here, and for what is
   * made for one of its files, which is as much as `count` of them: the collector would let as much
   * of them come together as of what lives.
   */
  noteMade(count = 1): void {
    this.#madeCount += count;
    if (this.#madeCount < THINGS_PER_COLLECTION) return;
    this.#madeCount = 0;
    collectGarbage();
  }

  /** Puts the path's UTF-8 into `#wanted`; gives its length. */
  #encode(path: string): number {
    if (path.length * MAX_UTF8_BYTES > this.#wanted.length) {
      this.#wanted = Buffer.allocUnsafeSlow(path.length * MAX_UTF8_BYTES);
    }
    for (let index = 0; index < path.length; index += 1) {
      const unit = path.charCodeAt(index);
      if (unit > MAX_ASCII) return this.#wanted.write(path);
      this.#wanted[index] = unit;
    }
    return path.length;
  }

  /** Where what stands in `#wanted` is, or would be. */
  #slotOf(length: number): number {
    const mask = this.#slots.length - 1;
    let hash = FNV_OFFSET;
    for (let index = 0; index < length; index += 1) {
      hash = Math.imul(hash ^ (this.#wanted[index] ?? 0), FNV_PRIME);
    }
    for (let slot = spread(hash) & mask; ; slot = (slot + 1) & mask) {
      const found = this.#slots[slot] ?? 0;
      if (found === 0 || this.#isWanted(found - 1, length)) return slot;
    }
  }

  /** From the end: paths differ there. */
  #isWanted(id: number, length: number): boolean {
    const start = this.#startOf(id);
    if (this.#ends.get(id) - start !== length) return false;
    for (let index = length - 1; index >= 0; index -= 1) {
      if (this.#wanted[index] !== this.#byte(start + index)) return false;
    }
    return true;
  }

  #startOf(id: number): number {
    return id === 0 ? 0 : this.#ends.get(id - 1);
  }

  #byte(position: number): number {
    return this.#bytes[position >>> CHUNK_BITS]?.[position & BYTE_MASK] ?? 0;
  }

  #append(length: number): void {
    if (this.#endBytes + length > MAX_BYTES) throw new RangeError("more than 4 GiB of paths");
    for (let from = 0; from < length;) {
      const at = this.#endBytes & BYTE_MASK;
      if (this.#endBytes >>> CHUNK_BITS >= this.#bytes.length) {
        this.#bytes.push(Buffer.allocUnsafeSlow(CHUNK_BYTES));
      }
      const count = Math.min(length - from, CHUNK_BYTES - at);
      const chunk = this.#bytes[this.#endBytes >>> CHUNK_BITS];
      chunk?.set(this.#wanted.subarray(from, from + count), at);
      this.#endBytes += count;
      from += count;
    }
    this.#ends.set(this.#count, this.#endBytes);
    this.#count += 1;
  }

  #grow(): void {
    const slots = new Uint32Array(this.#slots.length * 2);
    const mask = slots.length - 1;
    for (let id = 0; id < this.#count; id += 1) {
      let hash = FNV_OFFSET;
      for (let at = this.#startOf(id); at < this.#ends.get(id); at += 1) {
        hash = Math.imul(hash ^ this.#byte(at), FNV_PRIME);
      }
      let slot = spread(hash) & mask;
      while (slots[slot] !== 0) slot = (slot + 1) & mask;
      slots[slot] = id + 1;
    }
    free(new Uint8Array(this.#slots.buffer));
    this.#slots = slots;
  }
}

/**
 * Neighbours in the table are few only where all bits take part.
 *
 * @source fmix32 of MurmurHash3
 */
function spread(hash: number): number {
  const first = Math.imul(hash ^ (hash >>> 16), 0x85ebca6b);
  const second = Math.imul(first ^ (first >>> 13), 0xc2b2ae35);
  return (second ^ (second >>> 16)) >>> 0;
}
