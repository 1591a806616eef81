/** What the tests of push and fetch share: a place on disk, a store that is watched, real WAL. */
import { mkdir, mkdtemp, rm, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { fetchWal, type FetchOptions } from "../../src/archive/fetch.ts";
import { pushWal, type PushOptions, type PushOutcome } from "../../src/archive/push.ts";
import type { CompressionMethod } from "../../src/codec/codec.ts";
import { codecOf } from "../../src/codec/table.ts";
import { bytesSource, readAll } from "../../src/io/bytes.ts";
import { silentLog } from "../../src/io/log.ts";
import { MemoryStorage } from "../support/memory-storage.ts";
import { RecordedStorage } from "./recorded-storage.ts";

export type WritableMethod = Exclude<CompressionMethod, "gzip">;
export const METHODS: readonly WritableMethod[] = ["zstd", "lz4", "none", "brotli", "lzma"];

const { signal } = new AbortController();

export interface Workbench extends AsyncDisposable {
  /** Never aborted. */
  readonly signal: AbortSignal;
  readonly directory: string;
  /** What is really stored. */
  readonly memory: MemoryStorage;
  /** The same, watched. */
  readonly storage: RecordedStorage;
  /** Writes a file below `directory` and gives its path. */
  file(name: string, content: Uint8Array): Promise<string>;
  push(path: string, options?: Partial<PushOptions>): Promise<PushOutcome>;
  fetch(name: string, destination: string, options?: Partial<FetchOptions>): Promise<void>;
  /** Puts an object past the watch. */
  put(key: string, bytes: Uint8Array): Promise<void>;
  compress(method: WritableMethod, content: Uint8Array): Promise<Buffer>;
}

export async function openWorkbench(): Promise<Workbench> {
  const directory = await mkdtemp(join(tmpdir(), "walnut-archive-"));
  const memory = new MemoryStorage();
  const storage = new RecordedStorage(memory);
  const options = {
    codecJobs: 2,
    cacheDirectory: join(directory, "cache"),
    timeoutMs: 240_000,
    log: silentLog,
    signal,
  };
  return {
    signal,
    directory,
    memory,
    storage,
    async file(name, content) {
      const path = join(directory, name);
      await mkdir(join(path, ".."), { recursive: true });
      await writeFile(path, content);
      return path;
    },
    push: (path, changes) =>
      pushWal(
        storage,
        { path, name: path.slice(path.lastIndexOf("/") + 1) },
        { codec: codecOf("zstd"), ...options, ...changes },
      ),
    fetch: (name, destination, changes) =>
      fetchWal(storage, name, destination, { ...options, ...changes }),
    put: (key, bytes) => memory.put(key, bytesSource(bytes), { signal }),
    compress: (method, content) =>
      readAll(codecOf(method).compress(bytesSource(content).open(), { jobs: 2, signal })),
    [Symbol.asyncDispose]: () => rm(directory, { recursive: true, force: true }),
  };
}

/** A copy with one bit turned over. */
export function flipBit(bytes: Uint8Array, at: number, bit = 0): Buffer {
  const copy = Buffer.from(bytes);
  copy.writeUInt8(copy.readUInt8(at) ^ (1 << bit), at);
  return copy;
}
