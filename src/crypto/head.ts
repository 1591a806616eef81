import type { ByteStream } from "../io/bytes.ts";

/**
 * Reads the first bytes of `stream`, at most `sizeBytes`, and passes on what `read` makes of them
 * and of the whole stream. `stream` is ended with it.
 */
export async function* withHead(
  stream: ByteStream,
  sizeBytes: number,
  read: (head: Buffer, whole: ByteStream) => ByteStream,
): ByteStream {
  const iterator = stream[Symbol.asyncIterator]();
  const chunks: Uint8Array[] = [];
  let headBytes = 0;
  let isEnded = false;
  const advance = async (): Promise<Uint8Array | undefined> => {
    const next = isEnded ? undefined : await iterator.next();
    isEnded = next === undefined || next.done === true;
    return next === undefined || next.done === true ? undefined : next.value;
  };
  async function* whole(): ByteStream {
    for (let chunk = chunks.shift(); chunk !== undefined; chunk = chunks.shift()) yield chunk;
    for (let chunk = await advance(); chunk !== undefined; chunk = await advance()) yield chunk;
  }
  try {
    while (headBytes < sizeBytes) {
      // The next chunk may stand where the last one does.
      const last = chunks.pop();
      if (last !== undefined) chunks.push(Buffer.from(last));
      const chunk = await advance();
      if (chunk === undefined) break;
      headBytes += chunk.length;
      chunks.push(chunk);
    }
    yield* read(Buffer.concat(chunks, Math.min(headBytes, sizeBytes)), whole());
  } finally {
    if (!isEnded) await iterator.return?.();
  }
}
