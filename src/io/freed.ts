import type { ByteStream } from "./bytes.ts";

/**
 * Gives the memory of `bytes` back to the system at once, if they are all of their buffer; nobody
 * may use them any more. Without it memory from native code waits for the garbage collector, which
 * does not see how much it is: hundreds of megabytes in a second.
 */
export function free(bytes: Uint8Array): void {
  const { buffer } = bytes;
  if (buffer instanceof ArrayBuffer && buffer.byteLength === bytes.byteLength) buffer.transfer(0);
}

/** Passes `stream` on and frees each chunk as soon as the consumer asks for the next one. */
export async function* freed(stream: ByteStream): ByteStream {
  for await (const chunk of stream) {
    yield chunk;
    free(chunk);
  }
}
