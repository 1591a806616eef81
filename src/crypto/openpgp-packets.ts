import { FormatError } from "../errors.ts";
import type { ByteCursor } from "../io/byte-cursor.ts";
import { ByteCursor as Cursor } from "../io/byte-cursor.ts";
import type { ByteStream } from "../io/bytes.ts";

/** Numbers of the packets that we know. @source RFC 4880, 4.3 */
export const TAG = {
  sessionKey: 1,
  passwordSessionKey: 3,
  compressed: 8,
  literal: 11,
  integrityProtected: 18,
  modificationDetection: 19,
} as const;

/** A packet that is not cut into parts is at most so long where it must be held in memory. */
const SMALL_PACKET_BYTES = 64 * 1024;
/** Packets of unknown length are written in parts of 2^16 bytes. */
const PART_BITS = 16;
const PART_BYTES = 2 ** PART_BITS;

/** How long the body of a packet, or a part of it, is. */
interface Length {
  readonly bytes: number;
  /** More parts follow. */
  readonly isPartial: boolean;
}

export interface PacketHeader {
  readonly tag: number;
  readonly length: Length;
  /** As it stands in the message. */
  readonly bytes: Buffer;
}

/** The next packet's header; undefined at the end. Throws FormatError and TruncatedError. */
export async function readPacketHeader(cursor: ByteCursor): Promise<PacketHeader | undefined> {
  if (!(await cursor.hasMore())) return undefined;
  const [first = 0] = await cursor.readExactly(1);
  if ((first & 0x80) === 0) {
    throw new FormatError(`there is no OpenPGP packet at byte ${cursor.position - 1}`);
  }
  const isNew = (first & 0x40) !== 0;
  const tag = isNew ? first & 0x3f : (first >> 2) & 0x0f;
  const { length, bytes } = isNew
    ? await readLength(cursor)
    : await readOldLength(cursor, first & 0x03);
  return { tag, length, bytes: Buffer.concat([Buffer.of(first), bytes]) };
}

function whole(bytes: number): Length {
  return { bytes, isPartial: false };
}

async function readLength(cursor: ByteCursor): Promise<{ length: Length; bytes: Buffer }> {
  const one = await cursor.readExactly(1);
  const [first = 0] = one;
  if (first < 192) return { length: whole(first), bytes: one };
  if (first < 224) {
    const two = await cursor.readExactly(1);
    const bytes = Buffer.concat([one, two]);
    return { length: whole((first - 192) * 256 + (two[0] ?? 0) + 192), bytes };
  }
  if (first < 255) return { length: { bytes: 2 ** (first & 0x1f), isPartial: true }, bytes: one };
  const four = await cursor.readExactly(4);
  return { length: whole(four.readUInt32BE()), bytes: Buffer.concat([one, four]) };
}

async function readOldLength(
  cursor: ByteCursor,
  lengthType: number,
): Promise<{ length: Length; bytes: Buffer }> {
  // Indeterminate: up to the end of what the packet is in.
  if (lengthType === 3) {
    const bytes = Number.POSITIVE_INFINITY;
    return { length: { bytes, isPartial: false }, bytes: Buffer.alloc(0) };
  }
  const bytes = await cursor.readExactly(2 ** lengthType);
  return { length: { bytes: bytes.readUIntBE(0, bytes.length), isPartial: false }, bytes };
}

/** The body of a packet that is held in memory. Throws FormatError when it is too long for that. */
export async function readSmallBody(
  cursor: ByteCursor,
  { tag, length }: PacketHeader,
): Promise<Buffer> {
  if (length.isPartial || length.bytes > SMALL_PACKET_BYTES) {
    throw new FormatError(`OpenPGP packet ${tag} is longer than any such packet`);
  }
  return await cursor.readExactly(length.bytes);
}

/** The body of a packet, its parts one after the other. Throws TruncatedError. */
export async function* readBody(cursor: ByteCursor, { length }: PacketHeader): ByteStream {
  for (let part = length; ; { length: part } = await readLength(cursor)) {
    for (let left = part.bytes; left > 0;) {
      if (!(await cursor.hasMore())) {
        if (left === Number.POSITIVE_INFINITY) return;
        await cursor.skip(left);
      }
      const chunk = cursor.takeSome(left);
      left -= chunk.length;
      yield chunk;
    }
    if (!part.isPartial) return;
  }
}

/** A packet whose length is found out while it is written. */
export async function* writePacket(tag: number, body: ByteStream): ByteStream {
  const cursor = new Cursor(body, "content");
  // The tag's byte and a length of at most five bytes stand before the part.
  const room = 6;
  const buffer = Buffer.allocUnsafeSlow(room + PART_BYTES);
  try {
    for (let isFirst = true; ; isFirst = false) {
      const size = await cursor.readInto(buffer.subarray(room));
      const prefix = [...(isFirst ? [0xc0 | tag] : []), ...lengthBytes(size)];
      const start = room - prefix.length;
      buffer.set(prefix, start);
      yield buffer.subarray(start, room + size);
      if (size < PART_BYTES) return;
    }
  } finally {
    await cursor.close();
  }
}

function lengthBytes(size: number): readonly number[] {
  if (size === PART_BYTES) return [0xe0 | PART_BITS];
  if (size < 192) return [size];
  if (size < 8384) return [192 + ((size - 192) >> 8), (size - 192) & 0xff];
  return [0xff, 0, 0, size >> 8, size & 0xff];
}
