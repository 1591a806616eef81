import { nodeCrypto } from "./builtin.ts";
import { nativeXxh64 } from "./runtime.ts";
import type { Xxh64 } from "./xxh64.ts";

/** xxh64 finds damage at memory speed; sha256 also withstands somebody who wants to deceive. */
export type HashAlgorithm = "xxh64" | "sha256";

/**
 * Hashes one run of bytes after the other. Made once and used for many files: each `digest` begins
 * anew. Not for two files at the same time.
 */
export interface Hasher {
  readonly algorithm: HashAlgorithm;
  update(bytes: Uint8Array): void;
  /** Of everything since the last `digest`: lower-case hex, 16 digits for xxh64, 64 for sha256. */
  digest(): string;
  /** Of `bytes` alone: the faster way where they are all there. Not between update and digest. */
  digestOf(bytes: Uint8Array): string;
}

/** XXH64 has seed 0 and is written as a big-endian number, as `xxhsum -H64` does. */
export async function createHasher(algorithm: HashAlgorithm): Promise<Hasher> {
  if (algorithm === "sha256") return new Sha256Hasher();
  const { createXxh64 } = await import("./xxh64.ts");
  return new Xxh64Hasher(await createXxh64());
}

class Xxh64Hasher implements Hasher {
  readonly algorithm = "xxh64";
  readonly #hash: Xxh64;
  #isBegun = false;

  constructor(hash: Xxh64) {
    this.#hash = hash;
  }

  update(bytes: Uint8Array): void {
    if (!this.#isBegun) {
      this.#hash.init();
      this.#isBegun = true;
    }
    this.#hash.update(bytes);
  }

  digest(): string {
    if (!this.#isBegun) this.#hash.init();
    this.#isBegun = false;
    return this.#hash.digest();
  }

  digestOf(bytes: Uint8Array): string {
    if (this.#isBegun) throw new Error("digestOf between update and digest");
    const native = nativeXxh64(bytes);
    if (native !== undefined) return native.toString(16).padStart(16, "0");
    this.update(bytes);
    return this.digest();
  }
}

class Sha256Hasher implements Hasher {
  readonly algorithm = "sha256";
  #hash = nodeCrypto().createHash("sha256");
  #isBegun = false;

  update(bytes: Uint8Array): void {
    this.#isBegun = true;
    this.#hash.update(bytes);
  }

  digest(): string {
    const digest = this.#hash.digest("hex");
    this.#hash = nodeCrypto().createHash("sha256");
    this.#isBegun = false;
    return digest;
  }

  digestOf(bytes: Uint8Array): string {
    if (this.#isBegun) throw new Error("digestOf between update and digest");
    return nodeCrypto().createHash("sha256").update(bytes).digest("hex");
  }
}
