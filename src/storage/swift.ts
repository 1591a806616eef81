import { ObjectNotFoundError } from "../errors.ts";
import type { ByteSource, ByteStream } from "../io/bytes.ts";
import { readCertificates } from "./certificates.ts";
import { deleteSingly } from "./delete-singly.ts";
import type { HttpStoreOptions } from "./http-store.ts";
import { requireValidKey, requireValidRange, temporaryNameParts } from "./key.ts";
import { sumOfEtag, withSum } from "./object-sum.ts";
import { PartBuffers } from "./part-buffers.ts";
import { PartedPut } from "./parted-put.ts";
import { foundOrNothing } from "./presence.ts";
import { createRepeat } from "./repeat.ts";
import type { Repeat } from "./repeat.ts";
import { RestSender } from "./rest-sender.ts";
import type {
  CallOptions,
  GetOptions,
  ListOptions,
  ObjectInfo,
  ObjectKey,
  PutOptions,
  Storage,
  UnfinishedPut,
  Upkeep,
} from "./storage.ts";
import { SwiftAuth } from "./swift-auth.ts";
import type { SwiftConfig } from "./swift-config.ts";
import { SwiftPut, swiftPartLimits } from "./swift-put.ts";
import type { SwiftPutContext } from "./swift-put.ts";
import { headObject, listObjects, readObject } from "./swift-read.ts";
import { SwiftTransport } from "./swift-transport.ts";

export interface SwiftOptions extends HttpStoreOptions {
  /** Segments of one object that are sent at the same time, as far as the memory allows. */
  readonly uploadConcurrency: number;
}

/** For the segments of all puts together; beyond it, each put may have one of the smallest. */
const SEGMENT_MEMORY_BYTES = 64 * 1024 * 1024;

/** A whole container: `config.prefix` is the caller's matter (PrefixedStorage). */
export async function openSwiftStorage(
  config: SwiftConfig,
  options: SwiftOptions,
): Promise<Storage> {
  const { container, caFile } = config;
  const certificates = await readCertificates(caFile, "OS_CACERT");
  const { requestTimeoutMs, clock, proxy, traffic } = options;
  const sender = new RestSender({ requestTimeoutMs, clock, proxy, traffic, certificates });
  const name = `swift://${container}`;
  const auth = new SwiftAuth(config, { sender, clock, requestTimeoutMs, storage: name });
  const transport = new SwiftTransport({ sender, auth, container, name });
  return new SwiftStorage(transport, config, options);
}

/** Objects of a container; large ones are manifests of segments in "<container>_segments". */
class SwiftStorage implements Storage {
  readonly name: string;
  readonly upkeep: Upkeep;
  readonly #repeat: Repeat;
  readonly #transport: SwiftTransport;
  readonly #options: SwiftOptions;
  readonly #puts: SwiftPutContext;
  readonly #buffers = new PartBuffers(SEGMENT_MEMORY_BYTES);

  constructor(transport: SwiftTransport, config: SwiftConfig, options: SwiftOptions) {
    this.name = transport.name;
    this.#transport = transport;
    this.#repeat = createRepeat(options);
    this.#options = options;
    this.#puts = {
      ...options,
      repeat: this.#repeat,
      transport,
      segmentContainer: `${config.container}_segments`,
      segments: { isContainerMade: false },
      maxPartBytes: config.maxPartBytes,
    };
    this.upkeep = {
      listUnfinished: (prefix, call) => this.#listUnfinished(prefix, call),
      removeUnfinished: (put, call) => this.#removeUnfinished(put, call),
    };
  }

  async *get(key: ObjectKey, options: GetOptions): ByteStream {
    if (options.range !== undefined) requireValidRange(options.range);
    for await (const chunk of readObject(this.#transport, key, options)) yield chunk;
  }

  async put(key: ObjectKey, body: ByteSource, options: PutOptions): Promise<void> {
    requireValidKey(key);
    const { signal, ifAbsent } = options;
    signal.throwIfAborted();
    // The segments of an object that is replaced would stay for ever.
    const replaced = ifAbsent === true ? [] : await this.#segmentsOf(key, options);
    const parts = {
      buffers: this.#buffers,
      limits: swiftPartLimits(this.#puts, key),
      concurrency: this.#options.uploadConcurrency,
    };
    await new PartedPut(new SwiftPut(this.#puts, key, options), parts, options).run(body);
    // The object is stored: what fails now is found by who looks for unfinished puts.
    await this.#deletePaths(replaced, { signal }).catch(() => {});
  }

  async stat(key: ObjectKey, options: CallOptions): Promise<ObjectInfo> {
    const head = await headObject(this.#transport, key, options);
    const { sizeBytes, modifiedAt, etag, isLarge } = head;
    return { key, sizeBytes, modifiedAt, ...(isLarge ? {} : withSum(sumOfEtag(etag))) };
  }

  list(prefix: string, options: ListOptions): AsyncIterable<ObjectInfo> {
    return listObjects(this.#transport, prefix, options);
  }

  async delete(keys: readonly ObjectKey[], { signal }: CallOptions): Promise<void> {
    await deleteSingly(keys, { signal }, async (key, call) => {
      const segments = await this.#segmentsOf(key, call);
      // The manifest first: never is there an object without its bytes.
      await this.#repeat(call.signal, async () => {
        const request = { verb: "delete", key, method: "DELETE", object: key } as const;
        await this.#transport.sendForText(request, call);
      });
      await this.#deletePaths(segments, call);
    });
  }

  async [Symbol.asyncDispose](): Promise<void> {
    this.#transport.destroy();
  }

  /** Paths "/container/name" of a large object's segments; none for others and missing ones. */
  async #segmentsOf(key: ObjectKey, { signal }: CallOptions): Promise<readonly string[]> {
    const found = () =>
      foundOrNothing(async () => {
        const { isLarge } = await headObject(this.#transport, key, { signal });
        if (!isLarge) return [];
        const query = { "multipart-manifest": "get" };
        const call = { verb: "read the manifest of", key, method: "GET", object: key } as const;
        const { text } = await this.#transport.sendForText({ ...call, query }, { signal });
        return parseManifest(text);
      });
    return (await this.#repeat(signal, found)) ?? [];
  }

  async #deletePaths(paths: readonly string[], options: CallOptions): Promise<void> {
    await deleteSingly(paths, options, async (path, { signal }) => {
      const [, container = "", ...parts] = path.split("/");
      const object = parts.join("/");
      const call = { verb: "delete", key: object, method: "DELETE", container, object } as const;
      await this.#repeat(signal, () => this.#transport.sendForText(call, { signal }));
    });
  }

  async *#listUnfinished(prefix: string, options: CallOptions): AsyncIterable<UnfinishedPut> {
    let last = "";
    for await (const { key: segment } of this.#listSegments(prefix, options)) {
      const folder = segment.slice(0, segment.lastIndexOf("/"));
      if (folder === last) continue;
      last = folder;
      const parts = temporaryNameParts(folder);
      if (parts === undefined || !parts.name.startsWith(prefix)) continue;
      if (await this.#isUsed(parts.name, folder, options)) continue;
      yield { key: parts.name, id: folder, startedAt: parts.startedAt };
    }
  }

  async #removeUnfinished({ key, id }: UnfinishedPut, options: CallOptions): Promise<void> {
    if (temporaryNameParts(id)?.name !== key) throw new RangeError(`no unfinished put: ${id}`);
    if (await this.#isUsed(key, id, options)) return;
    const paths: string[] = [];
    for await (const { key: segment } of this.#listSegments(`${id}/`, options)) {
      paths.push(`/${this.#puts.segmentContainer}/${segment}`);
    }
    await this.#deletePaths(paths, options);
  }

  /** Their names hold what no key may: listed as they are. */
  async *#listSegments(prefix: string, options: CallOptions): AsyncIterable<ObjectInfo> {
    const container = this.#puts.segmentContainer;
    try {
      yield* listObjects(this.#transport, prefix, { ...options, container });
    } catch (error) {
      if (!(error instanceof ObjectNotFoundError)) throw error;
    }
  }

  async #isUsed(key: ObjectKey, folder: string, options: CallOptions): Promise<boolean> {
    const start = `/${this.#puts.segmentContainer}/${folder}/`;
    return (await this.#segmentsOf(key, options)).some((path) => path.startsWith(start));
  }
}

function parseManifest(text: string): string[] {
  try {
    const segments: unknown = JSON.parse(text);
    return Array.isArray(segments) ? segments.flatMap(segmentPath) : [];
  } catch {
    // A dynamic large object, which is not ours: it has no list of its segments.
    return [];
  }
}

function segmentPath(segment: unknown): string[] {
  if (typeof segment !== "object" || segment === null) return [];
  const name: unknown = Reflect.get(segment, "name");
  return typeof name === "string" ? [name] : [];
}
