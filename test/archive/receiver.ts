/**
 * What the tests of wal-receive share: a receiver in this process, and a store that keeps score.
 */
import assert from "node:assert/strict";
import { once } from "node:events";
import { readFile } from "node:fs/promises";
import { connect, createServer, type Socket } from "node:net";
import { join } from "node:path";
import { receiveWal, type ReceiveOptions } from "../../src/archive/receive.ts";
import { codecByExtension, codecOf } from "../../src/codec/table.ts";
import { StorageError } from "../../src/errors.ts";
import { bytesSource, readAll } from "../../src/io/bytes.ts";
import { systemClock } from "../../src/io/clock.ts";
import type { Log, LogFields } from "../../src/io/log.ts";
import { parseWalKey } from "../../src/layout/keys.ts";
import { walkSegment } from "../../src/postgres/wal-record.ts";
import type { ByteSource } from "../../src/io/bytes.ts";
import type { PutOptions, Storage } from "../../src/storage/storage.ts";
import { MemoryStorage } from "../support/memory-storage.ts";
import { type Cluster, type Major, startCluster } from "../support/postgres.ts";
import { scratchDirectory } from "../support/scratch-directory.ts";
import { until } from "../support/until.ts";
import { listen } from "../support/listening.ts";

export interface LogLine {
  readonly level: "debug" | "info" | "warning" | "error";
  readonly text: string;
  readonly fields: LogFields;
}

export interface Receiver extends AsyncDisposable {
  readonly lines: readonly LogLine[];
  /** How it ended by itself; rejects when it does. */
  readonly ended: Promise<never>;
  /** Waits for a log line. */
  said(pattern: RegExp): Promise<LogLine>;
  count(pattern: RegExp): number;
  stop(): Promise<void>;
}

/** Starts to receive from the server on a port of 127.0.0.1. */
export function startReceiver(
  storage: Storage,
  options: Partial<ReceiveOptions> & { readonly port: number; readonly cacheDirectory: string },
): Receiver {
  const stop = new AbortController();
  const lines: LogLine[] = [];
  const note =
    (level: LogLine["level"]): Log["info"] =>
    (text, fields = {}) =>
      void lines.push({ level, text, fields });
  const { port, ...changes } = options;
  const ended = receiveWal(storage, {
    settings: { host: "127.0.0.1", port, user: "postgres", applicationName: "walnut" },
    slot: "walg",
    isSynchronous: false,
    partialIntervalMs: 300,
    partialBytes: undefined,
    codec: codecOf("zstd"),
    codecJobs: 2,
    timeoutMs: 20_000,
    log: {
      debug: note("debug"),
      info: note("info"),
      warning: note("warning"),
      error: note("error"),
    },
    clock: systemClock,
    signal: stop.signal,
    ...changes,
  });
  ended.catch(() => {});
  const end = async (): Promise<void> => {
    stop.abort(new Error("the test is over"));
    await ended.catch(() => {});
  };
  return {
    lines,
    ended,
    said: (pattern) =>
      until(
        `a log line ${pattern}`,
        () => lines.find(({ text }) => pattern.test(text)),
        () => JSON.stringify(lines),
      ),
    count: (pattern) => lines.filter(({ text }) => pattern.test(text)).length,
    stop: end,
    [Symbol.asyncDispose]: end,
  };
}

export interface Receiving extends AsyncDisposable {
  readonly storage: ReceivingStorage;
  readonly receiver: Receiver;
}

/** Receives from a server into an empty storage; resolves when it has begun. */
export async function startReceiving(
  { port }: Pick<Cluster, "port">,
  options: Partial<ReceiveOptions> = {},
): Promise<Receiving> {
  const scratch = scratchDirectory();
  const storage = new ReceivingStorage();
  const receiver = startReceiver(storage, { cacheDirectory: scratch.path, ...options, port });
  const end = async (): Promise<void> => {
    await receiver[Symbol.asyncDispose]();
    scratch[Symbol.dispose]();
  };
  try {
    await receiver.said(/^receiving WAL$/);
  } catch (error) {
    await end();
    throw error;
  }
  return { storage, receiver, [Symbol.asyncDispose]: end };
}

/**
 * A storage that can be away, and that no test may lose anything in: a `.partial` never shrinks,
 * and nothing else is ever written twice.
 */
export class ReceivingStorage extends MemoryStorage {
  isAway = false;
  readonly broken: string[] = [];
  readonly puts: string[] = [];
  readonly #ends = new Map<string, number>();
  readonly #uploading = new Set<string>();
  #holding: { readonly pattern: RegExp; readonly over: Promise<void> } | undefined;

  get isUploading(): boolean {
    return this.#uploading.size > 0;
  }

  /** Uploads under such keys wait until the returned function is called. */
  hold(pattern = /./): () => void {
    const { promise, resolve } = Promise.withResolvers<void>();
    this.#holding = { pattern, over: promise };
    return () => {
      this.#holding = undefined;
      resolve();
    };
  }

  override async put(key: string, body: ByteSource, options: PutOptions): Promise<void> {
    this.#requireThere();
    // One that ends late would put an older content in the place of a newer one.
    if (this.#uploading.has(key)) this.broken.push(`${key} twice at a time`);
    this.#uploading.add(key);
    try {
      if (this.#holding?.pattern.test(key) === true) await this.#holding.over;
      const bytes = await readAll(body.open());
      this.#requireThere();
      await super.put(key, bytesSource(bytes), options);
    } finally {
      this.#uploading.delete(key);
    }
    this.puts.push(key);
    await this.#check(key);
  }

  override list(...parameters: Parameters<MemoryStorage["list"]>) {
    this.#requireThere();
    return super.list(...parameters);
  }

  override get(...parameters: Parameters<MemoryStorage["get"]>) {
    this.#requireThere();
    return super.get(...parameters);
  }

  override async delete(...parameters: Parameters<MemoryStorage["delete"]>): Promise<void> {
    this.#requireThere();
    for (const key of parameters[0]) {
      const name = parseWalKey(key)?.name ?? "";
      const isElsewhere = this.names.filter((one) => one === name).length > 1;
      const isComplete = this.names.includes(name.slice(0, 24));
      if (!isElsewhere && !isComplete) this.broken.push(`${key} went before its segment came`);
    }
    await super.delete(...parameters);
  }

  /** The content of a stored WAL file, in whatever compression. */
  async content(name: string): Promise<Buffer | undefined> {
    const key = this.keys.find((one) => parseWalKey(one)?.name === name);
    const bytes = key === undefined ? undefined : this.bytesOf(key);
    const codec = codecByExtension(parseWalKey(key ?? "")?.extension ?? "");
    if (bytes === undefined || codec === undefined) return undefined;
    const { signal } = new AbortController();
    return await readAll(codec.decompress(bytesSource(bytes).open(), { jobs: 1, signal }));
  }

  /** Names of the WAL files, in order. */
  get names(): string[] {
    return this.keys.flatMap((key) => parseWalKey(key)?.name ?? []);
  }

  #requireThere(): void {
    if (this.isAway) throw new StorageError("the store is away", { isRetryable: true });
  }

  async #check(key: string): Promise<void> {
    const name = parseWalKey(key)?.name ?? "";
    if (!name.endsWith(".partial")) {
      if (this.puts.filter((one) => one === key).length > 1) this.broken.push(`${key} twice`);
      return;
    }
    const content = (await this.content(name)) ?? Buffer.alloc(0);
    const { endOfRecords } = walkSegment(content, { name });
    const before = this.#ends.get(name) ?? 0;
    if (endOfRecords < before) this.broken.push(`${key} shrank from ${before} to ${endOfRecords}`);
    this.#ends.set(name, endOfRecords);
  }
}

/** A port that leads to another one, as an address does that moves at a failover. */
export class Switchboard implements AsyncDisposable {
  port = 0;
  readonly #server;
  readonly #sockets = new Set<Socket>();
  #target: number;

  static async open(target: number): Promise<Switchboard> {
    const board = new Switchboard(target);
    board.port = await listen(board.#server);
    return board;
  }

  private constructor(target: number) {
    this.#target = target;
    this.#server = createServer((socket) => {
      const other = connect(this.#target, "127.0.0.1");
      for (const one of [socket, other]) {
        this.#sockets.add(one);
        one.on("error", () => {});
        one.on("close", () => {
          this.#sockets.delete(one);
          socket.destroy();
          other.destroy();
        });
      }
      socket.pipe(other).pipe(socket);
    });
  }

  /** New connections go elsewhere; those that are open end. */
  switchTo(target: number): void {
    this.#target = target;
    for (const socket of this.#sockets) socket.destroy();
  }

  async [Symbol.asyncDispose](): Promise<void> {
    this.switchTo(0);
    this.#server.close();
    await once(this.#server, "close");
  }
}

/** Whether all that the server has was confirmed. */
export const FLUSHED = "SELECT flush_lsn = pg_current_wal_flush_lsn() FROM pg_stat_replication";
/** What the slot keeps. */
export const RESTART = "SELECT restart_lsn FROM pg_replication_slots WHERE slot_name = 'walg'";

/** A server with segments of 1 MiB. */
export function start(
  major: Major,
  settings: Readonly<Record<string, string>> = {},
): Promise<Cluster> {
  return startCluster({
    major,
    segmentMiB: 1,
    settings: {
      wal_level: "replica",
      autovacuum: "off",
      wal_keep_size: "1GB",
      // We say how far we are every two seconds then.
      wal_sender_timeout: "6s",
      ...settings,
    },
  });
}

/** Resolves when the server has heard from the receiver again: time enough to confirm anything. */
export async function heardAgain(cluster: Cluster): Promise<void> {
  const now = await cluster.value("SELECT clock_timestamp()::text");
  await cluster.waitFor(`SELECT bool_or(reply_time > '${now}') FROM pg_stat_replication`);
}

/** About 700 kB of WAL for each 10,000 rows. */
export async function fill(cluster: Cluster, rows: number): Promise<void> {
  await cluster.query(
    `CREATE TABLE IF NOT EXISTS filled (id int);
     INSERT INTO filled SELECT generate_series(1, ${rows})`,
  );
}

/** Every stored segment is the server's file, and they follow each other. */
export async function checkStored(storage: ReceivingStorage, cluster: Cluster): Promise<string[]> {
  assert.deepEqual(storage.broken, []);
  const segments = storage.names.filter((name) => /^[0-9A-F]{24}$/.test(name));
  for (const [index, name] of segments.entries()) {
    const file = await readFile(join(cluster.dataDirectory, "pg_wal", name));
    assert.ok(file.equals((await storage.content(name)) ?? Buffer.alloc(0)), name);
    const previous = Number.parseInt(segments[index - 1]?.slice(16) ?? "", 16);
    if (index > 0) assert.equal(Number.parseInt(name.slice(16), 16), previous + 1);
  }
  return segments;
}

/** Once the server has noticed that the receiver has gone. */
export async function dropSlot(cluster: Cluster): Promise<void> {
  const sql = "SELECT count(*) FROM pg_replication_slots WHERE active";
  await until("the slot's end", async () => (await cluster.value(sql)) === "0");
  await cluster.query("SELECT pg_drop_replication_slot(slot_name) FROM pg_replication_slots");
}
