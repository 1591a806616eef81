import { createHash } from "node:crypto";
import type { ByteSource, ByteStream } from "../../src/io/bytes.ts";

/** A prime, so that no part of any round size begins with the bytes that another begins with. */
const PERIOD_BYTES = 1_048_573;

/** Made from a fixed seed by a multiplicative generator. */
function makePeriod(): Buffer {
  const bytes = Buffer.alloc(PERIOD_BYTES);
  for (let index = 0, state = 1; index < bytes.length; index++) {
    state = (state * 48_271) % 2_147_483_647;
    bytes[index] = state >>> 8;
  }
  return bytes;
}

const PERIOD = makePeriod();

/** Bytes that look random and depend on `seed` and position only. */
export function fillPattern(target: Buffer, position: number, seed = 1): void {
  for (let offset = 0; offset < target.length;) {
    const from = (position + offset + seed * 7919) % PERIOD_BYTES;
    offset += PERIOD.copy(target, offset, from);
  }
}

export function patternBytes(sizeBytes: number, seed = 1): Buffer {
  const bytes = Buffer.alloc(sizeBytes);
  fillPattern(bytes, 0, seed);
  return bytes;
}

/** Chunk lengths that fit no buffer size of anybody. */
const CHUNK_LENGTHS = [1, 70_001, 3, 1_048_577, 333_333];

/**
 * A body whose length is not told, in chunks of odd lengths. It reuses the memory of each chunk for
 * the next, as producers may: a store that keeps one without copying stores garbage.
 */
export function patternSource(sizeBytes: number, seed = 1): ByteSource {
  return {
    isReopenable: true,
    async *open(): ByteStream {
      const memory = Buffer.alloc(Math.max(...CHUNK_LENGTHS));
      for (let position = 0, index = 0; position < sizeBytes; index++) {
        const length = CHUNK_LENGTHS[index % CHUNK_LENGTHS.length] ?? 1;
        const chunk = memory.subarray(0, Math.min(length, sizeBytes - position));
        fillPattern(chunk, position, seed);
        position += chunk.length;
        yield chunk;
        memory.fill(0xee);
      }
    },
  };
}

/** A body of pieces, of which each but the first comes when `isDue` has resolved; opened once. */
export function slowSource(
  piecesBytes: readonly number[],
  isDue: () => Promise<unknown>,
): ByteSource {
  return {
    isReopenable: false,
    async *open(): ByteStream {
      for (const [index, sizeBytes] of piecesBytes.entries()) {
        if (index > 0) await isDue();
        yield patternBytes(sizeBytes, index);
      }
    },
  };
}

/** A body that fails with `error` after `sizeBytes`, and tells whether it was closed. */
export function failingSource(sizeBytes: number, error: Error): ByteSource {
  return {
    isReopenable: false,
    async *open(): ByteStream {
      yield* patternSource(sizeBytes).open();
      throw error;
    },
  };
}

/** A body that gives `sizeBytes`, calls `onStalled`, and then nothing ever again. */
export function stallingSource(sizeBytes: number, onStalled: () => void): ByteSource {
  return {
    isReopenable: false,
    async *open(): ByteStream {
      yield* patternSource(sizeBytes).open();
      onStalled();
      await new Promise<never>(() => {});
    },
  };
}

export async function sha256(stream: ByteStream): Promise<string> {
  const hash = createHash("sha256");
  for await (const chunk of stream) hash.update(chunk);
  return hash.digest("hex");
}
