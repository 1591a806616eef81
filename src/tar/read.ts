import { FormatError, TruncatedError } from "../errors.ts";
import { ByteCursor } from "../io/byte-cursor.ts";
import type { ByteStream } from "../io/bytes.ts";
import { BLOCK_BYTES, decodeName, isZero, parseHeader, type TarHeader } from "./header.ts";
import { parsePaxRecords, type PaxRecords } from "./pax.ts";

/** Extended headers and long names beyond this are refused: a path has at most 4 kB on Linux. */
const MAX_EXTENDED_BYTES = 1024 * 1024;

/** One member of an archive, with what extended headers say applied. */
export interface TarEntry {
  readonly kind: TarHeader["kind"];
  /** As the archive has it: nothing stripped but the "/" at the end of a directory's name. */
  readonly name: string;
  /** Target of a symlink, name of the linked member of a hard link, else "". */
  readonly linkName: string;
  /** Permission bits with setuid, setgid and sticky; not the file type. */
  readonly mode: number;
  /** 0 for all kinds but "file". */
  readonly sizeBytes: number;
  /** Seconds since 1970; with a fraction where an extended header has one. */
  readonly modifiedAtSeconds: number;
  /** Offset in the archive of this entry's own header, extended headers not counted. */
  readonly headerStart: number;
  /** Offset in the archive of the first byte of the content. */
  readonly contentStart: number;
  /**
   * The content, exactly `sizeBytes` long; once, and only until the next entry is asked for. What
   * is not read by then is skipped.
   */
  readonly content: () => ByteStream;
}

export interface ReadTarOptions {
  /**
   * Whether the archive may stop after any whole member without its end-of-archive blocks (and
   * without the last padding), as parts of WAL-G's remote backups do.
   */
  readonly isTrailerOptional?: boolean;
}

/**
 * Reads ustar, PAX and GNU archives from a stream, in memory for one chunk of it. Everything is
 * checked: header checksums, numbers, zeros between and after the members. Throws FormatError, or
 * TruncatedError if the input ends too early, with the offset. The input is closed in any case.
 */
export async function* readTar(
  input: ByteStream,
  options: ReadTarOptions = {},
): AsyncGenerator<TarEntry, void> {
  const isTrailerOptional = options.isTrailerOptional ?? false;
  const bytes = new ByteCursor(input, "tar archive");
  try {
    for (;;) {
      const entry = await readEntry(bytes, isTrailerOptional);
      if (entry === undefined) break;
      const content = new EntryContent(bytes, entry.sizeBytes);
      yield { ...entry, content: () => content.open() };
      await content.close(isTrailerOptional);
    }
    await requireZerosToEnd(bytes);
  } finally {
    await bytes.close();
  }
}

/** What the headers before an entry say about it; the entry's own header has the rest. */
interface Extension extends PaxRecords {
  readonly start: number;
}

/** Reads headers up to and with the next entry's own; undefined at the end of the archive. */
async function readEntry(
  bytes: ByteCursor,
  isTrailerOptional: boolean,
): Promise<Omit<TarEntry, "content"> | undefined> {
  let extension: Extension | undefined;
  for (;;) {
    const start = bytes.position;
    const block = await readHeaderBlock(bytes, extension === undefined && isTrailerOptional);
    if (block === undefined || isZero(block)) {
      if (extension !== undefined) throw danglingExtension(extension.start);
      if (block !== undefined) await readSecondZeroBlock(bytes, isTrailerOptional);
      return undefined;
    }
    const header = parseHeader(block, start);
    if (!isExtension(header)) return applyExtension(header, extension, bytes.position);
    extension = { start, ...extension, ...(await readExtension(bytes, header, start)) };
  }
}

type ExtensionHeader = TarHeader & {
  readonly kind: "pax" | "pax-global" | "long-name" | "long-link";
};

function isExtension(header: TarHeader): header is ExtensionHeader {
  const { kind } = header;
  return kind === "pax" || kind === "pax-global" || kind === "long-name" || kind === "long-link";
}

async function readExtension(
  bytes: ByteCursor,
  header: ExtensionHeader,
  start: number,
): Promise<PaxRecords> {
  if (header.sizeBytes > MAX_EXTENDED_BYTES) {
    throw new FormatError(
      `tar header at ${start} announces ${header.sizeBytes} bytes of extended header, ` +
        `more than ${MAX_EXTENDED_BYTES}`,
    );
  }
  const text = await bytes.readExactly(header.sizeBytes);
  await readPadding(bytes, header.sizeBytes, false);
  return parseExtension(text, header, start);
}

function parseExtension(text: Uint8Array, header: ExtensionHeader, start: number): PaxRecords {
  if (header.kind === "long-name") return { path: decodeLongName(text, start) };
  if (header.kind === "long-link") return { linkPath: decodeLongName(text, start) };
  const records = parsePaxRecords(text, start);
  if (header.kind === "pax-global" && Object.keys(records).length > 0) {
    throw new FormatError(`tar header at ${start} sets a name, size or time for all members`);
  }
  return records;
}

/** GNU's long names end with one NUL, which the size counts. */
function decodeLongName(text: Uint8Array, start: number): string {
  const end = text.indexOf(0);
  if (end !== -1 && end !== text.length - 1) {
    throw new FormatError(`tar header at ${start} has a long name with a NUL inside`);
  }
  return decodeName(end === -1 ? text : text.subarray(0, end), start);
}

function applyExtension(
  header: TarHeader,
  extension: Extension | undefined,
  contentStart: number,
): Omit<TarEntry, "content"> {
  const name = extension?.path ?? header.name;
  const headerStart = contentStart - BLOCK_BYTES;
  const isDirectory = header.kind === "file" && name.endsWith("/");
  const kind = isDirectory ? "directory" : header.kind;
  const sizeBytes = extension?.sizeBytes ?? header.sizeBytes;
  if (kind !== "file" && sizeBytes !== 0) {
    throw new FormatError(
      `tar header at ${headerStart} gives the ${kind} ${JSON.stringify(name)} ${sizeBytes} bytes`,
    );
  }
  return {
    kind,
    name: kind === "directory" && name.length > 1 ? name.replace(/\/$/, "") : name,
    linkName: extension?.linkPath ?? header.linkName,
    mode: header.mode,
    sizeBytes,
    modifiedAtSeconds: extension?.modifiedAtSeconds ?? header.modifiedAtSeconds,
    headerStart,
    contentStart,
  };
}

function danglingExtension(start: number): FormatError {
  return new FormatError(`tar header at ${start} extends a member that does not follow`);
}

/** Undefined when the input ends here and may. */
async function readHeaderBlock(
  bytes: ByteCursor,
  isEndAllowed: boolean,
): Promise<Uint8Array | undefined> {
  if (!(await bytes.hasMore())) {
    if (isEndAllowed) return undefined;
    throw new TruncatedError(`tar archive ends at ${bytes.position} without its end mark`);
  }
  return await bytes.readExactly(BLOCK_BYTES);
}

async function readSecondZeroBlock(bytes: ByteCursor, isTrailerOptional: boolean): Promise<void> {
  const start = bytes.position;
  const block = await readHeaderBlock(bytes, isTrailerOptional);
  if (block !== undefined && !isZero(block)) {
    throw new FormatError(`tar archive has one zero block before ${start} where two end it`);
  }
}

async function requireZerosToEnd(bytes: ByteCursor): Promise<void> {
  while (await bytes.hasMore()) {
    const start = bytes.position;
    if (!isZero(bytes.takeSome(BLOCK_BYTES))) {
      throw new FormatError(`tar archive has bytes other than zero after its end, near ${start}`);
    }
  }
}

async function readPadding(
  bytes: ByteCursor,
  sizeBytes: number,
  isEndAllowed: boolean,
): Promise<void> {
  const paddingBytes = (BLOCK_BYTES - (sizeBytes % BLOCK_BYTES)) % BLOCK_BYTES;
  if (paddingBytes === 0 || (isEndAllowed && !(await bytes.hasMore()))) return;
  const start = bytes.position;
  if (!isZero(await bytes.readExactly(paddingBytes))) {
    throw new FormatError(`tar archive has bytes other than zero in the padding at ${start}`);
  }
}

/** The content of the entry that the reader stands at; hands out each byte once. */
class EntryContent {
  readonly #bytes: ByteCursor;
  readonly #sizeBytes: number;
  #leftBytes: number;
  #state: "new" | "open" | "closed" = "new";

  constructor(bytes: ByteCursor, sizeBytes: number) {
    this.#bytes = bytes;
    this.#sizeBytes = sizeBytes;
    this.#leftBytes = sizeBytes;
  }

  open(): ByteStream {
    if (this.#state !== "new") throw new Error("content of a tar entry can be read only once");
    this.#state = "open";
    return this.#read();
  }

  async *#read(): AsyncGenerator<Uint8Array, void> {
    while (this.#leftBytes > 0) {
      if (this.#state === "closed") throw new Error("content of a tar entry is read too late");
      yield await this.#next();
    }
  }

  async #next(): Promise<Uint8Array> {
    if (!(await this.#bytes.hasMore())) {
      throw new TruncatedError(
        `tar archive ends at ${this.#bytes.position}, ${this.#leftBytes} bytes before the end of ` +
          "a member's content",
      );
    }
    const chunk = this.#bytes.takeSome(this.#leftBytes);
    this.#leftBytes -= chunk.length;
    return chunk;
  }

  async close(isEndAllowed: boolean): Promise<void> {
    this.#state = "closed";
    while (this.#leftBytes > 0) await this.#next();
    await readPadding(this.#bytes, this.#sizeBytes, isEndAllowed);
  }
}
