import type { ByteStream } from "../../src/io/bytes.ts";

/** Bytes that are the same for the same seed, about as compressible as a database's pages. */
export function sampleContent(sizeBytes: number, seed = 1): Buffer {
  const bytes = Buffer.alloc(sizeBytes);
  let state = seed | 1;
  for (let at = 0; at < sizeBytes; at += 1) {
    // Every fourth run of 64 bytes is noise; the others repeat what came 200 bytes before.
    if (at < 200 || (at & 0xc0) === 0) {
      state = Math.imul(state ^ (state >>> 15), 0x2c1b3c6d);
      state = (state + 0x9e3779b9) | 0;
      bytes[at] = state >>> 24;
    } else {
      bytes[at] = bytes[at - 200] ?? 0;
    }
  }
  return bytes;
}

/**
 * `bytes` in chunks whose memory is overwritten as soon as the next one is asked for: who keeps a
 * chunk longer than it may gets garbage.
 */
export async function* inChunks(bytes: Uint8Array, chunkBytes: number): ByteStream {
  const memory = Buffer.alloc(Math.min(chunkBytes, bytes.length));
  for (let at = 0; at < bytes.length; at += chunkBytes) {
    const chunk = bytes.subarray(at, at + chunkBytes);
    memory.set(chunk);
    yield memory.subarray(0, chunk.length);
    memory.fill(0xee);
  }
}
