import { createHasher, type HashAlgorithm, type Hasher } from "../io/hash.ts";

/** Hashers that are used again: to make one takes longer than to hash a megabyte. */
export class HasherPool {
  readonly #free: Hasher[] = [];

  /** Runs `work` with a hasher of its own, which it leaves between two digests. */
  async use<T>(algorithm: HashAlgorithm, work: (hasher: Hasher) => Promise<T>): Promise<T> {
    const hasher = await this.take(algorithm);
    try {
      return await work(hasher);
    } finally {
      this.give(hasher);
    }
  }

  async take(algorithm: HashAlgorithm): Promise<Hasher> {
    const index = this.#free.findIndex((hasher) => hasher.algorithm === algorithm);
    const [hasher] = index < 0 ? [] : this.#free.splice(index, 1);
    return hasher ?? (await createHasher(algorithm));
  }

  /** It stands between two digests. */
  give(hasher: Hasher): void {
    this.#free.push(hasher);
  }
}
