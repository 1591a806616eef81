import { rootCertificates } from "node:tls";
import { StorageError } from "../errors.ts";
import type { ByteSource, ByteStream } from "../io/bytes.ts";
import { SasAuth, SharedKeyAuth } from "./azure-auth.ts";
import type { AzureAuth } from "./azure-auth.ts";
import type { AzureConfig } from "./azure-config.ts";
import { listBlobs } from "./azure-list.ts";
import { AzurePut, azurePartLimits } from "./azure-put.ts";
import type { AzurePutContext } from "./azure-put.ts";
import { headBlob, readBlob } from "./azure-read.ts";
import { AzureTransport } from "./azure-transport.ts";
import { readCertificates } from "./certificates.ts";
import { deleteSingly } from "./delete-singly.ts";
import type { HttpStoreOptions } from "./http-store.ts";
import { requireValidKey, requireValidRange } from "./key.ts";
import { sumOfBase64, withSum } from "./object-sum.ts";
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
import type { TokenSource } from "./token-auth.ts";

export interface AzureOptions extends HttpStoreOptions {
  /** Blocks of one object that are sent at the same time, as far as the memory for them allows. */
  readonly uploadConcurrency: number;
}

/** For the blocks of all puts together; beyond it, each put may have one of the smallest. */
const BLOCK_MEMORY_BYTES = 64 * 1024 * 1024;
const IDENTITY_HINT =
  "Set AZURE_STORAGE_ACCESS_KEY or AZURE_STORAGE_SAS_TOKEN, or give this machine an identity that " +
  'has the role "Storage Blob Data Contributor" on the container.';

/** A whole container: `config.prefix` is the caller's matter (PrefixedStorage). */
export async function openAzureStorage(
  config: AzureConfig,
  options: AzureOptions,
): Promise<Storage> {
  const { endpoint, container } = config;
  const certificates = await readCertificates(config.caFile, "AZURE_CA_CERT_FILE");
  const { requestTimeoutMs, clock, proxy, traffic } = options;
  const sender = new RestSender({ requestTimeoutMs, clock, proxy, traffic, certificates });
  const auth = await openAuth(config, certificates, options);
  const transport = new AzureTransport({ sender, auth, endpoint, container });
  return new AzureStorage(transport, config, options);
}

async function openAuth(
  config: AzureConfig,
  certificates: string | undefined,
  options: AzureOptions,
): Promise<AzureAuth> {
  const { account, accessKey, sasToken, rereadSasToken: reread } = config;
  const { clock, requestTimeoutMs: timeoutMs } = options;
  if (accessKey !== undefined) return new SharedKeyAuth(account, accessKey, clock);
  const token = sasToken ?? (await reread?.());
  if (token !== undefined) return new SasAuth(token, { reread, clock });

  const storage = `azure://${config.endpoint.replace(/^\w+:\/\//, "")}/${config.container}`;
  let source: TokenSource | undefined;
  const cache = new TokenCache(
    async (call) => {
      // It takes longer to load than a push with a key takes in all.
      const { azureTokens } = await import("./azure-identity.ts");
      source ??= azureTokens(identitySender(certificates, options), config.authorityHost);
      return await source(call);
    },
    { clock, timeoutMs, storage, hint: IDENTITY_HINT },
  );
  return {
    async authorize(request, call) {
      const authorization = `Bearer ${await cache.get(call)}`;
      return { ...request, headers: { ...request.headers, authorization } };
    },
    renew: async () => cache.forget(),
    refusalHint: () => undefined,
  };
}

/** Microsoft's own servers give tokens even where the store's certificate is of our making. */
function identitySender(certificates: string | undefined, options: AzureOptions): RestSender {
  const all = certificates === undefined ? undefined : [...rootCertificates, certificates];
  return new RestSender({ ...options, traffic: undefined, certificates: all?.join("\n") });
}

class AzureStorage implements Storage {
  readonly name: string;
  readonly upkeep: Upkeep;
  readonly #repeat: Repeat;
  readonly #transport: AzureTransport;
  readonly #puts: AzurePutContext;
  readonly #buffers = new PartBuffers(BLOCK_MEMORY_BYTES);
  readonly #concurrency: number;

  constructor(transport: AzureTransport, config: AzureConfig, options: AzureOptions) {
    this.name = transport.name;
    this.#transport = transport;
    this.#repeat = createRepeat(options);
    this.#concurrency = config.maxBuffers ?? options.uploadConcurrency;
    this.#puts = { repeat: this.#repeat, transport, maxPartBytes: config.bufferBytes };
    this.upkeep = {
      // Blocks without a list end by themselves, and no request takes them away.
      async *listUnfinished() {},
      async removeUnfinished() {},
      readHold: (key, call) => this.#repeat(call.signal, () => readHold(transport, key, call)),
      heldDelete: (call) => this.#repeat(call.signal, () => heldDelete(transport, call)),
    };
  }

  async *get(key: ObjectKey, options: GetOptions): ByteStream {
    if (options.range !== undefined) requireValidRange(options.range);
    for await (const chunk of readBlob(this.#transport, key, options)) yield chunk;
  }

  async put(key: ObjectKey, body: ByteSource, options: PutOptions): Promise<void> {
    requireValidKey(key);
    if (key.includes("\\")) {
      throw new StorageError(
        `object key ${JSON.stringify(key)} is refused: Azure takes \\ for /, so it is another key`,
        { isRetryable: false },
      );
    }
    const parts = {
      buffers: this.#buffers,
      limits: azurePartLimits(this.#puts, key),
      concurrency: this.#concurrency,
    };
    await new PartedPut(new AzurePut(this.#puts, key, options), parts, options).run(body);
  }

  async stat(key: ObjectKey, options: CallOptions): Promise<ObjectInfo> {
    const { sizeBytes, modifiedAt, headers } = await headBlob(this.#transport, key, options);
    const sum = sumOfBase64("md5", headers["content-md5"]);
    return { key, sizeBytes, modifiedAt, ...withSum(sum) };
  }

  list(prefix: string, options: ListOptions): AsyncIterable<ObjectInfo> {
    return listBlobs(this.#transport, prefix, options);
  }

  async delete(keys: readonly ObjectKey[], { signal }: CallOptions): Promise<void> {
    await deleteSingly(keys, { signal }, (key, call) =>
      this.#repeat(call.signal, async () => {
        await this.#transport.sendForText(
          {
            verb: "delete",
            key,
            method: "DELETE",
            blob: key,
            headers: { "x-ms-delete-snapshots": "include" },
          },
          call,
        );
      }),
    );
  }

  async [Symbol.asyncDispose](): Promise<void> {
    this.#transport.destroy();
  }
}

/** By the container's headers. With policies for versions, a delete leaves one behind. */
async function heldDelete(
  transport: AzureTransport,
  options: CallOptions,
): Promise<HeldDelete | undefined> {
  const query = { restype: "container" };
  const call = { verb: "ask for locks of", key: "", method: "HEAD", query } as const;
  try {
    const { headers } = await transport.sendForText(call, options);
    if (headers["x-ms-immutable-storage-with-versioning-enabled"] === "true") return "hidden";
    const marks = ["x-ms-has-immutability-policy", "x-ms-has-legal-hold"];
    if (marks.some((name) => headers[name] === "true")) return "refused";
    return marks.every((name) => headers[name] === "false") ? "none" : undefined;
  } catch (error) {
    if (isUntold(error)) return undefined;
    throw error;
  }
}

async function readHold(
  transport: AzureTransport,
  key: ObjectKey,
  options: CallOptions,
): Promise<ObjectHold | undefined> {
  const head = await foundOrNothing(() => headBlob(transport, key, options));
  if (head === undefined) return undefined;
  const isLegalHold = head.headers["x-ms-legal-hold"] === "true";
  return toHold(isLegalHold, head.headers["x-ms-immutability-policy-until-date"]);
}
