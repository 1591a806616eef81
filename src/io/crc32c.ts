/**
 * The CRC-32C of some bytes and of `bytes` behind them, where `sum` is that of the first, 0 if
 * there are none.
 */
export type NativeCrc32c = (bytes: Uint8Array, sum: number) => number;

/** One running CRC-32C. */
export interface Crc32cSum {
  update(bytes: Uint8Array): void;
  /** The checksum of all bytes until now, big-endian in base64, as object stores write it. */
  base64(): string;
}

/**
 * The processor's own instruction, ten times as fast as JavaScript for long pieces and slower for
 * those below some hundred bytes. Undefined where its addon can't be loaded: the executable unpacks
 * it into $TMPDIR or /tmp, which may be full, read-only or mounted noexec.
 */
export async function loadNativeCrc32c(): Promise<NativeCrc32c | undefined> {
  try {
    const module: unknown = await import("@node-rs/crc32");
    // In the executable the addon itself stands here instead of the package that chooses one.
    for (const candidate of [module, Reflect.get(Object(module), "default")]) {
      if (!isAddon(candidate)) continue;
      const { crc32c } = candidate;
      return (bytes, sum) => crc32c(bytes, sum);
    }
    return undefined;
  } catch {
    return undefined;
  }
}

/** Makes a running sum. */
export async function createCrc32c(): Promise<Crc32cSum> {
  const native = await loadNativeCrc32c();
  if (native === undefined) return await (await import("./crc32c-wasm.ts")).createWasmCrc32c();
  let sum = 0;
  return {
    update: (bytes) => {
      sum = native(bytes, sum);
    },
    base64() {
      const digest = Buffer.alloc(4);
      digest.writeUInt32BE(sum);
      return digest.toString("base64");
    },
  };
}

function isAddon(value: unknown): value is { readonly crc32c: NativeCrc32c } {
  return (
    typeof value === "object" &&
    value !== null &&
    "crc32c" in value &&
    typeof value.crc32c === "function"
  );
}
