import { abortable } from "../io/abort.ts";
import type { ByteStream } from "../io/bytes.ts";
import type { CompressOptions, DecompressOptions } from "./codec.ts";

/** Bytes as they are. */
export function compress(input: ByteStream, { signal }: CompressOptions): ByteStream {
  return abortable(input, signal);
}

/** Bytes as they are; that they are complete is for others to prove. */
export function decompress(input: ByteStream, { signal }: DecompressOptions): ByteStream {
  return abortable(input, signal);
}
