import { readAll } from "../../src/io/bytes.ts";
import { readTar, type ReadTarOptions, type TarEntry } from "../../src/tar/read.ts";

/** Archives built by hand, also wrong ones: what is given overrides what would be right. */

const BLOCK_BYTES = 512;

export interface HandMadeEntry {
  readonly name: string;
  readonly content?: string | Uint8Array;
  readonly typeflag?: string;
  readonly linkName?: string;
  readonly mode?: number;
  /** Raw fields of the header. */
  readonly size?: string | Uint8Array;
  readonly time?: string | Uint8Array;
  readonly magic?: string;
  readonly prefix?: string;
  /** Added to the right checksum. */
  readonly checksumOff?: number;
  readonly padding?: number;
}

/** Header, content and padding of one entry. */
export function tarEntry(entry: HandMadeEntry): Buffer {
  const content = Buffer.from(entry.content ?? "");
  const header = Buffer.alloc(BLOCK_BYTES);
  put(header, 0, entry.name);
  put(header, 100, octal(entry.mode ?? 0o600, 8));
  put(header, 108, octal(0, 8));
  put(header, 116, octal(0, 8));
  put(header, 124, entry.size ?? octal(content.length, 12));
  put(header, 136, entry.time ?? octal(1_700_000_000, 12));
  header.fill(" ", 148, 156);
  put(header, 156, entry.typeflag ?? "0");
  put(header, 157, entry.linkName ?? "");
  put(header, 257, entry.magic ?? "ustar\u000000");
  put(header, 345, entry.prefix ?? "");
  const sum = header.reduce((total, byte) => total + byte, 0) + (entry.checksumOff ?? 0);
  put(header, 148, `${sum.toString(8).padStart(6, "0")}\0 `);
  const padding = Buffer.alloc(
    (BLOCK_BYTES - (content.length % BLOCK_BYTES)) % BLOCK_BYTES,
    entry.padding ?? 0,
  );
  return Buffer.concat([header, content, padding]);
}

/** The two zero blocks at the end. */
export function tarEnd(): Buffer {
  return Buffer.alloc(2 * BLOCK_BYTES);
}

/** A whole archive of these entries. */
export function tarArchive(...entries: readonly HandMadeEntry[]): Buffer {
  return Buffer.concat([...entries.map(tarEntry), tarEnd()]);
}

/** An extended header of these records, which goes before the entry that it is about. */
export function paxEntry(records: Readonly<Record<string, string>>, typeflag = "x"): HandMadeEntry {
  const lines = Object.entries(records).map(([key, value]) => paxLine(key, value));
  return { name: "PaxHeaders/0", typeflag, content: lines.join("") };
}

function paxLine(key: string, value: string): string {
  const rest = ` ${key}=${value}\n`;
  const restBytes = Buffer.byteLength(rest);
  let length = restBytes;
  while (String(length).length + restBytes !== length) length += 1;
  return `${length}${rest}`;
}

function octal(value: number, width: number): string {
  return `${value.toString(8).padStart(width - 1, "0")}\0`;
}

function put(header: Buffer, at: number, value: string | Uint8Array): void {
  header.set(Buffer.from(value), at);
}

/** An entry with its content as text. */
export interface ReadEntry extends Omit<TarEntry, "content"> {
  readonly content: string;
}

/** Hands out `bytes` in chunks of this size, in one buffer that is used again and again. */
export async function* inChunks(bytes: Uint8Array, chunkBytes: number): AsyncGenerator<Uint8Array> {
  const reused = Buffer.alloc(chunkBytes);
  for (let at = 0; at < bytes.length; at += chunkBytes) {
    const chunk = bytes.subarray(at, at + chunkBytes);
    reused.set(chunk);
    yield reused.subarray(0, chunk.length);
    reused.fill(0xaa);
  }
}

/** All entries of an archive that arrives in chunks of this size. */
export async function readWhole(
  archive: Uint8Array,
  options: ReadTarOptions & { readonly chunkBytes?: number } = {},
): Promise<ReadEntry[]> {
  const { chunkBytes = 1000, ...readOptions } = options;
  const entries: ReadEntry[] = [];
  for await (const entry of readTar(inChunks(archive, chunkBytes), readOptions)) {
    entries.push({ ...entry, content: (await readAll(entry.content())).toString() });
  }
  return entries;
}

export async function namesOf(archive: Uint8Array, options?: ReadTarOptions): Promise<string[]> {
  return (await readWhole(archive, options)).map(({ name }) => name);
}
