import { untilAborted } from "../io/abort.ts";
import type { ByteStream } from "../io/bytes.ts";
import type { SftpSession } from "./sftp-session.ts";

/** Sent or asked for ahead of the answers, for one object: what OpenSSH lets a channel hold. */
export const AHEAD_BYTES = 2 * 1024 * 1024;

/**
 * The bytes `[start, end)` of an open file, in order. Gives fewer only if the file ends earlier.
 */
export async function* readStream(
  session: SftpSession,
  handle: Buffer,
  range: { readonly start: number; readonly end: number },
  { signal }: { readonly signal: AbortSignal },
): ByteStream {
  const { pieceBytes } = session.connection;
  const wantedBytes = range.end - range.start;
  const count = Math.min(
    Math.max(1, Math.floor(AHEAD_BYTES / pieceBytes)),
    Math.ceil(wantedBytes / pieceBytes),
  );
  const buffers = Array.from({ length: count }, () =>
    Buffer.allocUnsafeSlow(Math.min(pieceBytes, wantedBytes)),
  );
  const queue: Promise<Buffer>[] = [];
  let asked = range.start;
  const ask = (buffer: Buffer): void => {
    if (asked >= range.end) return;
    const target = buffer.subarray(0, Math.min(buffer.length, range.end - asked));
    const reading = fill(session, handle, target, asked);
    // Awaited in order: the failure of a later one must not be an unhandled rejection.
    reading.catch(() => {});
    queue.push(reading);
    asked += target.length;
  };
  for (const buffer of buffers) ask(buffer);
  for (let index = 0; ; index++) {
    const reading = queue.shift();
    if (reading === undefined) return;
    const bytes = await untilAborted(reading, signal);
    const isShort =
      bytes.length < Math.min(pieceBytes, range.end - range.start - index * pieceBytes);
    if (bytes.length > 0) yield bytes;
    if (isShort) return;
    const buffer = buffers[index % count];
    if (buffer !== undefined) ask(buffer);
  }
}

/** A server may give less than was asked for before the file's end. */
async function fill(
  session: SftpSession,
  handle: Buffer,
  target: Buffer,
  position: number,
): Promise<Buffer> {
  let filledBytes = 0;
  while (filledBytes < target.length) {
    const rest = target.subarray(filledBytes);
    const readBytes = await session.read(handle, rest, position + filledBytes);
    if (readBytes === 0) break;
    filledBytes += readBytes;
  }
  return target.subarray(0, filledBytes);
}
