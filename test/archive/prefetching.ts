import { existsSync, readdirSync } from "node:fs";
import { mkdir } from "node:fs/promises";
import { join } from "node:path";
import { queueIn } from "../../src/archive/archive-status.ts";
import { converse } from "../../src/archive/drain-client.ts";
import { askPrefetcher, type TakeOutcome } from "../../src/archive/prefetch-client.ts";
import { parsePrefetchAnswer, type PrefetchStatus } from "../../src/archive/prefetch-protocol.ts";
import { prefetch, type PrefetchOptions } from "../../src/archive/prefetcher.ts";
import { SERVER_LINK } from "../../src/archive/server-link.ts";
import { type Spool, spoolDirectory } from "../../src/archive/spool-directory.ts";
import { systemClock } from "../../src/io/clock.ts";
import { silentLog } from "../../src/io/log.ts";
import { type RealWal, walFile } from "../support/real-wal.ts";
import { until } from "../support/until.ts";
import { openWorkbench, type Workbench } from "./workbench.ts";

export const RECOVERY = "4711-0123abcd";
const { signal } = new AbortController();

interface Place {
  readonly bench: Workbench;
  /** Of a server that recovers. */
  readonly data: string;
  readonly spool: Spool;
}

/** A data directory in recovery, and at most one prefetcher for it. */
export class Prefetching implements AsyncDisposable {
  readonly bench: Workbench;
  readonly data: string;
  readonly spool: Spool;
  readonly #wal: RealWal;
  #stop = new AbortController();
  #running: Promise<string> | undefined;

  static async open(wal: RealWal): Promise<Prefetching> {
    const bench = await openWorkbench();
    const data = join(bench.directory, "data");
    await bench.file("data/global/pg_control", wal.control);
    await bench.file("data/recovery.signal", Buffer.of());
    await bench.file("data/postmaster.pid", Buffer.from(`${process.pid}\n${data}\n1700000000\n`));
    await mkdir(join(data, "pg_wal"));
    const spool = await spoolDirectory({ dataDirectory: data, cacheDirectory: "/none" });
    return new Prefetching({ bench, data, spool }, wal);
  }

  private constructor({ bench, data, spool }: Place, wal: RealWal) {
    this.bench = bench;
    this.data = data;
    this.spool = spool;
    this.#wal = wal;
  }

  nameAt(index: number): string {
    return this.#wal.segments[index] ?? "none";
  }

  /** Of a recorded segment, whatever its timeline. */
  contentOf(name: string): Buffer {
    return walFile(this.#wal, `00000001${name.slice(8)}`);
  }

  async store(names: readonly string[], method: "zstd" | "none" = "zstd"): Promise<void> {
    const extension = method === "zstd" ? ".zst" : "";
    for (const name of names) {
      const object = await this.bench.compress(method, this.contentOf(name));
      await this.bench.put(`wal_005/${name}${extension}`, object);
    }
  }

  /** What recovery has got before: it also tells which extension the archive has. */
  async fetchFirst(): Promise<void> {
    await this.bench.fetch(this.nameAt(0), join(this.data, "pg_wal", this.nameAt(0)));
    this.bench.storage.takeCalls();
  }

  start(change: Partial<PrefetchOptions> = {}): Promise<string> {
    this.#running = prefetch({
      queue: queueIn(this.data),
      spool: this.spool,
      openStorage: async () => this.bench.storage,
      codecJobs: 2,
      cacheDirectory: join(this.bench.directory, "cache"),
      aheadMax: 4,
      aheadBytesMax: 1024 ** 3,
      timeoutMs: 10_000,
      idleMs: 60_000,
      inspectMs: 50,
      settings: "s",
      after: this.nameAt(0),
      recovery: RECOVERY,
      log: silentLog,
      clock: systemClock,
      signal: this.#stop.signal,
      ...change,
    });
    return this.#running;
  }

  /** Ends the prefetcher that was started last. */
  async end(): Promise<void> {
    this.#stop.abort(new Error("enough"));
    await this.#running?.catch(() => {});
    this.#stop = new AbortController();
  }

  /** As wal-fetch asks; again where the machine was too busy for the prefetcher's first word. */
  async take(name: string, settings = "s"): Promise<TakeOutcome> {
    const request = { kind: "take", name, settings, recovery: RECOVERY } as const;
    for (;;) {
      const answer = await askPrefetcher(this.spool, request, { timeoutMs: 20_000, signal });
      if (answer.kind !== "declined" || answer.reason !== "it does not answer") return answer;
    }
  }

  async status(): Promise<PrefetchStatus | undefined> {
    const question = { request: { kind: "status" }, parse: parsePrefetchAnswer };
    const how = { timeoutMs: 20_000, signal };
    const answer = await converse(this.spool.prefetchSocket, question, how);
    return answer.kind === "status" ? answer.status : undefined;
  }

  /** What the shell of the recovery finds. */
  found(recovery = RECOVERY): string[] {
    const link = join(this.spool.prefetch, recovery);
    if (!existsSync(link)) return [];
    const names = readdirSync(link).filter((name) => !name.endsWith(".coming"));
    return names.filter((name) => name !== SERVER_LINK).toSorted();
  }

  async untilFound(names: readonly string[]): Promise<void> {
    await until(
      names.join(),
      () => this.found().join() === names.join(),
      () => `but ${this.found().join()}`,
    );
  }

  async untilOpen(): Promise<void> {
    await until("open", () => existsSync(join(this.spool.prefetch, RECOVERY)));
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.end();
    await this.bench[Symbol.asyncDispose]();
  }
}
