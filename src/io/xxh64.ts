// In a module of its own, which hash.ts loads when it is needed: bundlers leave out the rest of
// hash-wasm behind a static import only.
import { createXXHash64 } from "hash-wasm";

/** A WebAssembly instance of streaming XXH64 with seed 0. `init` before each use. */
export interface Xxh64 {
  init(): unknown;
  update(bytes: Uint8Array): unknown;
  /** 16 hex digits. */
  digest(): string;
}

/** Compiles the WebAssembly: a few milliseconds the first time. */
export async function createXxh64(): Promise<Xxh64> {
  return await createXXHash64();
}
