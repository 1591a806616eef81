import { OperationError } from "../errors.ts";
import { createHasher } from "../io/hash.ts";
import type { Log } from "../io/log.ts";
import { parseSegmentName } from "../postgres/wal-file.ts";
import type { OpenRecord } from "../postgres/wal-record-scan.ts";
import type { Storage } from "../storage/storage.ts";
import { CommitIndex } from "./commit-index.ts";
import { noteFile } from "./index-local.ts";

/** A segment that the store has acknowledged, and that is still a file. */
export interface ReceivedSegment {
  readonly name: string;
  readonly path: string;
  readonly segmentBytes: number;
}

/** The last segment of a batch: what was noted until then is written. */
const LAST_OF_BATCH = /F$/;
/** How long the last notes may take at the end. */
const CLOSE_MS = 5000;

/** Notes the commits of segments as they are received. Whatever it lacks is read when asked for. */
export class ReceivedIndex implements AsyncDisposable {
  readonly #storage: Storage;
  readonly #log: Log;
  readonly #over = new AbortController();
  #queue: Promise<void> = Promise.resolve();
  #index: CommitIndex | undefined;
  #last: { readonly timeline: number; readonly number: number; readonly open?: OpenRecord } = {
    timeline: 0,
    number: -1,
  };

  constructor(storage: Storage, log: Log) {
    this.#storage = storage;
    this.#log = log;
  }

  /** Resolves when the file is not needed any more. Never rejects but for bugs. */
  async note(segment: ReceivedSegment): Promise<void> {
    this.#queue = this.#queue.then(() => this.#attempt(() => this.#note(segment)));
    await this.#queue;
  }

  /** Writes what was noted, if the store takes it in a moment. */
  async [Symbol.asyncDispose](): Promise<void> {
    const late = AbortSignal.timeout(CLOSE_MS);
    late.addEventListener("abort", () => this.#over.abort(late.reason));
    await this.#queue;
    await this.#attempt(async () => await this.#index?.flush());
  }

  async #note({ name, path, segmentBytes }: ReceivedSegment): Promise<void> {
    const { timeline, segmentNumber } = parseSegmentName(name, segmentBytes);
    const number = Number(segmentNumber);
    const isNeighbour = this.#last.timeline === timeline && this.#last.number === number - 1;
    const before = isNeighbour ? this.#last.open : undefined;
    const { signal } = this.#over;
    const noted = await noteFile(path, name, { before, signal });
    const open = noted?.open;
    this.#last = { timeline, number, ...(open === undefined ? {} : { open }) };
    if (noted === undefined) return;
    this.#index ??= new CommitIndex(this.#storage, segmentBytes, {
      hasher: await createHasher("xxh64"),
      mustWrite: true,
      signal,
    });
    await this.#index.note(timeline, number, noted.entry);
    if (LAST_OF_BATCH.test(name)) await this.#index.flush();
  }

  async #attempt(work: () => Promise<void>): Promise<void> {
    try {
      await work();
    } catch (error) {
      if (!(error instanceof OperationError) && !this.#over.signal.aborted) throw error;
      this.#log.debug("commits are not noted", { reason: String(error) });
    }
  }
}
