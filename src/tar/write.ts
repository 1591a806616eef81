import { FormatError } from "../errors.ts";
import { BLOCK_BYTES, headerChecksum } from "./header.ts";

/** What a header says of an entry that we write. */
export interface TarMember {
  readonly kind: "file" | "directory" | "symlink";
  /** Written as it is: "/base/5/1259"; no "/" at the end of a directory's name. */
  readonly name: string;
  /** Target of a symlink, else absent. */
  readonly linkName?: string;
  /** Permission bits with setuid, setgid and sticky; what is above them is cut off. */
  readonly mode: number;
  /** Length of the content that follows; 0 for all but files. */
  readonly sizeBytes: number;
  /** Whole seconds since 1970; negative ones need an extended header. */
  readonly modifiedAtSeconds: number;
  readonly uid: number;
  readonly gid: number;
}

/** Two blocks of zeros. */
export const TAR_END_BYTES = 2 * BLOCK_BYTES;

const TYPE_FLAGS = { file: "0", symlink: "2", directory: "5", pax: "x" } as const;
const NAME_BYTES = 100;
const PREFIX_BYTES = 155;
const MODE_MASK = 0o7777;
const MAX_OCTAL_7 = 0o7777777;
const MAX_OCTAL_11 = 0o77777777777;
const PAX_MODE = 0o644;
const DIGIT_0 = 0x30;
const IS_ASCII = /^\p{ASCII}*$/u;

/** Zero bytes between content of this size and the next header: 0 to 511. */
export function tarPaddingBytes(sizeBytes: number): number {
  return (BLOCK_BYTES - (sizeBytes % BLOCK_BYTES)) % BLOCK_BYTES;
}

/**
 * Header of an entry: one block in the ustar format; where a value does not fit (long names, other
 * characters than ASCII, sizes from 8 GiB, large ids, times before 1970), a PAX header before it.
 * Throws FormatError for a name that is empty or holds a NUL. `block` is memory for one block,
 * which may be the result.
 *
 * @source POSIX.1-2024, pax, "ustar Interchange Format" and "pax Extended Header"
 */
export function formatTarHeader(
  member: TarMember,
  block: Buffer = Buffer.allocUnsafeSlow(BLOCK_BYTES),
): Uint8Array {
  const place = splitName(member.name);
  const linkName = member.linkName ?? "";
  const records = paxRecords(member, place === undefined, fits(linkName, NAME_BYTES));
  const header = {
    typeflag: TYPE_FLAGS[member.kind],
    place: place ?? { prefix: "", name: cut(member.name) },
    linkName: cut(linkName),
    mode: member.mode & MODE_MASK,
    uid: within(member.uid, MAX_OCTAL_7),
    gid: within(member.gid, MAX_OCTAL_7),
    sizeBytes: within(member.sizeBytes, MAX_OCTAL_11),
    seconds: within(member.modifiedAtSeconds, MAX_OCTAL_11),
  };
  writeBlock(header, block);
  return records === "" ? block : Buffer.concat([formatPaxHeader(member, records), block]);
}

/**
 * A whole archive of members whose contents are in memory; each content must have its member's
 * size.
 */
export function packTar(
  members: readonly { readonly member: TarMember; readonly content: Uint8Array }[],
): Buffer {
  const pieces: Uint8Array[] = [];
  for (const { member, content } of members) {
    pieces.push(formatTarHeader(member), content, Buffer.alloc(tarPaddingBytes(content.length)));
  }
  return Buffer.concat([...pieces, Buffer.alloc(TAR_END_BYTES)]);
}

interface Header {
  readonly typeflag: string;
  readonly place: NamePlace;
  readonly linkName: string;
  readonly mode: number;
  readonly uid: number;
  readonly gid: number;
  readonly sizeBytes: number;
  readonly seconds: number;
}

interface NamePlace {
  readonly prefix: string;
  readonly name: string;
}

function writeBlock(header: Header, block: Buffer): void {
  block.fill(0);
  block.write(header.place.name, 0, NAME_BYTES, "latin1");
  writeOctal(block, header.mode, 100, 8);
  writeOctal(block, header.uid, 108, 8);
  writeOctal(block, header.gid, 116, 8);
  writeOctal(block, header.sizeBytes, 124, 12);
  writeOctal(block, header.seconds, 136, 12);
  block.write(header.typeflag, 156, 1, "latin1");
  block.write(header.linkName, 157, NAME_BYTES, "latin1");
  block.write("ustar\u000000", 257, 8, "latin1");
  writeOctal(block, 0, 329, 8);
  writeOctal(block, 0, 337, 8);
  block.write(header.place.prefix, 345, PREFIX_BYTES, "latin1");
  writeOctal(block, headerChecksum(block), 148, 7);
  block.write(" ", 155, 1, "latin1");
}

/**
 * Digits that fill the field but for the NUL at its end; made without strings, for it is frequent.
 */
function writeOctal(block: Buffer, value: number, at: number, fieldBytes: number): void {
  let rest = value;
  for (let index = at + fieldBytes - 2; index >= at; index -= 1) {
    block[index] = DIGIT_0 + (rest % 8);
    rest = Math.trunc(rest / 8);
  }
}

function formatPaxHeader(member: TarMember, records: string): Buffer {
  const content = Buffer.from(records);
  const base = member.name.slice(member.name.lastIndexOf("/") + 1);
  const header = {
    typeflag: TYPE_FLAGS.pax,
    place: { prefix: "", name: cut(`PaxHeaders.0/${base}`) },
    linkName: "",
    mode: PAX_MODE,
    uid: 0,
    gid: 0,
    sizeBytes: content.length,
    seconds: 0,
  };
  const block = Buffer.allocUnsafeSlow(BLOCK_BYTES);
  writeBlock(header, block);
  return Buffer.concat([block, content, Buffer.alloc(tarPaddingBytes(content.length))]);
}

function paxRecords(member: TarMember, isNameLong: boolean, isLinkShort: boolean): string {
  let records = "";
  if (member.gid > MAX_OCTAL_7) records += paxRecord("gid", String(member.gid));
  if (!isLinkShort) records += paxRecord("linkpath", member.linkName ?? "");
  const seconds = member.modifiedAtSeconds;
  if (seconds < 0 || seconds > MAX_OCTAL_11) records += paxRecord("mtime", String(seconds));
  if (isNameLong) records += paxRecord("path", member.name);
  if (member.sizeBytes > MAX_OCTAL_11) records += paxRecord("size", String(member.sizeBytes));
  if (member.uid > MAX_OCTAL_7) records += paxRecord("uid", String(member.uid));
  return records;
}

/** The length in front counts its own digits. */
function paxRecord(key: string, value: string): string {
  const rest = ` ${key}=${value}\n`;
  const restBytes = Buffer.byteLength(rest);
  let length = restBytes + String(restBytes).length;
  if (String(length).length > String(restBytes).length) length += 1;
  return `${length}${rest}`;
}

/** Where a ustar header holds this name; undefined if it can't. */
function splitName(name: string): NamePlace | undefined {
  if (name === "" || name.includes("\0")) {
    throw new FormatError(`no name for a tar entry: ${JSON.stringify(name)}`);
  }
  if (!IS_ASCII.test(name)) return undefined;
  if (name.length <= NAME_BYTES) return { prefix: "", name };
  const slash = name.lastIndexOf("/", PREFIX_BYTES);
  const rest = name.slice(slash + 1);
  if (slash <= 0 || rest === "" || rest.length > NAME_BYTES) return undefined;
  return { prefix: name.slice(0, slash), name: rest };
}

function fits(text: string, sizeBytes: number): boolean {
  return text.length <= sizeBytes && IS_ASCII.test(text);
}

/** For readers that know no PAX: as much as can be said without it. */
function cut(name: string): string {
  return name.replace(/\P{ASCII}/gu, "_").slice(0, NAME_BYTES);
}

function within(value: number, max: number): number {
  return value < 0 || value > max ? 0 : value;
}
