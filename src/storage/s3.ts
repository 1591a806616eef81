import type { ByteSource, ByteStream } from "../io/bytes.ts";
import { silentLog } from "../io/log.ts";
import type { Log } from "../io/log.ts";
import { CreateOnlyMemory, isOtherServer } from "./create-only.ts";
import type { CreateOnlyProbe } from "./create-only.ts";
import type { HttpStoreOptions } from "./http-store.ts";
import { requireValidKey, requireValidRange } from "./key.ts";
import { sumOfEtag, withSum } from "./object-sum.ts";
import type { S3Config } from "./open.ts";
import { PartBuffers } from "./part-buffers.ts";
import { PartedPut } from "./parted-put.ts";
import type { ListMemory } from "./s3-bulk.ts";
import { createRepeat } from "./repeat.ts";
import type { Repeat } from "./repeat.ts";
import { deleteBatch, deleteObject, listObjects } from "./s3-bulk.ts";
import { openS3Client } from "./s3-client.ts";
import { isNotImplemented } from "./s3-errors.ts";
import { rereadCredentials } from "./s3-credentials.ts";
import { S3Put, s3PartLimits } from "./s3-put.ts";
import type { S3PutContext } from "./s3-put.ts";
import { headObject, readObject } from "./s3-read.ts";
import { S3Transport } from "./s3-transport.ts";
import { s3Upkeep } from "./s3-upkeep.ts";
import { putObject } from "./s3-upload.ts";
import type {
  CallOptions,
  GetOptions,
  ListOptions,
  ObjectInfo,
  ObjectKey,
  PutOptions,
  Storage,
  Upkeep,
} from "./storage.ts";

export interface S3Options extends HttpStoreOptions {
  /** Absent: the store is believed to obey If-None-Match until it refuses it. */
  readonly createOnly?: CreateOnlyProbe | undefined;
  readonly log?: Log | undefined;
  /** Parts of one object that are sent at the same time, as far as the memory for them allows. */
  readonly uploadConcurrency: number;
}

/** For the parts of all puts together; beyond it, each put may have one of the smallest parts. */
const PART_MEMORY_BYTES = 64 * 1024 * 1024;
/** What S3 takes in one request. */
const MAX_BATCH_KEYS = 1000;

/** A whole bucket: `config.prefix` is the caller's matter (PrefixedStorage). */
export async function openS3Storage(config: S3Config, options: S3Options): Promise<Storage> {
  const client = await openS3Client(config, options);
  return new S3Storage(
    new S3Transport(client, {
      ...options,
      bucket: config.bucket,
      endpoint: config.endpoint,
      reread: () => rereadCredentials(client, config),
    }),
    config,
    options,
  );
}

class S3Storage implements Storage {
  readonly name: string;
  readonly upkeep: Upkeep;
  readonly #repeat: Repeat;
  readonly #transport: S3Transport;
  readonly #config: S3Config;
  readonly #puts: S3PutContext;
  readonly #lists: ListMemory;
  /** Set by the first answer that refuses to delete a batch. */
  #areBatchesRefused = false;

  constructor(transport: S3Transport, config: S3Config, options: S3Options) {
    this.name = transport.name;
    this.#transport = transport;
    this.#repeat = createRepeat(options);
    this.#config = config;
    this.#lists = { isVersion1: config.useListObjectsV1 };
    this.upkeep = s3Upkeep(transport, this.#repeat);
    const isDoubted = isOtherServer(config.endpoint, "amazonaws.com");
    this.#puts = {
      ...options,
      repeat: this.#repeat,
      transport,
      buffers: new PartBuffers(PART_MEMORY_BYTES),
      createOnly: new CreateOnlyMemory({
        name: this.name,
        probe: isDoubted ? options.createOnly : undefined,
        clock: options.clock,
        log: options.log ?? silentLog,
        put: (key, body, call) => putObject(transport, key, body, { ...call, ifAbsent: true }),
        isRefusal: isNotImplemented,
      }),
      isCompletionDoubted: isDoubted,
      maxPartBytes: config.maxPartBytes,
    };
  }

  async *get(key: ObjectKey, options: GetOptions): ByteStream {
    if (options.range !== undefined) requireValidRange(options.range);
    for await (const chunk of readObject(this.#transport, key, options)) yield chunk;
  }

  async put(key: ObjectKey, body: ByteSource, options: PutOptions): Promise<void> {
    requireValidKey(key);
    const { buffers, uploadConcurrency: concurrency } = this.#puts;
    const limits = s3PartLimits(this.#puts, key);
    const target = new S3Put(this.#puts, key, options);
    await new PartedPut(target, { buffers, limits, concurrency }, options).run(body);
  }

  async stat(key: ObjectKey, options: CallOptions): Promise<ObjectInfo> {
    const { sizeBytes, modifiedAt, etag } = await headObject(this.#transport, key, options);
    return { key, sizeBytes, modifiedAt, ...withSum(sumOfEtag(etag)) };
  }

  list(prefix: string, options: ListOptions): AsyncIterable<ObjectInfo> {
    return listObjects(this.#transport, prefix, { ...options, lists: this.#lists });
  }

  async delete(keys: readonly ObjectKey[], { signal }: CallOptions): Promise<void> {
    signal.throwIfAborted();
    const batchKeys = Math.min(this.#config.deleteBatchSize, MAX_BATCH_KEYS);
    for (let start = 0; start < keys.length; start += batchKeys) {
      const batch = keys.slice(start, start + batchKeys);
      if (batch.length > 1 && !this.#areBatchesRefused) await this.#deleteBatch(batch, signal);
      else await this.#deleteSingly(batch, signal);
    }
  }

  async [Symbol.asyncDispose](): Promise<void> {
    this.#transport.client.destroy();
  }

  async #deleteBatch(keys: readonly ObjectKey[], signal: AbortSignal): Promise<void> {
    let remaining = keys;
    try {
      await this.#repeat(signal, async () => {
        const result = await deleteBatch(this.#transport, remaining, { signal });
        remaining = result.remaining;
        if (result.error !== undefined) throw result.error;
      });
    } catch (error) {
      if (!isNotImplemented(error)) throw error;
      this.#areBatchesRefused = true;
      await this.#deleteSingly(keys, signal);
    }
  }

  async #deleteSingly(keys: readonly ObjectKey[], signal: AbortSignal): Promise<void> {
    for (const key of keys) {
      await this.#repeat(signal, () => deleteObject(this.#transport, key, { signal }));
    }
  }
}
