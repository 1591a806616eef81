import { NOTE_DIGITS_MAX } from "./crypter.ts";

/**
 * A session key for nobody, in front of the others: every reader passes over keys that it does not
 * have, so that a message can tell something to who can't open it. Its content tells the same, and
 * they are compared.
 */
const NOBODY = Buffer.from("walnut\0\x01", "latin1");
const TAG_BYTE = 0xc1;
const VERSION = 3;
const RSA = 1;
/** Tag, length, version, key id, algorithm, length of the number in bits. */
const HEADER_BYTES = 2 + 1 + NOBODY.length + 1 + 2;
/** Makes the length of the number the same whatever the note is. */
const LEADING_BYTE = 0x80;

/** As it is in recipientKeyIds. */
export const NOBODY_KEY_ID = NOBODY.toString("hex").toUpperCase();

/** The packet; `note` is hex, of even size. */
export function formatNote(note: string): Buffer {
  if (!/^([0-9a-f]{2})+$/.test(note) || note.length > NOTE_DIGITS_MAX) {
    throw new Error(`no note: ${note}`);
  }
  const number = Buffer.concat([Buffer.of(LEADING_BYTE), Buffer.from(note, "hex")]);
  const bits = Buffer.alloc(2);
  bits.writeUInt16BE(number.length * 8);
  const body = Buffer.concat([Buffer.of(VERSION), NOBODY, Buffer.of(RSA), bits, number]);
  return Buffer.concat([Buffer.of(TAG_BYTE, body.length), body]);
}

/** The note that a message begins with; undefined when there is none. */
export function parseNote(head: Uint8Array): string | undefined {
  const bytes = Buffer.from(head);
  const packet = bytes.subarray(0, 2 + (bytes[1] ?? 0));
  if (packet.length <= HEADER_BYTES + 1) return undefined;
  const note = packet.toString("hex", HEADER_BYTES + 1);
  return note.length <= NOTE_DIGITS_MAX && packet.equals(formatNote(note)) ? note : undefined;
}
