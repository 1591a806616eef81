/**
 * Everything that differs between Bun, which we ship, and Node.js, which we can fall back to.
 * No other module may ask which of the two it runs on.
 */
import { promisify } from "node:util";
import {
  constants,
  zstdCompress as zlibCompress,
  zstdDecompress as zlibDecompress,
} from "node:zlib";
import { FormatError } from "../errors.ts";
import { free } from "./freed.ts";

/** What we use of Bun's own API. */
interface BunApi {
  zstdCompress(bytes: Uint8Array, options: { readonly level: number }): Promise<Uint8Array>;
  zstdDecompress(bytes: Uint8Array): Promise<Uint8Array>;
  readonly hash: { xxHash64(bytes: Uint8Array): bigint };
}

const ZSTD_CHECKSUM_FLAG = 0x04;
const ZSTD_CHECKSUM_BYTES = 4;
/** Of the frame header descriptor, behind the magic number. */
const ZSTD_DESCRIPTOR_OFFSET = 4;

/**
 * Compresses `bytes` into one zstd frame with content size and content checksum, off the main
 * thread. `bytes` must not change until it is done.
 */
export async function zstdCompressFrame(bytes: Uint8Array, level: number): Promise<Uint8Array> {
  const bun = bunApi();
  if (bun !== undefined) {
    const hash = bun.hash.xxHash64(bytes);
    return withZstdChecksum(await bun.zstdCompress(bytes, { level }), hash);
  }
  return await promisify(zlibCompress)(bytes, {
    // Without it the frame would not tell its content size.
    pledgedSrcSize: bytes.length,
    params: {
      [constants.ZSTD_c_compressionLevel]: level,
      [constants.ZSTD_c_checksumFlag]: 1,
    },
  });
}

/**
 * Decompresses one whole frame off the main thread and verifies its checksum if it has one.
 * `frame` must end where the frame ends and declare `contentBytes`, which the caller has limited;
 * it must not change until it is done. Throws FormatError if the frame is damaged.
 */
export async function zstdDecompressFrame(
  frame: Uint8Array,
  contentBytes: number,
): Promise<Uint8Array> {
  const content = await decompressed(frame, contentBytes).catch((error: unknown) => {
    throw new FormatError("zstd frame is damaged", { cause: error });
  });
  if (content.length !== contentBytes) {
    throw new FormatError(
      `zstd frame is damaged: it declares ${contentBytes} bytes and holds ${content.length}`,
    );
  }
  return content;
}

function decompressed(frame: Uint8Array, contentBytes: number): Promise<Uint8Array> {
  const bun = bunApi();
  if (bun !== undefined) return bun.zstdDecompress(frame);
  const chunkSize = Math.max(contentBytes, constants.Z_MIN_CHUNK);
  return promisify(zlibDecompress)(frame, { chunkSize, maxOutputLength: chunkSize });
}

/** XXH64 with seed 0 of all of `bytes`, or undefined where the runtime has no native one. */
export function nativeXxh64(bytes: Uint8Array): bigint | undefined {
  return bunApi()?.hash.xxHash64(bytes);
}

/** Bun has no option for the checksum that the format provides for. */
function withZstdChecksum(frame: Uint8Array, contentHash: bigint): Uint8Array {
  const whole = Buffer.allocUnsafe(frame.length + ZSTD_CHECKSUM_BYTES);
  whole.set(frame);
  const descriptor = whole.readUInt8(ZSTD_DESCRIPTOR_OFFSET);
  whole.writeUInt8(descriptor | ZSTD_CHECKSUM_FLAG, ZSTD_DESCRIPTOR_OFFSET);
  whole.writeUInt32LE(Number(BigInt.asUintN(32, contentHash)), frame.length);
  free(frame);
  return whole;
}

function bunApi(): BunApi | undefined {
  const candidate: unknown = Reflect.get(globalThis, "Bun");
  return isBunApi(candidate) ? candidate : undefined;
}

function isBunApi(value: unknown): value is BunApi {
  return typeof value === "object" && value !== null && "zstdCompress" in value && "hash" in value;
}
