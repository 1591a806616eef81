import { abortable } from "../io/abort.ts";
import { ByteCursor } from "../io/byte-cursor.ts";
import type { ByteStream } from "../io/bytes.ts";

/** A piece of content that several jobs may work on; `release` gives its memory back. */
export interface Piece {
  readonly bytes: Uint8Array;
  release(): void;
}

/**
 * Cuts `input` into pieces of `pieceBytes`, the last one shorter, never empty. Their memory is used
 * again once it is released, so there is as much of it as pieces are held at a time.
 */
export async function* pieces(
  input: ByteStream,
  pieceBytes: number,
  { signal }: { readonly signal: AbortSignal },
): AsyncGenerator<Piece, void, undefined> {
  const free: Buffer[] = [];
  const cursor = new ByteCursor(abortable(input, signal), "content");
  try {
    while (await cursor.hasMore()) {
      const buffer = free.pop() ?? Buffer.allocUnsafeSlow(pieceBytes);
      const sizeBytes = await cursor.readInto(buffer);
      yield { bytes: buffer.subarray(0, sizeBytes), release: () => void free.push(buffer) };
    }
  } finally {
    await cursor.close();
  }
}
