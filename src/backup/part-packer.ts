import { setImmediate as turn } from "node:timers/promises";
import { CHUNK_BYTES, type ByteStream } from "../io/bytes.ts";
import type { Hasher } from "../io/hash.ts";
import type { RateLimit } from "../io/rate-limit.ts";
import { BLOCK_BYTES } from "../tar/header.ts";
import { formatTarHeader, TAR_END_BYTES, type TarMember, tarPaddingBytes } from "../tar/write.ts";
import type { DocumentsSpool, StoredFile } from "./documents-spool.ts";
import { type OpenFile, openForReading } from "./file-content.ts";
import {
  type FileJudge,
  type Sight,
  SMALL_BYTES,
  type Unread,
  type Verdict,
} from "./file-judge.ts";
import { formatIncrementHeader, incrementBytes, PAGE_BYTES, runsOf } from "./increment-header.ts";
import type { FileVerification, PageVerifier } from "./page-verifier.ts";
import type { PartRecord } from "./part-record.ts";
import type { Walked, WalkedFile } from "./walk.ts";

/**
 * Of a large file, verified and hashed one after the other: so much stays in a processor's own
 * cache, and what another one has read comes there once. Whole pages.
 */
const CACHED_BYTES = 128 * 1024;

/** Pages of an increment that are read at once where they are neighbours: 512 KiB. */
const PAGES_PER_READ = 64;

/** So often others get their turn, such as signals and the session with the server. */
const ENTRIES_PER_TURN = 64;

const NS_PER_S = 1_000_000_000n;

export interface PartPackerOptions {
  /** Name of the part in the documents: "part_001.tar.zst". */
  readonly part: string;
  /** For this packer alone while it packs. */
  readonly hasher: Hasher;
  readonly documents: DocumentsSpool;
  /** Full backups that can be resumed: notes what the part holds. */
  readonly record?: PartRecord | undefined;
  /** Absent for a full backup: every file is stored whole. */
  readonly judge?: FileJudge | undefined;
  /** Absent: checksums of pages are not verified. */
  readonly verifier?: PageVerifier | undefined;
  /** The part ends with the entry by which its content exceeds this. */
  readonly thresholdBytes: number;
  /** Of reading, shared by all packers. */
  readonly rateLimit: RateLimit | undefined;
  /** Told the content that was read, now and then. */
  readonly onContent: (sizeBytes: number) => void;
  readonly signal: AbortSignal;
}

/**
 * Packs entries into one tar until it holds enough. What has disappeared is passed over; a file
 * that shrank is filled up with zeros and one that grew is cut, for the header is written before:
 * WAL replay puts both right.
 */
export class PartPacker {
  readonly #options: PartPackerOptions;
  readonly #chunk = Buffer.allocUnsafeSlow(CHUNK_BYTES);
  readonly #headerBlock = Buffer.allocUnsafeSlow(BLOCK_BYTES);
  #scanBuffer: Buffer | undefined;
  #filled = 0;
  #flushedBytes = 0;
  #contentBytes = 0;

  constructor(options: PartPackerOptions) {
    this.#options = options;
  }

  /** For looking at files before they are packed. */
  get #scanned(): Buffer {
    this.#scanBuffer ??= Buffer.allocUnsafeSlow(CHUNK_BYTES);
    return this.#scanBuffer;
  }

  /** Length of the tar so far. */
  get plainBytes(): number {
    return this.#flushedBytes + this.#filled;
  }

  /** Bytes of the tar, to be read once; takes from `entries` what it packs. */
  async *pack(first: Walked, entries: Iterator<Walked>): ByteStream {
    const { judge, thresholdBytes, signal } = this.#options;
    let visitedCount = 0;
    for (let next = first; ;) {
      const sight = next.kind === "file" ? judge?.look(next) : undefined;
      if (!this.#isPassedOver(next, sight)) yield* this.#append(next, sight);
      visitedCount += 1;
      if (visitedCount % ENTRIES_PER_TURN === 0) {
        await turn();
        signal.throwIfAborted();
      }
      if (this.#contentBytes > thresholdBytes) break;
      const step = entries.next();
      if (step.done === true) break;
      next = step.value;
    }
    if (CHUNK_BYTES - this.#filled < TAR_END_BYTES) yield await this.#flush();
    this.#zeros(TAR_END_BYTES);
    yield await this.#flush();
  }

  /** Notes a file that is found unchanged at once, without a turn for others. */
  #isPassedOver(entry: Walked, sight: Sight | undefined): entry is WalkedFile {
    if (entry.kind !== "file" || sight === undefined) return false;
    const verdict = sight.kind === "verdict" ? sight.verdict : this.#compareSmall(entry, sight);
    if (verdict?.kind !== "unchanged") return false;
    this.#options.documents.addUnchanged(entry, verdict.hash);
    return true;
  }

  #compareSmall(entry: WalkedFile, { kind, base }: Unread): Verdict | undefined {
    const { judge, hasher, rateLimit, onContent } = this.#options;
    const isSmall = kind === "compare" && entry.sizeBytes <= SMALL_BYTES;
    if (!isSmall || judge === undefined || rateLimit !== undefined) return undefined;
    const file = openForReading(entry.path);
    if (file === undefined) return undefined;
    using _closed = file;
    const verdict = judge.compareSmall({ entry, file }, base, { hasher, buffer: this.#scanned });
    if (verdict.kind === "unchanged") onContent(entry.sizeBytes);
    return verdict;
  }

  async *#append(entry: Walked, sight: Sight | undefined): ByteStream {
    if (entry.kind === "file") {
      yield* this.#appendFile(entry, sight);
      return;
    }
    const header = headerOf(entry, this.#headerBlock);
    if (header.length > CHUNK_BYTES - this.#filled) yield await this.#flush();
    this.#write(header);
    this.#options.documents.addOther(entry, this.#options.part);
    this.#options.record?.addOther(entry);
  }

  async *#appendFile(entry: WalkedFile, sight: Sight | undefined): ByteStream {
    const file = openForReading(entry.path);
    if (file === undefined) return;
    using _closed = file;
    const verification = this.#options.verifier?.open(entry, file);
    const source = { entry, file, verification };
    const verdict = await this.#judge(source, sight);
    if (verdict.kind === "unchanged") {
      this.#options.documents.addUnchanged(entry, verdict.hash, verification?.corrupt());
    } else if (verdict.kind === "pages") {
      yield* this.#appendPages(source, verdict);
    } else {
      yield* this.#appendWhole(source);
    }
  }

  async #judge(
    { entry, file, verification }: PackedFile,
    sight: Sight | undefined,
  ): Promise<Verdict> {
    const { judge, hasher, rateLimit, signal, onContent } = this.#options;
    if (judge === undefined || sight === undefined) return { kind: "full" };
    if (sight.kind === "verdict") return sight.verdict;
    let readBytes = 0;
    const onRead = async (sizeBytes: number): Promise<void> => {
      signal.throwIfAborted();
      readBytes += sizeBytes;
      await rateLimit?.take(sizeBytes, { signal });
    };
    const onPages = async (pages: Buffer, block: number): Promise<void> => {
      await verification?.check(pages, block, { signal });
    };
    const tools = { hasher, buffer: this.#scanned, onRead, onPages };
    const verdict = await judge.judgeContent({ entry, file }, sight, tools);
    // What is read again when it is packed is told then.
    if (verdict.kind !== "full") onContent(readBytes);
    return verdict;
  }

  /** The increment: its head, then the pages as they are now. */
  async *#appendPages(
    { entry, file, verification }: PackedFile,
    { fileBytes, blockNumbers }: Verdict & { readonly kind: "pages" },
  ): ByteStream {
    const { hasher, signal } = this.#options;
    const sizeBytes = incrementBytes(blockNumbers.length);
    const header = headerOf({ ...entry, sizeBytes }, this.#headerBlock);
    if (header.length > CHUNK_BYTES - this.#filled) yield await this.#flush();
    this.#write(header);
    const offsetBytes = this.plainBytes;
    const head = formatIncrementHeader({ fileBytes, blockNumbers });
    for (let at = 0; at < head.length;) {
      if (this.#filled === CHUNK_BYTES) yield await this.#flush();
      const piece = head.subarray(at, at + CHUNK_BYTES - this.#filled);
      hasher.update(piece);
      this.#write(piece);
      at += piece.length;
    }
    for (const { start, count } of runsOf(blockNumbers, PAGES_PER_READ)) {
      if (count * PAGE_BYTES > CHUNK_BYTES - this.#filled) yield await this.#flush();
      const target = this.#chunk.subarray(this.#filled, this.#filled + count * PAGE_BYTES);
      if (target.length <= SMALL_BYTES) file.readSync(target, start * PAGE_BYTES);
      else await file.read(target, start * PAGE_BYTES);
      if (verification !== undefined) await verification.check(target, start, { signal });
      hasher.update(target);
      this.#filled += target.length;
    }
    const stored = { sizeBytes, hash: hasher.digest(), offsetBytes, fullBytes: fileBytes };
    this.#record(entry, stored, verification);
    const padding = tarPaddingBytes(sizeBytes);
    if (padding > CHUNK_BYTES - this.#filled) yield await this.#flush();
    this.#zeros(padding);
  }

  async *#appendWhole(source: PackedFile): ByteStream {
    const { entry, verification } = source;
    const header = headerOf(entry, this.#headerBlock);
    const isSmall = entry.sizeBytes <= SMALL_BYTES;
    const wanted =
      header.length + (isSmall ? entry.sizeBytes + tarPaddingBytes(entry.sizeBytes) : 0);
    if (wanted > CHUNK_BYTES - this.#filled) yield await this.#flush();
    this.#write(header);
    const offsetBytes = this.plainBytes;
    const { sizeBytes } = entry;
    let hash: string;
    if (isSmall) hash = await this.#readSmall(source);
    else {
      yield* this.#readLarge(source);
      hash = this.#options.hasher.digest();
    }
    this.#record(entry, { sizeBytes, hash, offsetBytes }, verification);
    const padding = tarPaddingBytes(entry.sizeBytes);
    if (padding > CHUNK_BYTES - this.#filled) yield await this.#flush();
    this.#zeros(padding);
  }

  #record(
    entry: WalkedFile,
    stored: Omit<StoredFile, "part">,
    verification: FileVerification | undefined,
  ): void {
    const { documents, part, record } = this.#options;
    this.#contentBytes += stored.sizeBytes;
    documents.addFile(entry, { ...stored, part }, verification?.corrupt());
    record?.addFile(entry, { ...stored, part, corruptPages: verification?.corrupt()?.count });
  }

  async #readSmall({ entry, file, verification }: PackedFile): Promise<string> {
    const { hasher, record, signal, onContent } = this.#options;
    const { sizeBytes } = entry;
    const target = this.#chunk.subarray(this.#filled, this.#filled + sizeBytes);
    file.readSync(target, 0);
    if (verification !== undefined) await verification.check(target, 0, { signal });
    this.#filled += sizeBytes;
    onContent(sizeBytes);
    record?.update(target);
    return hasher.digestOf(target);
  }

  async *#readLarge({ entry, file, verification }: PackedFile): ByteStream {
    const { hasher, record, signal, onContent } = this.#options;
    const { sizeBytes } = entry;
    for (let position = 0; position < sizeBytes;) {
      // Pages that are verified have to be there as a whole.
      const room = verification === undefined ? 1 : PAGE_BYTES;
      if (CHUNK_BYTES - this.#filled < room) yield await this.#flush();
      const free = CHUNK_BYTES - this.#filled;
      const end = this.#filled + Math.min(free - (free % room), sizeBytes - position);
      const target = this.#chunk.subarray(this.#filled, end);
      await file.read(target, position);
      for (let at = 0; at < target.length; at += CACHED_BYTES) {
        const piece = target.subarray(at, at + CACHED_BYTES);
        const block = (position + at) / PAGE_BYTES;
        await verification?.check(piece, block, { signal });
        hasher.update(piece);
        record?.update(piece);
      }
      this.#filled = end;
      position += target.length;
      onContent(target.length);
    }
  }

  #write(bytes: Uint8Array): void {
    this.#chunk.set(bytes, this.#filled);
    this.#filled += bytes.length;
  }

  #zeros(sizeBytes: number): void {
    this.#chunk.fill(0, this.#filled, this.#filled + sizeBytes);
    this.#filled += sizeBytes;
  }

  async #flush(): Promise<Uint8Array> {
    const { signal, rateLimit } = this.#options;
    signal.throwIfAborted();
    await rateLimit?.take(this.#filled, { signal });
    const bytes = this.#chunk.subarray(0, this.#filled);
    this.#flushedBytes += this.#filled;
    this.#filled = 0;
    return bytes;
  }
}

/** A file that is being packed. */
interface PackedFile {
  readonly entry: WalkedFile;
  readonly file: OpenFile;
  readonly verification: FileVerification | undefined;
}

function headerOf(entry: Walked, block: Buffer): Uint8Array {
  const member: TarMember = {
    kind: entry.kind === "link" ? "symlink" : entry.kind,
    name: entry.name,
    ...(entry.kind === "link" ? { linkName: entry.target } : {}),
    mode: entry.mode,
    sizeBytes: entry.kind === "file" ? entry.sizeBytes : 0,
    // Rounded, as WAL-G's are.
    modifiedAtSeconds: Number((entry.mtimeNs + NS_PER_S / 2n) / NS_PER_S),
    uid: entry.uid,
    gid: entry.gid,
  };
  return formatTarHeader(member, block);
}
