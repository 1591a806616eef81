import { FormatError } from "../errors.ts";
import type { ByteStream } from "../io/bytes.ts";
import { createHasher, type Hasher } from "../io/hash.ts";
import { type Frame, MAX_PAYLOAD_BYTES } from "./catch-up-frames.ts";
import type { CatchUpLink } from "./catch-up-link.ts";
import {
  type CatchUpEntry,
  type CatchUpSummary,
  formatEntry,
  parseEntry,
} from "./catch-up-messages.ts";
import { type OpenFile, openForReading } from "./file-content.ts";
import type { FileJudge } from "./file-judge.ts";
import { formatIncrementHeader, incrementBytes, PAGE_BYTES, runsOf } from "./increment-header.ts";
import type { Walked, WalkedFile } from "./walk.ts";

/** Counts entries and their data, the same at both ends. */
class Tally {
  readonly #hasher: Hasher;
  #entryCount = 0;
  #dataBytes = 0;

  constructor(hasher: Hasher) {
    this.#hasher = hasher;
  }

  entry(payload: Uint8Array): void {
    this.#entryCount += 1;
    this.#hasher.update(payload);
  }

  data(bytes: Uint8Array): void {
    this.#dataBytes += bytes.length;
    this.#hasher.update(bytes);
  }

  /** Once, at the end. */
  finish(): CatchUpSummary {
    const digest = this.#hasher.digest();
    return { entryCount: this.#entryCount, dataBytes: this.#dataBytes, digest };
  }
}

/** Pages that are read and sent at once. */
const PAGES_PER_FRAME = MAX_PAYLOAD_BYTES / PAGE_BYTES;
/** Read at once, without leaving the thread: that takes longer. */
const SMALL_BYTES = 64 * 1024;

export interface EntrySenderOptions {
  readonly judge: FileJudge;
  /** Told what was read of files of the cluster. */
  readonly onRead: (sizeBytes: number) => void;
  readonly signal: AbortSignal;
}

/** Sends what the other end lacks, path by path. */
export class EntrySender {
  readonly #link: CatchUpLink;
  readonly #options: EntrySenderOptions;
  readonly #tally: Tally;
  readonly #hasher: Hasher;
  readonly #buffer = Buffer.allocUnsafeSlow(MAX_PAYLOAD_BYTES);
  #summary: CatchUpSummary | undefined;
  #unchangedCount = 0;

  private constructor(
    link: CatchUpLink,
    options: EntrySenderOptions,
    { tally, hasher }: { readonly tally: Tally; readonly hasher: Hasher },
  ) {
    this.#link = link;
    this.#options = options;
    this.#tally = tally;
    this.#hasher = hasher;
  }

  static async create(link: CatchUpLink, options: EntrySenderOptions): Promise<EntrySender> {
    const tally = new Tally(await createHasher("xxh64"));
    return new EntrySender(link, options, { tally, hasher: await createHasher("xxh64") });
  }

  /** Files of which nothing had to be sent. */
  get unchangedCount(): number {
    return this.#unchangedCount;
  }

  /** After `finish`. */
  get summary(): CatchUpSummary {
    if (this.#summary === undefined) throw new Error("not all entries are sent");
    return this.#summary;
  }

  finish(): CatchUpSummary {
    this.#summary = this.#tally.finish();
    return this.#summary;
  }

  /** What disappeared since it was visited is passed over; links stay as they are over there. */
  async sendWalked(entry: Walked): Promise<void> {
    this.#options.signal.throwIfAborted();
    if (entry.kind === "directory") {
      const path = entry.name === "/" ? "." : entry.name.slice(1);
      await this.#send({ kind: "directory", path, mode: entry.mode });
      return;
    }
    if (entry.kind === "link") return;
    using file = openForReading(entry.path);
    if (file === undefined) return;
    await this.#sendFile(entry, file);
  }

  /** A file of ours, whole. */
  async sendBytes(path: string, mode: number, bytes: Buffer): Promise<void> {
    await this.#send({ kind: "file", path, mode, sizeBytes: bytes.length });
    for (let at = 0; at < bytes.length; at += MAX_PAYLOAD_BYTES) {
      await this.#sendData(bytes.subarray(at, at + MAX_PAYLOAD_BYTES));
    }
  }

  /** A file of this size, whole; zeros where it has become shorter. */
  async sendWhole({ path, mode, sizeBytes, file }: WholeFile): Promise<void> {
    await this.#send({ kind: "file", path, mode, sizeBytes });
    for (let at = 0; at < sizeBytes; at += this.#buffer.length) {
      const piece = this.#buffer.subarray(0, Math.min(this.#buffer.length, sizeBytes - at));
      if (piece.length <= SMALL_BYTES) file.readSync(piece, at);
      else await file.read(piece, at);
      await this.#sendData(piece);
    }
  }

  async #sendFile(entry: WalkedFile, file: OpenFile): Promise<void> {
    const { judge, onRead, signal } = this.#options;
    const { mode, sizeBytes } = entry;
    const path = entry.name.slice(1);
    const verdict = await judge.judge(entry, file, {
      hasher: this.#hasher,
      buffer: this.#buffer,
      onRead: async () => signal.throwIfAborted(),
    });
    onRead(sizeBytes);
    if (verdict.kind === "unchanged") {
      this.#unchangedCount += 1;
      await this.#send({ kind: "same", path });
      return;
    }
    if (verdict.kind === "full") {
      await this.sendWhole({ path, mode, sizeBytes, file });
      return;
    }
    const { blockNumbers } = verdict;
    await this.#send({ kind: "pages", path, mode, sizeBytes: incrementBytes(blockNumbers.length) });
    const head = formatIncrementHeader(verdict);
    for (let at = 0; at < head.length; at += MAX_PAYLOAD_BYTES) {
      await this.#sendData(head.subarray(at, at + MAX_PAYLOAD_BYTES));
    }
    for (const { start, count } of runsOf(blockNumbers, PAGES_PER_FRAME)) {
      const pages = this.#buffer.subarray(0, count * PAGE_BYTES);
      if (pages.length <= SMALL_BYTES) file.readSync(pages, start * PAGE_BYTES);
      else await file.read(pages, start * PAGE_BYTES);
      await this.#sendData(pages);
    }
  }

  async #send(entry: CatchUpEntry): Promise<void> {
    const payload = formatEntry(entry);
    this.#tally.entry(payload);
    await this.#link.send("entry", payload);
  }

  async #sendData(bytes: Uint8Array): Promise<void> {
    this.#tally.data(bytes);
    await this.#link.send("data", bytes);
  }
}

export interface WholeFile {
  readonly path: string;
  readonly mode: number;
  readonly sizeBytes: number;
  readonly file: OpenFile;
}

/** What the other end of `EntrySender` gives, path by path. */
export class EntryReader {
  readonly #link: Pick<CatchUpLink, "receive">;
  readonly #tally: Tally;
  #leftBytes = 0;

  private constructor(link: Pick<CatchUpLink, "receive">, tally: Tally) {
    this.#link = link;
    this.#tally = tally;
  }

  static async create(link: Pick<CatchUpLink, "receive">): Promise<EntryReader> {
    return new EntryReader(link, new Tally(await createHasher("xxh64")));
  }

  /**
   * The next entry, whose data has to be read before the one after it; or what the sender says at
   * the end. Throws FormatError.
   */
  async next(): Promise<CatchUpEntry | Frame> {
    if (this.#leftBytes > 0) throw new Error("the data of an entry was not read");
    const frame = await this.#link.receive();
    if (frame.type === "end") return frame;
    if (frame.type !== "entry")
      throw new FormatError(`${frame.type} stands where an entry belongs`);
    this.#tally.entry(frame.payload);
    const entry = parseEntry(frame.payload);
    this.#leftBytes = entry.kind === "file" || entry.kind === "pages" ? entry.sizeBytes : 0;
    return entry;
  }

  /** Of the entry that came last, exactly as many bytes as it announced. */
  async *data(): ByteStream {
    while (this.#leftBytes > 0) {
      const { type, payload } = await this.#link.receive();
      if (type !== "data") throw new FormatError(`${type} stands where data belongs`);
      if (payload.length === 0 || payload.length > this.#leftBytes) {
        throw new FormatError(`${payload.length} bytes of data where ${this.#leftBytes} belong`);
      }
      this.#leftBytes -= payload.length;
      this.#tally.data(payload);
      yield payload;
    }
  }

  /** Once, after the end. */
  finish(): CatchUpSummary {
    return this.#tally.finish();
  }
}
