import { randomBytes } from "node:crypto";
import { ObjectExistsError, ObjectNotFoundError, StorageError } from "../errors.ts";
import { headBlob } from "./azure-read.ts";
import type { AzureTransport } from "./azure-transport.ts";
import { partBytes } from "./part-buffers.ts";
import type { PartLimits, PartTarget, PartedObject } from "./parted-put.ts";
import { requireAbsent } from "./presence.ts";
import type { Repeat } from "./repeat.ts";
import { httpFailure } from "./request-errors.ts";
import type { CallOptions, ObjectKey, PutOptions, SendOptions } from "./storage.ts";
import { decodeXmlText } from "./xml-text.ts";

/** What all puts of one store share. */
export interface AzurePutContext {
  readonly transport: AzureTransport;
  readonly repeat: Repeat;
  /** Length of blocks, and up to which an object is one request. */
  readonly maxPartBytes: number;
}

const MIB = 1024 * 1024;
const MAX_BLOCK_COUNT = 50_000;
/** Also what a put has when the memory for all puts is taken; 50,000 that grow hold 16 TiB. */
const MIN_BLOCK_BYTES = MIB;
const MAX_BLOCK_BYTES = 4000 * MIB;
/** Blocks of one length, before the length doubles. */
const BLOCKS_PER_SIZE = 4000;
/** Stores that put many blocks together answer late. */
const COMMIT_PATIENCE = 5;

/** Blocks as Azure takes them. */
export function azurePartLimits(
  {
    transport,
    maxPartBytes,
  }: {
    readonly transport: Pick<AzureTransport, "name">;
    readonly maxPartBytes: number;
  },
  key: string,
): PartLimits {
  return {
    wantedBytes: maxPartBytes,
    minBytes: MIN_BLOCK_BYTES,
    maxCount: MAX_BLOCK_COUNT,
    lengthOf: (partNumber, firstBytes) =>
      partBytes(partNumber, firstBytes, {
        partsPerSize: BLOCKS_PER_SIZE,
        maxBytes: MAX_BLOCK_BYTES,
      }),
    tooLong: () =>
      new StorageError(
        `object ${key} is too long for ${transport.name}: ` +
          `it needs more than ${MAX_BLOCK_COUNT} blocks`,
        { isRetryable: false, hint: "Raise AZURE_BUFFER_SIZE." },
      ),
  };
}

/** The requests of one put to Azure. */
export class AzurePut implements PartTarget {
  readonly #context: AzurePutContext;
  readonly #key: ObjectKey;
  readonly #ifAbsent: boolean;

  constructor(context: AzurePutContext, key: ObjectKey, options: PutOptions) {
    this.#context = context;
    this.#key = key;
    this.#ifAbsent = options.ifAbsent === true;
  }

  async putWhole(body: Uint8Array, options: SendOptions): Promise<void> {
    const { transport } = this.#context;
    const call = {
      verb: "put",
      key: this.#key,
      method: "PUT",
      blob: this.#key,
      headers: { ...this.#creation(), "x-ms-blob-type": "BlockBlob" },
      body,
    } as const;
    await this.#context.repeat(options.signal, async () => {
      const { headers } = await transport.sendForText(call, options);
      if (headers["etag"] === undefined) throw transport.unclear(call, "an ETag");
    });
  }

  async begin({ signal }: CallOptions): Promise<PartedObject> {
    // The condition counts at the end only: this spares the whole upload.
    if (this.#ifAbsent) await this.#context.repeat(signal, () => this.#requireAbsent(signal));
    return new BlockUpload(this.#context, this.#key, this.#creation());
  }

  #creation(): Readonly<Record<string, string>> {
    return {
      "content-type": "application/octet-stream",
      "x-ms-blob-content-type": "application/octet-stream",
      ...(this.#ifAbsent ? { "if-none-match": "*" } : {}),
    };
  }

  async #requireAbsent(signal: AbortSignal): Promise<void> {
    const { transport } = this.#context;
    await requireAbsent(this.#key, transport.name, () =>
      headBlob(transport, this.#key, { signal }),
    );
  }
}

/** Blocks that nobody sees until their list is committed. Azure forgets them after a week. */
class BlockUpload implements PartedObject {
  readonly #context: AzurePutContext;
  readonly #key: ObjectKey;
  readonly #creation: Readonly<Record<string, string>>;
  /** In the blocks' ids: of two uploads under one key, none takes the other's blocks. */
  readonly #nonce = randomBytes(8).toString("hex");
  #count = 0;

  constructor(
    context: AzurePutContext,
    key: ObjectKey,
    creation: Readonly<Record<string, string>>,
  ) {
    this.#context = context;
    this.#key = key;
    this.#creation = creation;
  }

  async sendPart(partNumber: number, body: Uint8Array, options: SendOptions): Promise<void> {
    this.#count = Math.max(this.#count, partNumber);
    const call = {
      verb: `upload block ${partNumber} of`,
      key: this.#key,
      method: "PUT",
      blob: this.#key,
      query: { comp: "block", blockid: this.#blockId(partNumber) },
      body,
    } as const;
    const { transport, repeat } = this.#context;
    await repeat(options.signal, () => transport.sendForText(call, options));
  }

  async complete({ signal }: CallOptions): Promise<void> {
    let isUnsure = false;
    await this.#context.repeat(signal, async () => {
      try {
        await this.#commit(signal);
      } catch (error) {
        if (error instanceof StorageError && error.isRetryable) isUnsure = true;
        else if (isUnsure && (await this.#isCommitted(signal))) return;
        throw await this.#explain(error, signal);
      }
    });
  }

  /** There is no request that takes blocks away; they cost nothing after a week. */
  async abandon(): Promise<void> {}

  async #commit(signal: AbortSignal): Promise<void> {
    const { transport } = this.#context;
    const ids = this.#ids().map((id) => `<Latest>${id}</Latest>`);
    const xml = `<?xml version="1.0" encoding="utf-8"?><BlockList>${ids.join("")}</BlockList>`;
    const call = {
      verb: "complete the upload of",
      key: this.#key,
      method: "PUT",
      blob: this.#key,
      query: { comp: "blocklist" },
      headers: { ...this.#creation, "content-type": "application/xml" },
      body: Buffer.from(xml),
    } as const;
    const { headers } = await transport.sendForText(call, { signal, patience: COMMIT_PATIENCE });
    if (headers["etag"] === undefined) throw transport.unclear(call, "an ETag");
  }

  /** Whether the object is made of our blocks: an attempt whose answer was lost has done it. */
  async #isCommitted(signal: AbortSignal): Promise<boolean> {
    const call = {
      verb: "read the blocks of",
      key: this.#key,
      method: "GET",
      blob: this.#key,
      query: { comp: "blocklist", blocklisttype: "committed" },
    } as const;
    try {
      const { text } = await this.#context.transport.sendForText(call, { signal });
      const found = [...text.matchAll(/<Name>([^<]*)<\/Name>/g)].map(([, id = ""]) => id);
      return found.map(decodeXmlText).join() === this.#ids().join();
    } catch (error) {
      if (error instanceof ObjectNotFoundError) return false;
      throw error;
    }
  }

  /** Whoever stores an object under our key takes our blocks away. */
  async #explain(error: unknown, signal: AbortSignal): Promise<unknown> {
    if (httpFailure(error)?.code !== "InvalidBlockList") return error;
    const { transport } = this.#context;
    if ("if-none-match" in this.#creation) {
      try {
        await headBlob(transport, this.#key, { signal });
        return new ObjectExistsError(this.#key, transport.name, { cause: error });
      } catch (failure) {
        if (!(failure instanceof ObjectNotFoundError)) return failure;
      }
    }
    return new StorageError(
      `cannot complete the upload of ${this.#key} in ${transport.name}: its blocks are gone`,
      {
        isRetryable: false,
        hint: "Another writer stored an object under this key meanwhile. Try again.",
        cause: error,
      },
    );
  }

  #ids(): readonly string[] {
    return Array.from({ length: this.#count }, (_, index) => this.#blockId(index + 1));
  }

  /** All ids of one object must have one length. */
  #blockId(partNumber: number): string {
    return Buffer.from(`${this.#nonce}-${`${partNumber}`.padStart(5, "0")}`).toString("base64");
  }
}
