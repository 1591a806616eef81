import { createHash } from "node:crypto";
import { ObjectExistsError, ObjectNotFoundError, StorageError } from "../errors.ts";
import type { Clock } from "../io/clock.ts";
import { randomHex } from "../io/random.ts";
import { deleteSingly } from "./delete-singly.ts";
import { formatTemporaryName } from "./key.ts";
import { partBytes } from "./part-buffers.ts";
import type { PartLimits, PartTarget, PartedObject } from "./parted-put.ts";
import { requireAbsent } from "./presence.ts";
import type { Repeat } from "./repeat.ts";
import type { CallOptions, ObjectKey, PutOptions, SendOptions } from "./storage.ts";
import { headObject } from "./swift-read.ts";
import { md5, plainEtag } from "./swift-transport.ts";
import type { SwiftTransport } from "./swift-transport.ts";

/** What all puts of one store share. */
export interface SwiftPutContext {
  readonly clock: Clock;
  readonly transport: SwiftTransport;
  readonly repeat: Repeat;
  /** Holds the segments of large objects; made with the first. */
  readonly segmentContainer: string;
  readonly segments: { isContainerMade: boolean };
  /** Length of segments, and up to which an object is one request. */
  readonly maxPartBytes: number;
}

const MIB = 1024 * 1024;
/** What Swift takes in a manifest unless its operators say otherwise. */
const MAX_SEGMENT_COUNT = 1000;
/** Segments of one length, before the length doubles: so 1,000 hold some 3 TiB. */
const SEGMENTS_PER_SIZE = 50;
/** Removing the segments of a failed put is tried for so long. */
const ABANDON_TIMEOUT_MS = 5_000;
/** The manifest is answered when every segment was looked at. */
const COMPLETE_PATIENCE = 5;

/** Segments as Swift takes them. */
export function swiftPartLimits(
  { transport, maxPartBytes }: Pick<SwiftPutContext, "transport" | "maxPartBytes">,
  key: string,
): PartLimits {
  return {
    wantedBytes: maxPartBytes,
    minBytes: 5 * MIB,
    maxCount: MAX_SEGMENT_COUNT,
    lengthOf: (partNumber, firstBytes) =>
      partBytes(partNumber, firstBytes, { partsPerSize: SEGMENTS_PER_SIZE }),
    tooLong: () =>
      new StorageError(
        `object ${key} is too long for ${transport.name}: ` +
          `it needs more than ${MAX_SEGMENT_COUNT} segments`,
        { isRetryable: false, hint: "Raise WALNUT_SWIFT_MAX_PART_SIZE." },
      ),
  };
}

/** The requests of one put to Swift. */
export class SwiftPut implements PartTarget {
  readonly #context: SwiftPutContext;
  readonly #key: ObjectKey;
  readonly #ifAbsent: boolean;

  constructor(context: SwiftPutContext, key: ObjectKey, options: PutOptions) {
    this.#context = context;
    this.#key = key;
    this.#ifAbsent = options.ifAbsent === true;
  }

  async putWhole(body: Uint8Array, options: SendOptions): Promise<void> {
    const etag = md5(body);
    const headers = creation(this.#ifAbsent);
    await this.#context.repeat(options.signal, () =>
      putChecked(this.#context.transport, this.#key, body, { ...options, headers, etag }),
    );
  }

  async begin(options: CallOptions): Promise<PartedObject> {
    const { transport, segments, segmentContainer: container } = this.#context;
    if (this.#ifAbsent)
      await this.#context.repeat(options.signal, () => this.#requireAbsent(options));
    if (!segments.isContainerMade) {
      const call = { verb: "make", key: container, method: "PUT", container } as const;
      await this.#context.repeat(options.signal, () => transport.sendForText(call, options));
      segments.isContainerMade = true;
    }
    return new SegmentedUpload(this.#context, this.#key, this.#ifAbsent);
  }

  async #requireAbsent(options: CallOptions): Promise<void> {
    const { transport } = this.#context;
    await requireAbsent(this.#key, transport.name, () => headObject(transport, this.#key, options));
  }
}

/** Segments in a container of their own; the object appears with the manifest that names them. */
class SegmentedUpload implements PartedObject {
  readonly #context: SwiftPutContext;
  readonly #key: ObjectKey;
  readonly #ifAbsent: boolean;
  /** Tells when and for what the segments were made, for who finds them without a manifest. */
  readonly #folder: string;
  readonly #segments = new Map<number, { path: string; etag: string; size_bytes: number }>();

  constructor(context: SwiftPutContext, key: ObjectKey, ifAbsent: boolean) {
    this.#context = context;
    this.#key = key;
    this.#ifAbsent = ifAbsent;
    this.#folder = formatTemporaryName(key, context.clock.now(), randomHex(8));
  }

  async sendPart(partNumber: number, body: Uint8Array, options: SendOptions): Promise<void> {
    const { transport, segmentContainer: container } = this.#context;
    const name = `${this.#folder}/${`${partNumber}`.padStart(8, "0")}`;
    const etag = md5(body);
    const headers = creation(false);
    await this.#context.repeat(options.signal, () =>
      putChecked(transport, name, body, { ...options, container, headers, etag }),
    );
    const path = `/${container}/${name}`;
    this.#segments.set(partNumber, { path, etag, size_bytes: body.length });
  }

  async complete(options: CallOptions): Promise<void> {
    const { transport } = this.#context;
    const segments = [...this.#segments].toSorted(([a], [b]) => a - b).map(([, one]) => one);
    const sums = createHash("md5");
    for (const { etag } of segments) sums.update(etag);
    const etag = sums.digest("hex");
    const call = {
      verb: "complete the upload of",
      key: this.#key,
      method: "PUT",
      object: this.#key,
      query: { "multipart-manifest": "put" },
      headers: { ...creation(this.#ifAbsent), "content-type": "application/json" },
      body: Buffer.from(JSON.stringify(segments)),
    } as const;
    let isUnsure = false;
    await this.#context.repeat(options.signal, async () => {
      try {
        const answer = await transport.sendForText(call, {
          ...options,
          patience: COMPLETE_PATIENCE,
        });
        if (plainEtag(answer.headers["etag"]) !== etag) throw transport.unclear(call, "its ETag");
      } catch (error) {
        if (error instanceof StorageError && error.isRetryable) isUnsure = true;
        // An attempt whose answer was lost has done it.
        if (isUnsure && error instanceof ObjectExistsError) {
          if ((await headObject(transport, this.#key, options)).etag === etag) return;
        }
        throw error;
      }
    });
  }

  async abandon(): Promise<void> {
    const { transport, segmentContainer: container } = this.#context;
    const names = [...this.#segments.values()].map(({ path }) => path.slice(container.length + 2));
    const options = { signal: AbortSignal.timeout(ABANDON_TIMEOUT_MS) };
    await deleteSingly(names, options, async (object, call) => {
      const request = { verb: "delete", key: object, method: "DELETE", container, object } as const;
      await transport.sendForText(request, call);
    }).catch(() => {});
  }
}

interface CheckedPut extends SendOptions {
  readonly container?: string;
  readonly headers: Readonly<Record<string, string>>;
  /** Of the body. */
  readonly etag: string;
}

/** Stores bytes by one request, which the store refuses unless they arrive as they are. */
async function putChecked(
  transport: SwiftTransport,
  object: string,
  body: Uint8Array,
  { signal, onSent, container, headers, etag }: CheckedPut,
): Promise<void> {
  const call = {
    verb: "put",
    key: object,
    method: "PUT",
    ...(container === undefined ? {} : { container }),
    object,
    headers: { ...headers, etag },
    body,
  } as const;
  try {
    const answer = await transport.sendForText(call, { signal, onSent });
    if (plainEtag(answer.headers["etag"]) !== etag) throw transport.unclear(call, "its ETag");
  } catch (error) {
    if (!(error instanceof ObjectNotFoundError)) throw error;
    await transport.requireContainer({ signal });
    throw new StorageError(`cannot put ${object} in ${transport.name}: the container is gone`, {
      isRetryable: true,
      cause: error,
    });
  }
}

function creation(ifAbsent: boolean): Readonly<Record<string, string>> {
  const type = { "content-type": "application/octet-stream" };
  return ifAbsent ? { ...type, "if-none-match": "*" } : type;
}
