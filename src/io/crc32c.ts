// In a module of its own: bundlers leave out the rest of hash-wasm behind a static import only.
import { createCRC32 } from "hash-wasm";

/** Reversed Castagnoli polynomial. */
const POLYNOMIAL = 0x82f6_3b78;

/** One running CRC-32C. */
export interface Crc32cSum {
  update(bytes: Uint8Array): void;
  /** The checksum of all bytes until now, big-endian in base64, as object stores write it. */
  base64(): string;
}

/** Makes running sums. The first one takes a few milliseconds: WebAssembly is compiled. */
export async function createCrc32c(): Promise<Crc32cSum> {
  const hash = await createCRC32(POLYNOMIAL);
  hash.init();
  return {
    update: (bytes) => void hash.update(bytes),
    base64() {
      const state = hash.save();
      const digest = Buffer.from(hash.digest("hex"), "hex").toString("base64");
      hash.load(state);
      return digest;
    },
  };
}
