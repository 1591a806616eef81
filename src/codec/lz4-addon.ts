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

export async function loadLz4Addon(): Promise<Lz4Addon> {
  const module: unknown = await import("lz4-napi");
  // In the executable the addon itself stands here instead of the package that chooses one.
  for (const candidate of [module, defaultExport(module)]) {
    if (isAddon(candidate)) return candidate;
  }
  throw new Error("lz4-napi lacks a function that we use");
}

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
