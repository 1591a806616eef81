import { basename, dirname, join, resolve } from "node:path";
import type { Spool } from "../archive/spool-directory.ts";
import { UsageError } from "../errors.ts";
import type { Command, Context } from "./command.ts";

/** Started by wal-push and wal-drain; never by hand. */
export const walIndex: Command<{ readonly paths: readonly string[] }> = {
  name: "wal-index",
  usage: "wal-index <wal-file>...",
  summary: "Note the commits of archived WAL; wal-push starts it by itself.",
  details:
    "Every 16 segments the times and positions of their first and last commits go into a small " +
    "object, so that `walnut timeline` and `walnut find` need not read them. Whatever is not noted " +
    "is read when somebody asks. WALNUT_COMMIT_INDEX=false turns it off.",
  flags: [],
  needsConfig: true,

  parse({ positionals }) {
    if (positionals.length === 0) throw new UsageError("the WAL file is missing");
    return { paths: positionals };
  },

  async run({ paths }, { log, clock, signal, workingDirectory, openStorage }) {
    const [{ indexLocalBatch }, { deadlineStorage }] = await Promise.all([
      import("../catalogue/index-local.ts"),
      import("../storage/deadline.ts"),
    ]);
    // The first call that the store does not answer is the last one: nobody needs these notes.
    await using storage = deadlineStorage(await openStorage("archive"), CALL_MS, clock);
    let count = 0;
    for (const path of paths) {
      const file = resolve(workingDirectory, path);
      const place = { walDirectory: dirname(file), name: basename(file) };
      count += await indexLocalBatch(storage, place, { signal });
    }
    log.info("noted commits", { segments: count, storage: storage.name });
  },
};

/** For one call of the store with all its repetitions. */
const CALL_MS = 60_000;

/** The oldest go first: their segments are the first that PostgreSQL removes. */
const WAITING_MAX = 256;

/** PostgreSQL removes the segments at one of its next checkpoints. */
const LONGEST_REST_MS = 30_000;

export interface IndexStarterOptions {
  readonly walDirectory: string;
  readonly spool: Pick<Spool, "path">;
  /** Starts when nothing was stored for so long, or after half a minute; at once unless given. */
  readonly restMs?: number;
}

/**
 * Starts `wal-index` where a batch of segments is stored: one process at a time, however fast WAL is
 * archived, and on CPU that nobody else wants.
 */
export class IndexStarter {
  readonly #context: Context;
  readonly #walDirectory: string;
  readonly #outputPath: string;
  readonly #restMs: number;
  #waiting: string[] = [];
  #isRunning = false;
  #isResting = false;
  #storedAtMs = 0;

  constructor(context: Context, { walDirectory, spool, restMs = 0 }: IndexStarterOptions) {
    this.#context = context;
    this.#walDirectory = walDirectory;
    this.#outputPath = join(spool.path, "index.log");
    this.#restMs = restMs;
  }

  readonly stored = (name: string): void => {
    const { config, clock } = this.#context;
    if (!config.archiveQueue.isIndexingCommits) return;
    this.#storedAtMs = clock.monotonicMs();
    if (!/^[0-9A-F]{23}F$/.test(name)) return;
    this.#waiting = [...this.#waiting, join(this.#walDirectory, name)].slice(-WAITING_MAX);
    this.#startInTime();
  };

  #startInTime(): void {
    if (this.#isRunning || this.#isResting) return;
    if (this.#restMs === 0) this.startWaiting();
    else void this.#startRested();
  }

  /** Never rejects: who is aborted starts nothing. */
  async #startRested(): Promise<void> {
    const { clock, signal } = this.#context;
    this.#isResting = true;
    const latestMs = clock.monotonicMs() + LONGEST_REST_MS;
    try {
      for (;;) {
        const restedMs = Math.min(this.#storedAtMs + this.#restMs, latestMs);
        const leftMs = restedMs - clock.monotonicMs();
        if (leftMs <= 0) break;
        await clock.sleep(leftMs, { signal });
      }
      this.#isResting = false;
      this.startWaiting();
    } catch (error) {
      if (!signal.aborted) throw error;
    }
  }

  /** Also beside one that runs: for the end of who stores, who would not see that one's end. */
  startWaiting(): void {
    const { self, log } = this.#context;
    const paths = this.#waiting;
    if (self === undefined || paths.length === 0) return;
    this.#waiting = [];
    this.#isRunning = true;
    const onEnd = (): void => {
      this.#isRunning = false;
      if (this.#waiting.length > 0) this.#startInTime();
    };
    try {
      const use = { isBackground: true, onEnd };
      self.startDetached([walIndex.name, ...paths], this.#outputPath, use);
    } catch (error) {
      this.#isRunning = false;
      log.debug("commits are not noted", { reason: String(error) });
    }
  }
}
