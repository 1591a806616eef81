import { join, resolve } from "node:path";
import type { DaemonWork } from "../daemon/server.ts";
import { ConfigError, InterruptedError } from "../errors.ts";
import { untilAborted } from "../io/abort.ts";
import type { Log } from "../io/log.ts";
import { Semaphore } from "../io/ordered.ts";
import { borrowed } from "../storage/overlay.ts";
import type { StorageUse } from "../storage/failover-open.ts";
import type { Storage } from "../storage/storage.ts";
import type { Context, Reloaded, Self } from "./command.ts";
import { createContext } from "./context.ts";
import { walDrain } from "./wal-drain.ts";
import { walFetch } from "./wal-fetch.ts";
import { walPush } from "./wal-push.ts";
import { readCommandLine } from "./words.ts";

interface CallOptions {
  readonly signal: AbortSignal;
}

interface Fetch {
  readonly controller: AbortController;
  /** Resolves when neither this one nor any before it can touch the destination any more. */
  readonly ended: Promise<unknown>;
}

/** More would hold more memory and not more of the line. */
const CONCURRENCY_MAX = 8;

/**
 * The daemon's work: the commands themselves, wal-push and wal-fetch, with a store that stays open,
 * and the drainer as a task where they would start a process. DAEMON.md tells the whole story.
 */
export class DaemonArchive implements DaemonWork {
  readonly #context: Context;
  readonly #dataDirectory: string;
  readonly #fetches = new Map<string, Fetch>();
  /** Earlier settings that are still in use. */
  readonly #retiring = new Set<Promise<void>>();
  #generation: Generation;

  /** `context` lives as long as the daemon; its signal ends nothing that is under way. */
  constructor(context: Context, dataDirectory: string) {
    this.#context = context;
    this.#dataDirectory = dataDirectory;
    this.#generation = this.#begin(context);
  }

  get log(): Log {
    return this.#generation.context.log;
  }

  /** The longest that one call may take by its settings, waiting for its turn not included. */
  get callMs(): number {
    const { walTimeoutMs, daemonPushTimeoutMs } = this.#generation.context.config;
    return Math.max(walTimeoutMs, daemonPushTimeoutMs);
  }

  /** Rejects with ConfigError when no store can be had with these settings at all. */
  async open(): Promise<void> {
    await this.#generation.proveSettings();
  }

  async push(name: string, { signal }: CallOptions): Promise<void> {
    const path = join(this.#dataDirectory, "pg_wal", name);
    await this.#generation.push(async (context) => {
      const { config } = context;
      const walTimeoutMs = Math.min(config.walTimeoutMs, config.daemonPushTimeoutMs);
      const own = { ...context, signal, config: { ...config, walTimeoutMs } };
      await walPush.run({ path, archiver: undefined }, own);
    }, signal);
  }

  async fetch(name: string, destination: string, { signal }: CallOptions): Promise<void> {
    const path = resolve(this.#dataDirectory, destination);
    // Whoever asked for a file at this place before is not there any more.
    const before = this.#fetches.get(path);
    const controller = new AbortController();
    const { promise, resolve: end } = Promise.withResolvers<void>();
    const own: Fetch = { controller, ended: Promise.all([promise, before?.ended]) };
    this.#fetches.set(path, own);
    const either = AbortSignal.any([signal, controller.signal]);
    try {
      before?.controller.abort(new InterruptedError(`${path} is asked for again`));
      if (before !== undefined) await untilAborted(before.ended, either);
      await this.#generation.fetch(async (context) => {
        await walFetch.run({ name, destination: path }, { ...context, signal: either });
      }, either);
    } finally {
      end();
      if (this.#fetches.get(path) === own) this.#fetches.delete(path);
    }
  }

  /**
   * New settings for calls that come from now on; those under way end with the old ones. Rejects
   * with ConfigError, and then nothing has changed.
   */
  async reload(next: Reloaded): Promise<void> {
    if (resolvedDataDirectory(next, this.#context) !== this.#dataDirectory) {
      throw new ConfigError("PGDATA is another directory now", {
        hint: "Restart the daemon to serve another data directory.",
      });
    }
    const generation = this.#begin({ ...this.#context, ...next });
    await generation.proveSettings();
    const retiring = this.#generation.retire();
    this.#generation = generation;
    this.#retiring.add(retiring);
    void retiring.finally(() => this.#retiring.delete(retiring));
  }

  /** Closes everything, as far as that is done when `signal` is aborted. */
  async close({ signal }: CallOptions): Promise<void> {
    const all = Promise.all([...this.#retiring, this.#generation.retire()]);
    await untilAborted(all, signal).catch(() => {});
  }

  #begin(context: Context): Generation {
    // Fetch resolves paths; whatever else is relative is where PostgreSQL would have started us.
    return new Generation({ ...context, workingDirectory: this.#dataDirectory });
  }
}

/** PGDATA as an absolute path; undefined where it is not set. */
export function resolvedDataDirectory(
  { config }: Pick<Context, "config">,
  { workingDirectory }: Pick<Context, "workingDirectory">,
): string | undefined {
  const { dataDirectory } = config;
  return dataDirectory === undefined ? undefined : resolve(workingDirectory, dataDirectory);
}

/** One set of settings, its open store, and its drainer. */
class Generation {
  readonly context: Context;
  readonly #openOwn: Context["openStorage"];
  readonly #pushes: Semaphore;
  readonly #fetches: Semaphore;
  /** Ends what belongs to the settings, when they are retired and nobody uses them. */
  readonly #over = new AbortController();
  readonly #storages = new Map<StorageUse, Promise<Storage>>();
  #draining: Promise<void> | undefined;
  #useCount = 0;
  #unused = Promise.withResolvers<void>();
  #isRetired = false;

  constructor(base: Context) {
    const { config, self } = base;
    const own = createContext({ ...base, signal: this.#over.signal });
    this.#openOwn = own.openStorage;
    this.#pushes = new Semaphore(Math.min(config.uploadConcurrency, CONCURRENCY_MAX));
    this.#fetches = new Semaphore(Math.min(config.downloadConcurrency, CONCURRENCY_MAX));
    this.context = {
      ...own,
      openStorage: async (use) => borrowed(await this.#open(use)),
      ...(self === undefined ? {} : { self: this.#describeSelf(self) }),
    };
  }

  async push(work: (context: Context) => Promise<void>, signal: AbortSignal): Promise<void> {
    await this.#use(this.#pushes, work, signal);
  }

  async fetch(work: (context: Context) => Promise<void>, signal: AbortSignal): Promise<void> {
    await this.#use(this.#fetches, work, signal);
  }

  async proveSettings(): Promise<void> {
    try {
      await this.#open();
    } catch (error) {
      if (error instanceof ConfigError) throw error;
      const reason = error instanceof Error ? error.message : String(error);
      this.context.log.warning("the store is away; each call will try again", { reason });
    }
  }

  /** Waits for those that use it, then closes all. */
  async retire(): Promise<void> {
    this.#isRetired = true;
    if (this.#useCount > 0) await this.#unused.promise;
    this.#over.abort(new InterruptedError("the daemon has other settings or stops"));
    await this.#draining;
    for (const opening of this.#storages.values()) {
      const storage = await opening.catch(() => undefined);
      await storage?.[Symbol.asyncDispose]();
    }
  }

  async #use(
    turns: Semaphore,
    work: (context: Context) => Promise<void>,
    signal: AbortSignal,
  ): Promise<void> {
    this.#useCount += 1;
    try {
      await turns.acquire({ signal });
      try {
        await work(this.context);
      } finally {
        turns.release();
      }
    } finally {
      this.#useCount -= 1;
      if (this.#isRetired && this.#useCount === 0) this.#unused.resolve();
    }
  }

  /** One that failed to open is opened again by the next call. */
  async #open(use: StorageUse = "all"): Promise<Storage> {
    const opening = this.#storages.get(use) ?? this.#openOwn(use);
    this.#storages.set(use, opening);
    try {
      return await opening;
    } catch (error) {
      if (this.#storages.get(use) === opening) this.#storages.delete(use);
      throw error;
    }
  }

  #describeSelf({ words, fingerprint, startDetached }: Self): Self {
    return {
      words,
      fingerprint,
      startDetached: (more, outputPath, use) => {
        if (more[0] === walDrain.name) this.#drain(more.slice(1));
        else startDetached(more, outputPath, use);
      },
    };
  }

  /** What wal-push would start as a process of its own. */
  #drain(words: readonly string[]): void {
    if (this.#draining !== undefined || this.#isRetired) return;
    const line = readCommandLine(words, { find: () => undefined, names: () => [] }, walDrain.flags);
    const context = { ...this.context, signal: this.#over.signal };
    const drain = async (): Promise<void> => {
      try {
        await walDrain.run(walDrain.parse(line.words), context);
      } catch (error) {
        const reason = error instanceof Error ? error.message : String(error);
        if (!this.#over.signal.aborted) context.log.warning("drainer ended", { reason });
      } finally {
        this.#draining = undefined;
      }
    };
    this.#draining = drain();
  }
}
