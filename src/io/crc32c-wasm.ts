// In a module of its own: bundlers leave out the rest of hash-wasm behind a static import only.
import { createCRC32 } from "hash-wasm";
import type { Crc32cSum } from "./crc32c.ts";

/** Reversed Castagnoli polynomial. */
const POLYNOMIAL = 0x82f6_3b78;

/** Like createCrc32c, without the addon. The first one takes a few milliseconds: it is compiled. */
export async function createWasmCrc32c(): Promise<Crc32cSum> {
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
