import { CHUNK_BYTES, type ByteStream } from "../io/bytes.ts";
import type { Hasher } from "../io/hash.ts";
import { BLOCK_BYTES } from "../tar/header.ts";
import { formatTarHeader, TAR_END_BYTES, tarPaddingBytes } from "../tar/write.ts";
import type { CorruptBlocks } from "../layout/files-metadata.ts";
import type { DocumentsSpool } from "./documents-spool.ts";
import type { StreamedPart } from "./part-upload.ts";
import type { WalkedDirectory, WalkedFile, WalkedLink } from "./walk.ts";

/** A file that comes as a stream. */
export interface StreamedFile extends WalkedFile {
  /** Of `sizeBytes`; has to be read to its end before the next entry is asked for. */
  readonly content: () => ByteStream;
  /** Only where the content is an increment: size of the file that it makes of the base's. */
  readonly fullBytes?: number | undefined;
  readonly corruptBlocks?: CorruptBlocks | undefined;
}

export type StreamedEntry = StreamedFile | WalkedDirectory | WalkedLink;

export interface EntryPackerOptions {
  /** Name of the part in the documents: "part_001.tar.zst". */
  readonly part: string;
  readonly hasher: Hasher;
  readonly documents: DocumentsSpool;
  /** The part ends with the entry by which its content exceeds this. */
  readonly thresholdBytes: number;
  readonly onContent: (sizeBytes: number) => void;
  /** Before so much of the tar is given away; waits as long as that is limited to. */
  readonly onReceived: (sizeBytes: number) => Promise<void>;
  readonly signal: AbortSignal;
}

/** Packs entries that come one after the other into one tar until it holds enough. */
export class EntryPacker implements StreamedPart {
  readonly #options: EntryPackerOptions;
  readonly #chunk = Buffer.allocUnsafeSlow(CHUNK_BYTES);
  readonly #headerBlock = Buffer.allocUnsafeSlow(BLOCK_BYTES);
  readonly #first: StreamedEntry;
  readonly #entries: AsyncIterator<StreamedEntry>;
  #filled = 0;
  #flushedBytes = 0;
  #contentBytes = 0;

  /** Takes from `entries` what it packs behind `first`. */
  constructor(
    first: StreamedEntry,
    entries: AsyncIterator<StreamedEntry>,
    options: EntryPackerOptions,
  ) {
    this.#first = first;
    this.#entries = entries;
    this.#options = options;
  }

  get plainBytes(): number {
    return this.#flushedBytes + this.#filled;
  }

  async *pack(): ByteStream {
    const { thresholdBytes } = this.#options;
    for (let next = this.#first; ;) {
      yield* this.#append(next);
      if (this.#contentBytes > thresholdBytes) break;
      const step = await this.#entries.next();
      if (step.done === true) break;
      next = step.value;
    }
    yield* this.#write(Buffer.alloc(TAR_END_BYTES));
    yield await this.#flush();
  }

  async *#append(entry: StreamedEntry): ByteStream {
    const modifiedAtSeconds = Number(entry.mtimeNs / 1_000_000_000n);
    const member =
      entry.kind === "link"
        ? { ...entry, kind: "symlink" as const, linkName: entry.target, sizeBytes: 0 }
        : { ...entry, sizeBytes: entry.kind === "file" ? entry.sizeBytes : 0 };
    yield* this.#write(formatTarHeader({ ...member, modifiedAtSeconds }, this.#headerBlock));
    const { documents, part } = this.#options;
    if (entry.kind === "file") yield* this.#appendContent(entry);
    else documents.addOther(entry, part);
  }

  async *#appendContent(entry: StreamedFile): ByteStream {
    const { documents, part, hasher, onContent } = this.#options;
    const offsetBytes = this.plainBytes;
    let sizeBytes = 0;
    for await (const bytes of entry.content()) {
      hasher.update(bytes);
      sizeBytes += bytes.length;
      yield* this.#write(bytes);
      onContent(bytes.length);
    }
    if (sizeBytes !== entry.sizeBytes) {
      throw new Error(`${entry.name} has ${sizeBytes} bytes, not ${entry.sizeBytes}`);
    }
    const { fullBytes, corruptBlocks } = entry;
    const stored = { sizeBytes, hash: hasher.digest(), part, offsetBytes, fullBytes };
    documents.addFile(entry, stored, corruptBlocks);
    this.#contentBytes += sizeBytes;
    yield* this.#write(Buffer.alloc(tarPaddingBytes(sizeBytes)));
  }

  async *#write(bytes: Uint8Array): ByteStream {
    for (let at = 0; at < bytes.length;) {
      if (this.#filled === CHUNK_BYTES) yield await this.#flush();
      const piece = bytes.subarray(at, at + CHUNK_BYTES - this.#filled);
      this.#chunk.set(piece, this.#filled);
      this.#filled += piece.length;
      at += piece.length;
    }
  }

  async #flush(): Promise<Uint8Array> {
    const { signal, onReceived } = this.#options;
    signal.throwIfAborted();
    await onReceived(this.#filled);
    const bytes = this.#chunk.subarray(0, this.#filled);
    this.#flushedBytes += this.#filled;
    this.#filled = 0;
    return bytes;
  }
}
