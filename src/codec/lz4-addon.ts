/** The two functions of lz4-napi that we use: raw blocks, off the main thread. */
export interface Lz4Addon {
  /** Gives the size of `block` (u32, little-endian), then the compressed block. */
  compress(block: Uint8Array): Promise<Buffer>;
  /**
   * `prefixed` is as `compress` gives it; a size that is too large is as good as the right one.
   * `dictionary` is content before the block that it may refer to.
   */
  uncompress(prefixed: Uint8Array, dictionary?: Uint8Array): Promise<Buffer>;
}

/** Neither of the two copies its arguments: they must not change until the result is there. */
export async function loadLz4Addon(): Promise<Lz4Addon> {
  const module: unknown = await import("lz4-napi");
  // In the executable the addon itself stands here instead of the package that chooses one.
  for (const candidate of [module, defaultExport(module)]) {
    if (isAddon(candidate)) return candidate;
  }
  throw new Error("lz4-napi lacks compress or uncompress");
}

function defaultExport(module: unknown): unknown {
  return typeof module === "object" && module !== null && "default" in module
    ? module.default
    : undefined;
}

function isAddon(value: unknown): value is Lz4Addon {
  return (
    typeof value === "object" && value !== null && "compress" in value && "uncompress" in value
  );
}
