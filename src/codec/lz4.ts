import type { ByteStream } from "../io/bytes.ts";
import { free, freed } from "../io/freed.ts";
import { orderedJobs } from "../io/ordered.ts";
import { Xxh32 } from "../io/xxh32.ts";
import type { CompressOptions } from "./codec.ts";
import { type Lz4Addon, loadLz4Addon } from "./lz4-addon.ts";
import { END_MARK, STORED_FLAG, formatFrameHeader } from "./lz4-frame.ts";
import { type Piece, pieces } from "./piece.ts";

/**
 * The header allows 4 MiB, but lz4-napi is three times slower on those, which it takes fresh memory
 * for each time. They would be 0.5 % smaller.
 */
const BLOCK_BYTES = 512 * 1024;
const WORD_BYTES = 4;

export { decompress } from "./lz4-reader.ts";

/** Writes one frame for each object, as WAL-G does: its readers need no more. It has no levels. */
export async function* compress(input: ByteStream, { jobs, signal }: CompressOptions): ByteStream {
  const addon = await loadLz4Addon();
  const contentHash = new Xxh32();
  yield formatFrameHeader();

  const blocks = pieces(input, BLOCK_BYTES, { signal });
  const compressPiece = async (piece: Piece): Promise<Uint8Array> => {
    const compressing = compressBlock(addon, piece.bytes);
    // While the job runs. Jobs begin in the order of the content, and so come the hash's bytes.
    contentHash.update(piece.bytes);
    const block = await compressing;
    piece.release();
    return block;
  };
  yield* freed(orderedJobs(blocks, jobs, compressPiece, { signal }));

  const end = Buffer.alloc(2 * WORD_BYTES);
  end.writeUInt32LE(END_MARK, 0);
  end.writeUInt32LE(contentHash.digest(), WORD_BYTES);
  yield end;
}

/** The length word and the block; the content as it is where compression gains nothing. */
async function compressBlock(addon: Lz4Addon, content: Uint8Array): Promise<Uint8Array> {
  const prefixed = await addon.compress(content);
  const compressedBytes = prefixed.length - WORD_BYTES;
  if (compressedBytes < content.length) {
    prefixed.writeUInt32LE(compressedBytes, 0);
    return prefixed;
  }
  free(prefixed);
  const stored = Buffer.allocUnsafe(WORD_BYTES + content.length);
  stored.writeUInt32LE((content.length | STORED_FLAG) >>> 0, 0);
  stored.set(content, WORD_BYTES);
  return stored;
}
