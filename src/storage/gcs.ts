import type { ByteSource, ByteStream } from "../io/bytes.ts";
import { silentLog } from "../io/log.ts";
import type { Log } from "../io/log.ts";
import { CreateOnlyMemory, isOtherServer } from "./create-only.ts";
import type { CreateOnlyProbe } from "./create-only.ts";
import { deleteSingly } from "./delete-singly.ts";
import type { GcsConfig } from "./gcs-config.ts";
import { googleTokens } from "./gcs-credentials.ts";
import { deleteObject } from "./gcs-delete.ts";
import { property } from "./gcs-errors.ts";
import { listObjects } from "./gcs-list.ts";
import { CHUNKS_AT_ONCE, CHUNK_UNIT_BYTES, GcsPut, gcsPartLimits } from "./gcs-put.ts";
import type { GcsPutContext } from "./gcs-put.ts";
import { headObject, readObject } from "./gcs-read.ts";
import { GcsTransport } from "./gcs-transport.ts";
import type { HttpStoreOptions } from "./http-store.ts";
import { requireValidKey, requireValidRange } from "./key.ts";
import { withSum } from "./object-sum.ts";
import { PartBuffers } from "./part-buffers.ts";
import { PartedPut } from "./parted-put.ts";
import { foundOrNothing, isUntold, toHold } from "./presence.ts";
import { createRepeat } from "./repeat.ts";
import type { Repeat } from "./repeat.ts";
import { RestSender } from "./rest-sender.ts";
import type {
  CallOptions,
  GetOptions,
  HeldDelete,
  ListOptions,
  ObjectHold,
  ObjectInfo,
  ObjectKey,
  PutOptions,
  Storage,
  Upkeep,
} from "./storage.ts";
import { TokenCache } from "./token-auth.ts";

export interface GcsOptions extends HttpStoreOptions {
  /** Absent: the store is believed to obey ifGenerationMatch. */
  readonly createOnly?: CreateOnlyProbe | undefined;
  readonly log?: Log | undefined;
}

/** For the chunks of all puts together; beyond it, each put may have one of the smallest. */
const CHUNK_MEMORY_BYTES = 64 * 1024 * 1024;
const CREDENTIALS_HINT =
  "Set GOOGLE_APPLICATION_CREDENTIALS to a file of credentials, or give this machine a service account.";

/** A whole bucket: `config.prefix` is the caller's matter (PrefixedStorage). */
export async function openGcsStorage(config: GcsConfig, options: GcsOptions): Promise<Storage> {
  const { endpoint, bucket, encryptionKey } = config;
  const { requestTimeoutMs, clock, proxy, traffic } = options;
  const sender = new RestSender({ requestTimeoutMs, clock, proxy, traffic });
  const tokens = config.isAnonymous
    ? undefined
    : new TokenCache(googleTokens(config, { sender, clock }), {
        clock,
        timeoutMs: requestTimeoutMs,
        storage: `gs://${bucket}`,
        hint: CREDENTIALS_HINT,
      });
  const transport = new GcsTransport({ sender, tokens, endpoint, bucket, encryptionKey });
  return new GcsStorage(transport, config, options);
}

class GcsStorage implements Storage {
  readonly name: string;
  readonly upkeep: Upkeep;
  readonly #repeat: Repeat;
  readonly #transport: GcsTransport;
  readonly #puts: GcsPutContext;
  readonly #buffers = new PartBuffers(CHUNK_MEMORY_BYTES);

  constructor(transport: GcsTransport, config: GcsConfig, options: GcsOptions) {
    this.name = transport.name;
    this.#transport = transport;
    this.#repeat = createRepeat(options);
    const units = Math.max(Math.floor(config.chunkBytes / CHUNK_UNIT_BYTES), 1);
    const isResumableDoubted = isOtherServer(config.endpoint, "googleapis.com");
    const chunkBytes = units * CHUNK_UNIT_BYTES;
    const once = { repeat: runOnce, transport, chunkBytes, isResumableDoubted };
    const createOnly = new CreateOnlyMemory({
      name: this.name,
      probe: isResumableDoubted ? options.createOnly : undefined,
      clock: options.clock,
      log: options.log ?? silentLog,
      put: async (key, body, call) =>
        await new GcsPut(once, key, { ...call, ifAbsent: true }).putWhole(body, call),
      isRefusal: () => false,
    });
    this.#puts = { ...once, repeat: this.#repeat, createOnly };
    this.upkeep = {
      // Uploads that nobody completed end by themselves, and cost nothing.
      async *listUnfinished() {},
      async removeUnfinished() {},
      readHold: (key, call) => this.#repeat(call.signal, () => readHold(transport, key, call)),
      heldDelete: (call) => this.#repeat(call.signal, () => heldDelete(transport, call)),
      keepsVersions: (call) => this.#repeat(call.signal, () => keepsVersions(transport, call)),
    };
  }

  async *get(key: ObjectKey, options: GetOptions): ByteStream {
    if (options.range !== undefined) requireValidRange(options.range);
    for await (const chunk of readObject(this.#transport, key, options)) yield chunk;
  }

  async put(key: ObjectKey, body: ByteSource, options: PutOptions): Promise<void> {
    requireValidKey(key);
    const parts = {
      buffers: this.#buffers,
      limits: gcsPartLimits(this.#puts),
      concurrency: CHUNKS_AT_ONCE,
    };
    await new PartedPut(new GcsPut(this.#puts, key, options), parts, options).run(body);
  }

  async stat(key: ObjectKey, options: CallOptions): Promise<ObjectInfo> {
    const { sizeBytes, modifiedAt, sum } = await headObject(this.#transport, key, options);
    return { key, sizeBytes, modifiedAt, ...withSum(sum) };
  }

  list(prefix: string, options: ListOptions): AsyncIterable<ObjectInfo> {
    return listObjects(this.#transport, prefix, options);
  }

  async delete(keys: readonly ObjectKey[], { signal }: CallOptions): Promise<void> {
    await deleteSingly(keys, { signal }, (key, call) =>
      this.#repeat(call.signal, () => deleteObject(this.#transport, key, call)),
    );
  }

  async [Symbol.asyncDispose](): Promise<void> {
    this.#transport.destroy();
  }
}

const runOnce: Repeat = async (_, work) => await work();

async function keepsVersions(
  transport: GcsTransport,
  options: CallOptions,
): Promise<boolean | undefined> {
  const path = transport.objectsPath.replace(/\/o$/, "");
  const query = { fields: "versioning" };
  const call = { verb: "ask for versions of", key: "", method: "GET", path, query } as const;
  try {
    const bucket = await transport.sendForJson(call, options);
    return property(property(bucket, "versioning"), "enabled") === true;
  } catch (error) {
    if (isUntold(error)) return undefined;
    throw error;
  }
}

/** An object of any bucket may be held. */
async function heldDelete(
  transport: GcsTransport,
  options: CallOptions,
): Promise<HeldDelete | undefined> {
  const isVersioned = await keepsVersions(transport, options);
  if (isVersioned === undefined) return undefined;
  return isVersioned ? "hidden" : "refused";
}

async function readHold(
  transport: GcsTransport,
  key: ObjectKey,
  options: CallOptions,
): Promise<ObjectHold | undefined> {
  const head = await foundOrNothing(() => headObject(transport, key, options));
  if (head === undefined) return undefined;
  const { json } = head;
  const isLegalHold =
    property(json, "temporaryHold") === true || property(json, "eventBasedHold") === true;
  const until =
    property(property(json, "retention"), "retainUntilTime") ??
    property(json, "retentionExpirationTime");
  return toHold(isLegalHold, typeof until === "string" ? until : undefined);
}
