import type { Codec } from "../codec/codec.ts";
import { untilAborted } from "../io/abort.ts";
import { bytesSource, type ByteSource, type ByteStream, readAll } from "../io/bytes.ts";
import { createHasher, type HashAlgorithm, type Hasher } from "../io/hash.ts";
import { Semaphore } from "../io/ordered.ts";
import type { RateLimit } from "../io/rate-limit.ts";
import type { BackupName } from "../layout/backup-name.ts";
import { partName, tarFolder } from "../layout/keys.ts";
import type { ManifestPart } from "../layout/manifest.ts";
import type { Storage } from "../storage/storage.ts";
import { type Composition, GroupedEntries } from "./composer.ts";
import type { DocumentsSpool } from "./documents-spool.ts";
import type { OwnPart } from "./own-parts.ts";
import type { FileJudge } from "./file-judge.ts";
import type { PageVerifier } from "./page-verifier.ts";
import { PartPacker } from "./part-packer.ts";
import type { PartRecords } from "./part-record.ts";
import type { Walked } from "./walk.ts";

export interface PartUploadOptions {
  readonly storage: Pick<Storage, "put">;
  readonly backup: BackupName;
  readonly codec: Codec;
  /** In the codec's own scale; absent = its default. */
  readonly level?: number | undefined;
  /** For all parts together; more than 8 make it no faster and are not used. */
  readonly codecJobs: number;
  /** Parts packed at the same time. */
  readonly partConcurrency: number;
  readonly thresholdBytes: number;
  /** Of the files in the manifest. */
  readonly hash: HashAlgorithm;
  readonly documents: DocumentsSpool;
  /** Full backups that can be resumed: notes what each part holds. */
  readonly records?: PartRecords | undefined;
  /** Numbers up to this one are not given to parts; 0 unless told. */
  readonly usedPartCount?: number | undefined;
  /** Increments only: what of each file has to be stored. */
  readonly judge?: FileJudge | undefined;
  /** Absent: checksums of pages are not verified. */
  readonly verifier?: PageVerifier | undefined;
  /** Of reading files. */
  readonly rateLimit?: RateLimit | undefined;
  readonly onContent: (sizeBytes: number) => void;
  readonly signal: AbortSignal;
}

/** A tar that is made while it is stored. */
export interface StreamedPart {
  /** Length of the tar; once all of it is read. */
  readonly plainBytes: number;
  /** Its bytes; once. */
  pack(): ByteStream;
}

/**
 * Compression jobs of one backup: each holds a few pieces of 2 MiB, and this many keep up with the
 * one thread that reads, packs and hashes.
 */
const MAX_CODEC_JOBS = 8;

/** Parts that are packed and wait for the store's answer while the next ones are packed. */
const UPLOAD_QUEUE_LENGTH = 2;

/** Packs, compresses and stores the parts of one backup, all at the same time. */
export class PartUpload {
  readonly #options: PartUploadOptions;
  readonly #failure = new AbortController();
  readonly #signal: AbortSignal;
  readonly #uploads = new Set<Promise<void>>();
  readonly #sizes = new Map<string, number>();
  #partCount: number;
  #storedBytes = 0;
  /** Parts of which the store has not been given every byte yet. */
  #unsentCount = 0;
  #allSent = Promise.withResolvers<void>();

  constructor(options: PartUploadOptions) {
    this.#options = options;
    this.#partCount = options.usedPartCount ?? 0;
    this.#signal = AbortSignal.any([options.signal, this.#failure.signal]);
  }

  /** Bytes of all tar objects that went to the store so far. */
  get storedBytes(): number {
    return this.#storedBytes;
  }

  /** Sizes of all parts that are stored, before any encryption, by name. */
  get sizes(): ReadonlyMap<string, number> {
    return this.#sizes;
  }

  /** A part that is stored already. */
  addStored(part: ManifestPart): void {
    this.#storedBytes += part.sizeBytes;
    this.#options.documents.addPart(part);
    this.#sizes.set(part.name, part.sizeBytes);
  }

  /**
   * Packs all entries; the next part begins while those before it are still being stored. Resolves
   * when everything has been read: `finish` waits for the store.
   */
  async packAll(composition: Composition): Promise<void> {
    const entries = new GroupedEntries(composition);
    const { partConcurrency } = this.#options;
    const signal = this.#signal;
    const packing = new Semaphore(partConcurrency);
    const unfinished = new Semaphore(partConcurrency + UPLOAD_QUEUE_LENGTH);
    for (;;) {
      await unfinished.acquire({ signal });
      await packing.acquire({ signal });
      const begun = entries.begin();
      if (begun === undefined) break;
      this.#partCount += 1;
      this.#unsentCount += 1;
      const part = { index: this.#partCount, ...begun };
      const upload = this.#putPart(part, () => packing.release());
      this.#track(upload.finally(() => unfinished.release()));
    }
    packing.release();
    for (let count = 0; count < partConcurrency; count += 1) await packing.acquire({ signal });
  }

  /**
   * Stores parts that come one after the other, until there is none: `next` is asked when the part
   * before was packed, with the new one's name. Resolves when all are packed.
   */
  async packStreamed(next: (name: string) => Promise<StreamedPart | undefined>): Promise<void> {
    const { codec, codecJobs } = this.#options;
    const signal = this.#signal;
    const unfinished = new Semaphore(1 + UPLOAD_QUEUE_LENGTH);
    for (;;) {
      await unfinished.acquire({ signal });
      const name = partName(this.#partCount + 1, codec.extension);
      const part = await untilAborted(next(name), signal);
      if (part === undefined) return;
      this.#partCount += 1;
      this.#unsentCount += 1;
      const packed = Promise.withResolvers<void>();
      const jobs = Math.min(codecJobs, MAX_CODEC_JOBS);
      // After a failure nobody may ask for more: the source is somewhere in the middle then.
      const told = {
        pack: () => successTold(part.pack(), packed.resolve),
        get plainBytes() {
          return part.plainBytes;
        },
      };
      const upload = this.#store(name, told, { jobs, onPacked: () => {} });
      this.#track(upload.finally(() => unfinished.release()));
      await untilAborted(packed.promise, signal);
    }
  }

  /** Stores a part that another backup has, as it is there; `bytes` can be had once. */
  async putStored(name: string, bytes: ByteStream, part: ManifestPart): Promise<void> {
    const { storage, backup } = this.#options;
    const body = { isReopenable: false, sizeBytes: part.sizeBytes, open: () => bytes };
    await storage.put(`${tarFolder(backup)}${name}`, body, { signal: this.#signal });
    this.addStored({ ...part, name });
  }

  /** Stores a tar that is in memory; `finish` waits for it. */
  putTar(part: OwnPart): void {
    this.#unsentCount += 1;
    this.#track(this.#putSmall(part));
  }

  /**
   * Resolves when the store has been given every byte of every part: `storedBytes` and what the
   * documents say of parts are complete then.
   */
  async sent(): Promise<void> {
    while (this.#unsentCount > 0) await untilAborted(this.#allSent.promise, this.#signal);
  }

  /** Resolves when the store has acknowledged every part. */
  async finish(): Promise<void> {
    await Promise.all(this.#uploads);
  }

  /** Waits until nothing is written any more, after a failure. */
  async settle(): Promise<void> {
    this.#failure.abort(new Error("another part failed"));
    await Promise.allSettled(this.#uploads);
  }

  /** Of an upload that tells by `#describe` when the store has all of it. */
  #track(upload: Promise<unknown>): void {
    const tracked = (async () => {
      try {
        await upload;
      } catch (error) {
        this.#failure.abort(error);
        throw error;
      }
    })();
    // The first failure aborts everything else; it is thrown where packing or finishing is awaited.
    tracked.catch(() => {});
    this.#uploads.add(tracked);
  }

  async #putPart(
    part: { readonly index: number; readonly first: Walked; readonly entries: Iterator<Walked> },
    onPacked: () => void,
  ): Promise<void> {
    const { codec, hash, codecJobs, partConcurrency } = this.#options;
    const name = partName(part.index, codec.extension);
    using record = await this.#options.records?.begin();
    const packer = new PartPacker({
      ...this.#options,
      record,
      part: name,
      hasher: await createHasher(hash),
      rateLimit: this.#options.rateLimit,
      signal: this.#signal,
    });
    const jobs = Math.ceil(Math.min(codecJobs, MAX_CODEC_JOBS) / partConcurrency);
    const streamed = {
      pack: () => packer.pack(part.first, part.entries),
      get plainBytes() {
        return packer.plainBytes;
      },
    };
    const stored = await this.#store(name, streamed, { jobs, onPacked });
    await record?.put(stored, { signal: this.#signal });
  }

  async #store(
    name: string,
    part: StreamedPart,
    { jobs, onPacked }: { readonly jobs: number; readonly onPacked: () => void },
  ): Promise<ManifestPart> {
    const { storage, backup } = this.#options;
    const packed = endTold(part.pack(), onPacked);
    let sent: ManifestPart | undefined;
    const stored = new StoredStream(this.#compress(packed, jobs), await createHasher("xxh64"), {
      onBytes: (count) => {
        this.#storedBytes += count;
      },
      onEnd: (sizeBytes, xxh64) => {
        sent = { kind: "part", name, sizeBytes, plainBytes: part.plainBytes, xxh64 };
        this.#describe(sent);
      },
    });
    await storage.put(`${tarFolder(backup)}${name}`, stored, { signal: this.#signal });
    if (sent === undefined) throw new Error(`part ${name} was not read to its end`);
    this.#sizes.set(name, sent.sizeBytes);
    return sent;
  }

  #describe(part: ManifestPart): void {
    this.#options.documents.addPart(part);
    this.#unsentCount -= 1;
    if (this.#unsentCount > 0) return;
    this.#allSent.resolve();
    this.#allSent = Promise.withResolvers();
  }

  async #putSmall({ name, tar }: OwnPart): Promise<void> {
    const { storage, backup } = this.#options;
    const hasher = await createHasher("xxh64");
    const bytes = await readAll(this.#compress(bytesSource(tar).open(), 1));
    const { length: sizeBytes } = bytes;
    const xxh64 = hasher.digestOf(bytes);
    this.#storedBytes += sizeBytes;
    this.#describe({ kind: "part", name, sizeBytes, plainBytes: tar.length, xxh64 });
    await storage.put(`${tarFolder(backup)}${name}`, bytesSource(bytes), { signal: this.#signal });
    this.#sizes.set(name, sizeBytes);
  }

  #compress(plain: ByteStream, jobs: number): ByteStream {
    const { codec, level } = this.#options;
    const options = { jobs, signal: this.#signal };
    return codec.compress(plain, level === undefined ? options : { ...options, level });
  }
}

interface StoredStreamTold {
  readonly onBytes: (count: number) => void;
  /** The length and the hash of all, when the last byte has been taken. */
  readonly onEnd: (sizeBytes: number, xxh64: string) => void;
}

/** The bytes that go to the store, counted and hashed on the way; they can be had only once. */
class StoredStream implements ByteSource {
  readonly isReopenable = false;
  readonly #stream: ByteStream;
  readonly #hasher: Hasher;
  readonly #told: StoredStreamTold;
  #isOpened = false;

  constructor(stream: ByteStream, hasher: Hasher, told: StoredStreamTold) {
    this.#stream = stream;
    this.#hasher = hasher;
    this.#told = told;
  }

  async *open(): ByteStream {
    if (this.#isOpened) throw new Error("a part can't be packed twice");
    this.#isOpened = true;
    let sizeBytes = 0;
    for await (const chunk of this.#stream) {
      this.#hasher.update(chunk);
      sizeBytes += chunk.length;
      this.#told.onBytes(chunk.length);
      yield chunk;
    }
    this.#told.onEnd(sizeBytes, this.#hasher.digest());
  }
}

/** Passes `stream` on and tells when it was read to its end. */
async function* successTold(stream: ByteStream, onEnd: () => void): ByteStream {
  yield* stream;
  onEnd();
}

/** Passes `stream` on and tells when it ends, in whatever way. */
async function* endTold(stream: ByteStream, onEnd: () => void): ByteStream {
  try {
    yield* stream;
  } finally {
    onEnd();
  }
}
