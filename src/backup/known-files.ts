import { createHasher, type HashAlgorithm, type Hasher } from "../io/hash.ts";
import { free } from "../io/freed.ts";
import type { ManifestLine } from "../layout/manifest.ts";

/** A file as the base knows it. */
export interface BaseFile {
  /** Of the whole file, also where the base holds an increment of it. */
  readonly sizeBytes: number;
  /** Of the whole content, in the base's algorithm; absent where it has only an increment's. */
  readonly hash?: string | undefined;
}

const FIRST_CAPACITY = 4096;
const NAME_WORDS = 2;
const FIRST_NAME_BYTES = 1024;
/** Of one UTF-16 unit. */
const MAX_UTF8_BYTES = 3;
/** Of 32 bits. */
const HASH_WORDS: Readonly<Record<HashAlgorithm, number>> = { xxh64: 2, sha256: 8 };
const WORD_DIGITS = 8;
/** At most this share of the table is in use. */
const MAX_LOAD = 0.7;
const GROWTH = 1.5;
/** What `#sizes` holds for a name that is there twice: it is known as none. */
const AMBIGUOUS = -1;

/**
 * The files of a base by name, in about 50 bytes each (100 with sha256): a cluster may have
 * millions. Names are told apart by 64 bits of hash; where two of the base agree in them, neither
 * is found.
 */
export class BaseFiles {
  readonly #names: Hasher;
  readonly #hashWords: number;
  /** Used again and again: the collector does not see how much a million small buffers take. */
  #name = Buffer.allocUnsafeSlow(FIRST_NAME_BYTES);
  #count = 0;
  /** High and low word of the name's hash; both 0 = free. */
  #keys = new Uint32Array(FIRST_CAPACITY * NAME_WORDS);
  #sizes = new Float64Array(FIRST_CAPACITY);
  #hashes: Uint32Array;
  #hasHash = new Uint8Array(FIRST_CAPACITY);

  private constructor(names: Hasher, hashWords: number) {
    this.#names = names;
    this.#hashWords = hashWords;
    this.#hashes = new Uint32Array(FIRST_CAPACITY * hashWords);
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
    if (this.#count >= this.#sizes.length * MAX_LOAD) this.#grow();
    const key = this.#keyOf(name);
    const slot = this.#slotOf(key.high, key.low);
    if (this.#isUsed(slot)) {
      this.#sizes[slot] = AMBIGUOUS;
      return;
    }
    this.#count += 1;
    this.#keys[slot * NAME_WORDS] = key.high;
    this.#keys[slot * NAME_WORDS + 1] = key.low;
    this.#sizes[slot] = sizeBytes;
    if (hash === undefined) return;
    for (let word = 0; word < this.#hashWords; word += 1) {
      const digits = hash.slice(word * WORD_DIGITS, (word + 1) * WORD_DIGITS);
      this.#hashes[slot * this.#hashWords + word] = Number.parseInt(digits, 16);
    }
    this.#hasHash[slot] = 1;
  }

  find(name: string): BaseFile | undefined {
    const key = this.#keyOf(name);
    const slot = this.#slotOf(key.high, key.low);
    const sizeBytes = this.#sizes[slot] ?? AMBIGUOUS;
    if (!this.#isUsed(slot) || sizeBytes === AMBIGUOUS) return undefined;
    if (this.#hasHash[slot] !== 1) return { sizeBytes };
    const at = slot * this.#hashWords;
    let hash = "";
    for (let word = 0; word < this.#hashWords; word += 1) {
      hash += (this.#hashes[at + word] ?? 0).toString(16).padStart(WORD_DIGITS, "0");
    }
    return { sizeBytes, hash };
  }

  /** Whether the name was added, or another one that has the same hash. */
  knows(name: string): boolean {
    const key = this.#keyOf(name);
    return this.#isUsed(this.#slotOf(key.high, key.low));
  }

  #keyOf(name: string): { readonly high: number; readonly low: number } {
    if (name.length * MAX_UTF8_BYTES > this.#name.length) {
      this.#name = Buffer.allocUnsafeSlow(name.length * MAX_UTF8_BYTES);
    }
    const sizeBytes = this.#name.write(name);
    const digest = this.#names.digestOf(this.#name.subarray(0, sizeBytes));
    const high = Number.parseInt(digest.slice(0, 8), 16);
    // 0 and 0 would be a free slot.
    return { high, low: Number.parseInt(digest.slice(8), 16) || 1 };
  }

  #isUsed(slot: number): boolean {
    return this.#keys[slot * NAME_WORDS + 1] !== 0;
  }

  /** Where the key is, or would be. */
  #slotOf(high: number, low: number): number {
    const capacity = this.#sizes.length;
    let slot = low % capacity;
    for (;;) {
      const isHere =
        this.#keys[slot * NAME_WORDS + 1] === low && this.#keys[slot * NAME_WORDS] === high;
      if (isHere || !this.#isUsed(slot)) return slot;
      slot = (slot + 1) % capacity;
    }
  }

  #grow(): void {
    const [keys, sizes, hashes, hasHash] = [this.#keys, this.#sizes, this.#hashes, this.#hasHash];
    const width = this.#hashWords;
    const capacity = Math.ceil(sizes.length * GROWTH);
    this.#keys = new Uint32Array(capacity * NAME_WORDS);
    this.#sizes = new Float64Array(capacity);
    this.#hashes = new Uint32Array(capacity * width);
    this.#hasHash = new Uint8Array(capacity);
    // Without iterators and views: a million of those would fill the heap.
    for (let old = 0; old < sizes.length; old += 1) {
      const [high, low] = [keys[old * NAME_WORDS] ?? 0, keys[old * NAME_WORDS + 1] ?? 0];
      if (low === 0) continue;
      const slot = this.#slotOf(high, low);
      this.#keys[slot * NAME_WORDS] = high;
      this.#keys[slot * NAME_WORDS + 1] = low;
      this.#sizes[slot] = sizes[old] ?? AMBIGUOUS;
      for (let word = 0; word < width; word += 1) {
        this.#hashes[slot * width + word] = hashes[old * width + word] ?? 0;
      }
      this.#hasHash[slot] = hasHash[old] ?? 0;
    }
    for (const { buffer } of [keys, sizes, hashes, hasHash]) free(new Uint8Array(buffer));
  }
}
