import { createGunzip } from "node:zlib";
import type { ByteStream } from "../io/bytes.ts";
import type { DecompressOptions } from "./codec.ts";
import { ZLIB_OPTIONS, decompressedByZlib } from "./zlib-stream.ts";

/** The configuration has no gzip: WAL-G reads it and never writes it. */
export function compress(): never {
  throw new Error("gzip is read only");
}

/** Several members in a row are one content. */
export function decompress(input: ByteStream, { signal }: DecompressOptions): ByteStream {
  return decompressedByZlib(input, createGunzip(ZLIB_OPTIONS), { subject: "gzip data", signal });
}
