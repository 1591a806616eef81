import { NOBODY_KEY_ID } from "./openpgp-note.ts";

const PKESK_TAG = 1;
const KEY_ID_BYTES = 8;
/** A session key for everybody who can open it: gpg's --throw-keyids. */
export const ANY_KEY_ID = "0".repeat(2 * KEY_ID_BYTES);

interface Packet {
  readonly tag: number;
  readonly bodyStart: number;
  /** Beyond the head where the packet is longer. */
  readonly bodyEnd: number;
}

/**
 * The ids of the keys that a message is encrypted for, 16 upper case hex digits each, as far as
 * `head` reaches; empty for what is no such message.
 *
 * @source RFC 4880, 4.2 and 5.1
 */
export function recipientKeyIds(head: Uint8Array): readonly string[] {
  const bytes = Buffer.from(head.buffer, head.byteOffset, head.byteLength);
  const ids: string[] = [];
  for (let at = 0; ;) {
    const packet = readPacket(bytes, at);
    if (packet?.tag !== PKESK_TAG) return ids;
    const idStart = packet.bodyStart + 1;
    if (idStart + KEY_ID_BYTES > bytes.length || bytes[packet.bodyStart] !== 3) return ids;
    const id = bytes.toString("hex", idStart, idStart + KEY_ID_BYTES).toUpperCase();
    if (id !== NOBODY_KEY_ID) ids.push(id);
    at = packet.bodyEnd;
  }
}

/** Only what a session key's packet can be: no partial, no indeterminate lengths. */
function readPacket(bytes: Buffer, at: number): Packet | undefined {
  const first = bytes[at] ?? 0;
  if ((first & 0x80) === 0) return undefined;
  return (first & 0x40) === 0 ? readOldPacket(bytes, at, first) : readNewPacket(bytes, at, first);
}

function readOldPacket(bytes: Buffer, at: number, first: number): Packet | undefined {
  const lengthBytes = [1, 2, 4, 0][first & 0x03] ?? 0;
  const bodyStart = at + 1 + lengthBytes;
  if (lengthBytes === 0 || bodyStart > bytes.length) return undefined;
  const length = bytes.readUIntBE(at + 1, lengthBytes);
  return { tag: (first >> 2) & 0x0f, bodyStart, bodyEnd: bodyStart + length };
}

function readNewPacket(bytes: Buffer, at: number, first: number): Packet | undefined {
  const tag = first & 0x3f;
  const [one = 255, two = 0] = bytes.subarray(at + 1, at + 3);
  if (one < 192) return { tag, bodyStart: at + 2, bodyEnd: at + 2 + one };
  if (one < 224) return { tag, bodyStart: at + 3, bodyEnd: at + 3 + (one - 192) * 256 + two + 192 };
  if (one !== 255 || at + 6 > bytes.length) return undefined;
  return { tag, bodyStart: at + 6, bodyEnd: at + 6 + bytes.readUInt32BE(at + 2) };
}
