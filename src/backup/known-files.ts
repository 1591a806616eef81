import { createHasher, type HashAlgorithm, type Hasher } from "../io/hash.ts";
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
const HASH_BYTES: Readonly<Record<HashAlgorithm, number>> = { xxh64: 8, sha256: 32 };
/** At most this share of the table is in use. */
const MAX_LOAD = 0.7;
/** What `#sizes` holds for a name that is there twice: it is known as none. */
const AMBIGUOUS = -1;

/**
 * The files of a base by name, in about 50 bytes each (100 with sha256): a cluster may have
 * millions. Names are told apart by 64 bits of hash; where two of the base agree in them, neither
 * is found.
 */
export class BaseFiles {
  readonly #names: Hasher;
  readonly #hashBytes: number;
  #count = 0;
  /** High and low word of the name's hash; both 0 = free. */
  #keys = new Uint32Array(FIRST_CAPACITY * NAME_WORDS);
  #sizes = new Float64Array(FIRST_CAPACITY);
  #hashes: Uint8Array;
  #hasHash = new Uint8Array(FIRST_CAPACITY);

  private constructor(names: Hasher, hashBytes: number) {
    this.#names = names;
    this.#hashBytes = hashBytes;
    this.#hashes = new Uint8Array(FIRST_CAPACITY * hashBytes);
  }

  /** `hash` is the algorithm of the files' hashes. */
  static async create(hash: HashAlgorithm): Promise<BaseFiles> {
    return new BaseFiles(await createHasher("xxh64"), HASH_BYTES[hash]);
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
    this.#hashes.set(Buffer.from(hash, "hex"), slot * this.#hashBytes);
    this.#hasHash[slot] = 1;
  }

  find(name: string): BaseFile | undefined {
    const key = this.#keyOf(name);
    const slot = this.#slotOf(key.high, key.low);
    const sizeBytes = this.#sizes[slot] ?? AMBIGUOUS;
    if (!this.#isUsed(slot) || sizeBytes === AMBIGUOUS) return undefined;
    if (this.#hasHash[slot] !== 1) return { sizeBytes };
    const at = slot * this.#hashBytes;
    const bytes = this.#hashes.subarray(at, at + this.#hashBytes);
    return { sizeBytes, hash: Buffer.from(bytes).toString("hex") };
  }

  /** Whether the name was added, or another one that has the same hash. */
  knows(name: string): boolean {
    const key = this.#keyOf(name);
    return this.#isUsed(this.#slotOf(key.high, key.low));
  }

  #keyOf(name: string): { readonly high: number; readonly low: number } {
    const digest = this.#names.digestOf(Buffer.from(name));
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
    const width = this.#hashBytes;
    const capacity = sizes.length * 2;
    this.#keys = new Uint32Array(capacity * NAME_WORDS);
    this.#sizes = new Float64Array(capacity);
    this.#hashes = new Uint8Array(capacity * width);
    this.#hasHash = new Uint8Array(capacity);
    for (const [old, size] of sizes.entries()) {
      const [high = 0, low = 0] = keys.subarray(old * NAME_WORDS, old * NAME_WORDS + NAME_WORDS);
      if (low === 0) continue;
      const slot = this.#slotOf(high, low);
      this.#keys[slot * NAME_WORDS] = high;
      this.#keys[slot * NAME_WORDS + 1] = low;
      this.#sizes[slot] = size;
      this.#hashes.set(hashes.subarray(old * width, (old + 1) * width), slot * width);
      this.#hasHash[slot] = hasHash[old] ?? 0;
    }
  }
}
