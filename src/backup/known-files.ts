import { createHasher, type HashAlgorithm, type Hasher } from "../io/hash.ts";
import { free } from "../io/freed.ts";
import type { ManifestLine } from "../layout/manifest.ts";
import { Column } from "./typed-column.ts";

/** A file as the base knows it. */
export interface BaseFile {
  /** Of the whole file, also where the base holds an increment of it. */
  readonly sizeBytes: number;
  /** Of the whole content, in the base's algorithm; absent where it has only an increment's. */
  readonly hash?: string | undefined;
}

const FIRST_SLOTS = 4096;
const FIRST_NAME_BYTES = 1024;
/** Of one UTF-16 unit. */
const MAX_UTF8_BYTES = 3;
/** Of 32 bits. */
const HASH_WORDS: Readonly<Record<HashAlgorithm, number>> = { xxh64: 2, sha256: 8 };
const WORD_DIGITS = 8;
const WORD = 2 ** 32;
/** At most this share of the slots is in use. */
const MAX_LOAD = 0.7;
/** What is known of a name; of one that is there twice it is nothing. */
const STATE = { size: 0, sizeAndHash: 1, ambiguous: 2 } as const;

/**
 * The files of a base by name, in about 30 bytes each (55 with sha256): a cluster may have
 * millions. Names are told apart by 64 bits of hash; where two of the base agree in them, neither
 * is found.
 */
export class BaseFiles {
  readonly #names: Hasher;
  readonly #hashWords: number;
  /** Used again and again: the collector does not see how much a million small buffers take. */
  #name = Buffer.allocUnsafeSlow(FIRST_NAME_BYTES);
  #count = 0;
  /** By the name's hash: the row's number and 1; 0 = free. */
  #slots = new Uint32Array(FIRST_SLOTS);
  readonly #highNames = new Column(Uint32Array);
  readonly #lowNames = new Column(Uint32Array);
  readonly #lowSizes = new Column(Uint32Array);
  /** Of files of 4 GiB and more. */
  readonly #highSizes = new Column(Uint32Array);
  readonly #hashes = new Column(Uint32Array);
  readonly #states = new Column(Uint8Array);

  private constructor(names: Hasher, hashWords: number) {
    this.#names = names;
    this.#hashWords = hashWords;
  }

  /** `hash` is the algorithm of the files' hashes. */
  static async create(hash: HashAlgorithm): Promise<BaseFiles> {
    return new BaseFiles(await createHasher("xxh64"), HASH_WORDS[hash]);
  }

  /** Takes a line of our manifest in; only those of files count. */
  addLine(line: ManifestLine): void {
    if (line.kind === "unchanged") this.add(line.name, line);
    if (line.kind !== "file") return;
    const { sizeBytes, fullBytes, hash } = line;
    this.add(line.name, fullBytes === undefined ? { sizeBytes, hash } : { sizeBytes: fullBytes });
  }

  add(name: string, { sizeBytes, hash }: BaseFile): void {
    const key = this.#keyOf(name);
    const slot = this.#slotOf(key);
    const known = this.#slots[slot] ?? 0;
    if (known > 0) {
      this.#states.set(known - 1, STATE.ambiguous);
      return;
    }
    const row = this.#count;
    this.#count += 1;
    this.#slots[slot] = this.#count;
    this.#highNames.set(row, key.high);
    this.#lowNames.set(row, key.low);
    this.#lowSizes.set(row, sizeBytes % WORD);
    if (sizeBytes >= WORD) this.#highSizes.set(row, Math.floor(sizeBytes / WORD));
    this.#states.set(row, hash === undefined ? STATE.size : STATE.sizeAndHash);
    if (hash !== undefined) this.#setHash(row, hash);
    if (this.#count > this.#slots.length * MAX_LOAD) this.#grow();
  }

  find(name: string): BaseFile | undefined {
    const row = (this.#slots[this.#slotOf(this.#keyOf(name))] ?? 0) - 1;
    const state = row < 0 ? STATE.ambiguous : this.#states.get(row);
    if (state === STATE.ambiguous) return undefined;
    const sizeBytes = this.#highSizes.get(row) * WORD + this.#lowSizes.get(row);
    if (state === STATE.size) return { sizeBytes };
    let hash = "";
    for (let word = 0; word < this.#hashWords; word += 1) {
      const digits = this.#hashes.get(row * this.#hashWords + word).toString(16);
      hash += digits.padStart(WORD_DIGITS, "0");
    }
    return { sizeBytes, hash };
  }

  /** Whether the name was added, or another one that has the same hash. */
  knows(name: string): boolean {
    return this.#slots[this.#slotOf(this.#keyOf(name))] !== 0;
  }

  #setHash(row: number, hash: string): void {
    for (let word = 0; word < this.#hashWords; word += 1) {
      const digits = hash.slice(word * WORD_DIGITS, (word + 1) * WORD_DIGITS);
      this.#hashes.set(row * this.#hashWords + word, Number.parseInt(digits, 16));
    }
  }

  #keyOf(name: string): Key {
    if (name.length * MAX_UTF8_BYTES > this.#name.length) {
      this.#name = Buffer.allocUnsafeSlow(name.length * MAX_UTF8_BYTES);
    }
    const sizeBytes = this.#name.write(name);
    const digest = this.#names.digestOf(this.#name.subarray(0, sizeBytes));
    return {
      high: Number.parseInt(digest.slice(0, WORD_DIGITS), 16),
      low: Number.parseInt(digest.slice(WORD_DIGITS), 16),
    };
  }

  /** Where the key is, or would be. */
  #slotOf({ high, low }: Key): number {
    const mask = this.#slots.length - 1;
    for (let slot = low & mask; ; slot = (slot + 1) & mask) {
      const row = (this.#slots[slot] ?? 0) - 1;
      if (row < 0) return slot;
      if (this.#lowNames.get(row) === low && this.#highNames.get(row) === high) return slot;
    }
  }

  #grow(): void {
    const slots = new Uint32Array(this.#slots.length * 2);
    const mask = slots.length - 1;
    for (let row = 0; row < this.#count; row += 1) {
      let slot = this.#lowNames.get(row) & mask;
      while (slots[slot] !== 0) slot = (slot + 1) & mask;
      slots[slot] = row + 1;
    }
    free(new Uint8Array(this.#slots.buffer));
    this.#slots = slots;
  }
}

/** Hash of a name, in two words. */
interface Key {
  readonly high: number;
  readonly low: number;
}
