import { CHUNK_BYTES, type ByteStream } from "../io/bytes.ts";
import type { Hasher } from "../io/hash.ts";
import { BLOCK_BYTES } from "../tar/header.ts";
import { formatTarHeader, TAR_END_BYTES, tarPaddingBytes } from "../tar/write.ts";
import type { DocumentsSpool } from "./documents-spool.ts";
import type { StreamedPart } from "./part-upload.ts";
import type { RemoteEntry, RemoteFile } from "./remote-entries.ts";

export interface RemotePackerOptions {
  /** Name of the part in the documents: "part_001.tar.zst". */
  readonly part: string;
  readonly hasher: Hasher;
  readonly documents: DocumentsSpool;
  /** The part ends with the entry by which its content exceeds this. */
  readonly thresholdBytes: number;
  readonly onContent: (sizeBytes: number) => void;
  /** Waits as long as receiving so much is limited to. */
  readonly onReceived: (sizeBytes: number) => Promise<void>;
  readonly signal: AbortSignal;
}

/** Packs what a server sends into one tar until it holds enough. */
export class RemotePacker implements StreamedPart {
  readonly #options: RemotePackerOptions;
  readonly #chunk = Buffer.allocUnsafeSlow(CHUNK_BYTES);
  readonly #headerBlock = Buffer.allocUnsafeSlow(BLOCK_BYTES);
  readonly #first: RemoteEntry;
  readonly #entries: AsyncIterator<RemoteEntry>;
  #filled = 0;
  #flushedBytes = 0;
  #contentBytes = 0;

  /** Takes from `entries` what it packs behind `first`. */
  constructor(
    first: RemoteEntry,
    entries: AsyncIterator<RemoteEntry>,
    options: RemotePackerOptions,
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

  async *#append(entry: RemoteEntry): ByteStream {
    const modifiedAtSeconds = Number(entry.mtimeNs / 1_000_000_000n);
    const sizeBytes = entry.kind === "file" ? entry.sizeBytes : 0;
    yield* this.#write(
      formatTarHeader({ ...entry, sizeBytes, modifiedAtSeconds }, this.#headerBlock),
    );
    const { documents, part } = this.#options;
    if (entry.kind === "file") yield* this.#appendContent(entry);
    else documents.addOther(entry, part);
  }

  async *#appendContent(entry: RemoteFile): ByteStream {
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
    const { fullBytes } = entry;
    documents.addFile(entry, { sizeBytes, hash: hasher.digest(), part, offsetBytes, fullBytes });
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
