/**
 * Byte streams. All of walnut moves bytes as `AsyncIterable<Uint8Array>`, composed from async
 * generators.
 *
 * Ownership: a chunk belongs to the consumer only until it asks for the next one; a producer may
 * reuse the memory then. Whoever keeps a chunk longer copies it.
 */
export type ByteStream = AsyncIterable<Uint8Array>;

/** Chunks that we cut ourselves have this size: smaller ones cost time, larger ones memory. */
export const CHUNK_BYTES = 1024 * 1024;

/** What a stored or read stream may be opened from. */
export interface ByteSource {
  /** Known for files and buffers, absent for streams that are compressed on the way. */
  readonly sizeBytes?: number;
  /**
   * False when `open` can be called only once (a tar that is packed while it is uploaded); then a
   * failed upload can't start over and the store retries its own requests only.
   */
  readonly isReopenable: boolean;
  open(): ByteStream;
}

/** A source over bytes in memory. */
export function bytesSource(bytes: Uint8Array): ByteSource {
  return {
    sizeBytes: bytes.length,
    isReopenable: true,
    open: async function* () {
      if (bytes.length > 0) yield bytes;
    },
  };
}

/** The same source with `change` applied to each of its streams, which must keep their length. */
export function mapSource(
  source: ByteSource,
  change: (stream: ByteStream) => ByteStream,
): ByteSource {
  return {
    ...(source.sizeBytes === undefined ? {} : { sizeBytes: source.sizeBytes }),
    isReopenable: source.isReopenable,
    open: () => change(source.open()),
  };
}

/** Reads all of `stream` into one new buffer. Throws RangeError past `limitBytes`. */
export async function readAll(
  stream: ByteStream,
  limitBytes = Number.POSITIVE_INFINITY,
): Promise<Buffer> {
  return Buffer.concat(await readChunks(stream, limitBytes));
}

/** Copies of all chunks of `stream`. Throws RangeError past `limitBytes`. */
export async function readChunks(stream: ByteStream, limitBytes: number): Promise<Buffer[]> {
  const chunks: Buffer[] = [];
  let sizeBytes = 0;
  for await (const chunk of stream) {
    sizeBytes += chunk.length;
    if (sizeBytes > limitBytes) throw new RangeError(`stream is longer than ${limitBytes} bytes`);
    chunks.push(Buffer.from(chunk));
  }
  return chunks;
}

/** Passes `stream` on and tells `onBytes` the length of each chunk. */
export async function* counted(stream: ByteStream, onBytes: (count: number) => void): ByteStream {
  for await (const chunk of stream) {
    onBytes(chunk.length);
    yield chunk;
  }
}
