import { compressLz4Block, decompressLz4Block } from "./lz4-block.ts";

/** The two functions of lz4-napi that we use, for raw blocks. */
export interface Lz4Addon {
  /**
   * Off the main thread. Gives the size of `block` (u32, little-endian), then the compressed block;
   * `block` must not change until then.
   */
  compress(block: Uint8Array): Promise<Buffer>;
  /**
   * `prefixed` is as `compress` gives it; a size that is too large is as good as the right one.
   * `dictionary` is content before the block that it may refer to.
   *
   * There is one that works off the main thread too, but the memory that it takes there stays
   * behind: 800 MiB after a while.
   */
  uncompressSync(prefixed: Uint8Array, dictionary?: Uint8Array): Buffer;
}

const SIZE_BYTES = 4;

/**
 * The addon or, where it can't be loaded, what does the same more slowly: the executable unpacks it
 * into $TMPDIR or /tmp, which may be full, read-only or mounted noexec, and WAL must be archived
 * and fetched there as well.
 */
export async function loadLz4Addon(): Promise<Lz4Addon> {
  try {
    const module: unknown = await import("lz4-napi");
    // In the executable the addon itself stands here instead of the package that chooses one.
    for (const candidate of [module, defaultExport(module)]) {
      if (isAddon(candidate)) return candidate;
    }
    return substitute;
  } catch {
    return substitute;
  }
}

/** The same in TypeScript, on the main thread. */
export const substitute: Lz4Addon = {
  async compress(block) {
    const prefixed = compressLz4Block(block, SIZE_BYTES);
    prefixed.writeUInt32LE(block.length, 0);
    return prefixed;
  },
  uncompressSync(prefixed, dictionary = Buffer.alloc(0)) {
    const block = prefixed.subarray(SIZE_BYTES);
    const view = new DataView(prefixed.buffer, prefixed.byteOffset, SIZE_BYTES);
    return decompressLz4Block(block, view.getUint32(0, true), dictionary);
  },
};

function defaultExport(module: unknown): unknown {
  return typeof module === "object" && module !== null && "default" in module
    ? module.default
    : undefined;
}

function isAddon(value: unknown): value is Lz4Addon {
  return (
    typeof value === "object" && value !== null && "compress" in value && "uncompressSync" in value
  );
}
