import { randomBytes } from "node:crypto";
import { ObjectNotFoundError, StorageAccessError, StorageError } from "../errors.ts";
import { createCrc32c } from "../io/crc32c.ts";
import type { Crc32cSum } from "../io/crc32c.ts";
import type { CreateOnlyMemory } from "./create-only.ts";
import { deleteObject } from "./gcs-delete.ts";
import { parseJson } from "./gcs-errors.ts";
import { type GcsHead, headObject, readHead } from "./gcs-read.ts";
import { UploadSession } from "./gcs-session.ts";
import type { GcsTransport } from "./gcs-transport.ts";
import type { PartLimits, PartTarget, PartedObject } from "./parted-put.ts";
import { requireAbsent } from "./presence.ts";
import type { Repeat } from "./repeat.ts";
import type { CallOptions, ObjectKey, PutOptions, SendOptions } from "./storage.ts";

/** What all puts of one store share. */
export interface GcsPutContext {
  readonly transport: GcsTransport;
  readonly repeat: Repeat;
  /** How the store takes ifGenerationMatch; absent for the put that finds it out. */
  readonly createOnly?: CreateOnlyMemory;
  /** Whether it may pass over the condition of a resumable upload. */
  readonly isResumableDoubted: boolean;
  /** Length of chunks, and up to which an object is one request: a multiple of 256 KiB. */
  readonly chunkBytes: number;
}

/** Chunks that are not the last must be multiples of this. */
export const CHUNK_UNIT_BYTES = 256 * 1024;
/** What a put has when the memory for all puts is taken. */
const MIN_CHUNK_BYTES = 4 * 1024 * 1024;
/** One is sent while the next is read: GCS takes the chunks of an object one after the other. */
export const CHUNKS_AT_ONCE = 2;
/** Taking away what should not be there is tried for so long. */
const ABANDON_TIMEOUT_MS = 5_000;

/** Chunks as GCS takes them: any number, and memory need not grow with the object. */
export function gcsPartLimits({ chunkBytes }: Pick<GcsPutContext, "chunkBytes">): PartLimits {
  return {
    wantedBytes: chunkBytes,
    minBytes: Math.min(chunkBytes, MIN_CHUNK_BYTES),
    maxCount: Number.POSITIVE_INFINITY,
    lengthOf: (_, firstBytes) => firstBytes,
    tooLong: () => new StorageError("no object is too long", { isRetryable: false }),
  };
}

/** The requests of one put to GCS. */
export class GcsPut implements PartTarget {
  readonly #context: GcsPutContext;
  readonly #key: ObjectKey;
  readonly #ifAbsent: boolean;
  readonly #condition: Readonly<Record<string, string>>;

  constructor(context: GcsPutContext, key: ObjectKey, options: PutOptions) {
    this.#context = context;
    this.#key = key;
    this.#ifAbsent = options.ifAbsent === true;
    this.#condition = this.#ifAbsent ? { ifGenerationMatch: "0" } : {};
  }

  /** Its CRC32C goes before the bytes: GCS stores nothing that does not fit it. */
  async putWhole(body: Uint8Array, options: SendOptions): Promise<void> {
    const { transport } = this.#context;
    const { signal } = options;
    const sum = await createCrc32c();
    sum.update(body);
    const crc32c = sum.base64();
    const boundary = `walnut-${randomBytes(12).toString("hex")}`;
    const metadata = JSON.stringify({ name: this.#key, crc32c, contentType: CONTENT_TYPE });
    const call = {
      verb: "put",
      key: this.#key,
      method: "POST",
      path: transport.uploadPath,
      query: { uploadType: "multipart", ...this.#condition },
      headers: { "content-type": `multipart/related; boundary=${boundary}` },
      body: [
        Buffer.from(
          `--${boundary}\r\ncontent-type: application/json; charset=UTF-8\r\n\r\n${metadata}\r\n` +
            `--${boundary}\r\ncontent-type: ${CONTENT_TYPE}\r\n\r\n`,
        ),
        body,
        Buffer.from(`\r\n--${boundary}--\r\n`),
      ],
      isKeyed: true,
    } as const;
    let isUnsure = false;
    const finding = this.#ifAbsent ? await this.#context.createOnly?.find({ signal }) : undefined;
    await this.#context.repeat(signal, async () => {
      try {
        if (finding === "ignored") await this.#requireNoneSeen(signal);
        const head = readHead(await transport.sendForJson(call, options));
        if (head === undefined) throw transport.unclear(call, "an object");
        await confirmStored(this.#context, head, { key: this.#key, crc32c });
      } catch (error) {
        // Where objects are protected, what we did ourselves can't be done again.
        const isRefused = error instanceof StorageAccessError;
        if (isUnsure && isRefused && (await this.#isStored(body.length, crc32c, signal))) return;
        if (error instanceof StorageError && error.isRetryable) isUnsure = true;
        throw error;
      }
    });
  }

  async begin({ signal }: CallOptions): Promise<PartedObject> {
    const { transport, repeat, isResumableDoubted } = this.#context;
    const isLookedFor = this.#ifAbsent && isResumableDoubted;
    const look = async () => {
      if (isLookedFor) await repeat(signal, () => this.#requireNoneSeen(signal));
    };
    await look();
    const call = {
      verb: "begin the upload of",
      key: this.#key,
      method: "POST",
      path: transport.uploadPath,
      query: { uploadType: "resumable", name: this.#key, ...this.#condition },
      headers: {
        "content-type": "application/json; charset=UTF-8",
        "x-upload-content-type": CONTENT_TYPE,
      },
      body: Buffer.from(JSON.stringify({ contentType: CONTENT_TYPE })),
      isKeyed: true,
    } as const;
    const location = await repeat(signal, async () => {
      const { headers } = await transport.sendForText(call, { signal });
      const { location: found } = headers;
      if (found === undefined) throw transport.unclear(call, "a place to send to");
      return new URL(found, "http://localhost");
    });
    const session = new UploadSession(transport, this.#key, location);
    return new ResumableObject(this.#context, session, {
      key: this.#key,
      sum: await createCrc32c(),
      look,
    });
  }

  /** As far as we may look: who has the right to write only is not kept from writing. */
  async #requireNoneSeen(signal: AbortSignal): Promise<void> {
    const { transport } = this.#context;
    try {
      const look = () => headObject(transport, this.#key, { signal });
      await requireAbsent(this.#key, transport.name, look);
    } catch (error) {
      if (!(error instanceof StorageAccessError)) throw error;
    }
  }

  async #isStored(sizeBytes: number, crc32c: string, signal: AbortSignal): Promise<boolean> {
    try {
      const head = await headObject(this.#context.transport, this.#key, { signal });
      return head.sizeBytes === sizeBytes && head.crc32c === crc32c;
    } catch (error) {
      if (error instanceof ObjectNotFoundError) return false;
      throw error;
    }
  }
}

const CONTENT_TYPE = "application/octet-stream";

/** Nothing but the answer tells under which name: no signature covers a request. */
async function confirmStored(
  context: GcsPutContext,
  head: GcsHead,
  { key, crc32c }: { readonly key: ObjectKey; readonly crc32c: string },
): Promise<void> {
  const { transport } = context;
  if (head.key !== key) {
    const isGone = await removeStray(context, head);
    throw new StorageError(
      `object ${key} was stored in ${transport.name} under the name ${JSON.stringify(head.key)}` +
        (isGone ? ", and taken away again" : ""),
      {
        isRetryable: true,
        hint:
          "It was changed on its way: is the line without TLS?" +
          (isGone ? "" : " What has that name may be somebody else's: look before you delete it."),
      },
    );
  }
  if (head.crc32c === "" || head.crc32c === crc32c) return;
  throw new StorageError(
    `object ${key} was stored in ${transport.name} with CRC32C ${head.crc32c} instead of ${crc32c}`,
    { isRetryable: false, hint: "It was changed on its way. Delete it, and store it again." },
  );
}

/**
 * Deletes what was stored just now under a name that nobody asked for; only that generation, so
 * that nobody else's object can be hit where it is the answer that was changed on its way.
 */
async function removeStray(
  { transport, repeat }: GcsPutContext,
  { key, generation }: GcsHead,
): Promise<boolean> {
  if (generation === "") return false;
  const signal = AbortSignal.timeout(ABANDON_TIMEOUT_MS);
  try {
    await repeat(signal, () => deleteObject(transport, key, { signal, generation }));
    return true;
  } catch (error) {
    return error instanceof ObjectNotFoundError;
  }
}

/** An upload whose chunks follow each other; the object appears with the last. */
class ResumableObject implements PartedObject {
  readonly #context: GcsPutContext;
  readonly #session: UploadSession;
  readonly #key: ObjectKey;
  readonly #sum: Crc32cSum;
  /** Rejects if the object is there and must not be replaced. */
  readonly #look: () => Promise<void>;
  /** Of the chunk before: the next is sent after it. */
  #previous: Promise<void> = Promise.resolve();
  /** What is left of the last part: shorter than a chunk may be before the end. */
  #rest: Uint8Array = new Uint8Array();
  #sentBytes = 0;

  constructor(
    context: GcsPutContext,
    session: UploadSession,
    {
      key,
      sum,
      look,
    }: {
      readonly key: ObjectKey;
      readonly sum: Crc32cSum;
      readonly look: () => Promise<void>;
    },
  ) {
    this.#context = context;
    this.#session = session;
    this.#key = key;
    this.#sum = sum;
    this.#look = look;
  }

  async sendPart(_: number, body: Uint8Array, options: SendOptions): Promise<void> {
    const sending = this.#previous.then(() => this.#sendChunk(body, options));
    this.#previous = sending;
    await sending;
  }

  async complete({ signal }: CallOptions): Promise<void> {
    // Sending the chunks took its time since the first look.
    await this.#look();
    const crc32c = this.#sum.base64();
    const totalBytes = this.#sentBytes + this.#rest.length;
    const end = { totalBytes, crc32c };
    const text = await this.#send(this.#rest, { signal }, end);
    const json = parseJson(text ?? "");
    const head = typeof json === "object" && json !== null ? readHead(json) : undefined;
    const { transport } = this.#context;
    if (head === undefined) {
      throw transport.unclear({ verb: "complete the upload of", key: this.#key }, "an object");
    }
    await confirmStored(this.#context, head, { key: this.#key, crc32c });
    if (head.sizeBytes !== totalBytes) {
      throw new StorageError(
        `object ${this.#key} was stored in ${transport.name} with ${head.sizeBytes} bytes ` +
          `instead of ${totalBytes}`,
        { isRetryable: false },
      );
    }
  }

  async abandon(): Promise<void> {
    await this.#previous.catch(() => {});
    await this.#session.cancel({ signal: AbortSignal.timeout(ABANDON_TIMEOUT_MS) }).catch(() => {});
  }

  async #sendChunk(body: Uint8Array, options: SendOptions): Promise<void> {
    this.#sum.update(body);
    const wholeBytes = body.length - (body.length % CHUNK_UNIT_BYTES);
    if (wholeBytes > 0) await this.#send(body.subarray(0, wholeBytes), options);
    // The part's buffer is used for another one once this has ended.
    this.#rest = Uint8Array.from(body.subarray(wholeBytes));
    this.#sentBytes += wholeBytes;
  }

  /** Repeats until all of `bytes` is stored; gives what GCS says of the object at its end. */
  async #send(
    bytes: Uint8Array,
    options: SendOptions,
    end?: { readonly totalBytes: number; readonly crc32c: string },
  ): Promise<string | undefined> {
    const startBytes = this.#sentBytes;
    let storedBytes = startBytes;
    let isUnsure = false;
    return await this.#context.repeat(options.signal, async () => {
      for (;;) {
        if (isUnsure) {
          const state = await this.#session.state(end?.totalBytes, options);
          if (state.text !== undefined) return state.text;
          storedBytes = this.#requireWithin(state.storedBytes, startBytes, bytes.length);
          isUnsure = false;
        }
        const isAll = storedBytes === startBytes + bytes.length;
        if (isAll && end === undefined) return undefined;
        isUnsure = true;
        const piece = bytes.subarray(storedBytes - startBytes);
        const state = await this.#session.send(piece, { startBytes: storedBytes, end }, options);
        isUnsure = false;
        if (state.text !== undefined) return state.text;
        storedBytes = this.#requireWithin(state.storedBytes, startBytes, bytes.length);
        if (end !== undefined && storedBytes === startBytes + bytes.length) {
          throw this.#context.transport.unclear(
            { verb: "complete the upload of", key: this.#key },
            "an object",
          );
        }
      }
    });
  }

  /** GCS may store a part of a chunk only, but never forgets what it said to have. */
  #requireWithin(storedBytes: number, startBytes: number, sizeBytes: number): number {
    if (storedBytes >= startBytes && storedBytes <= startBytes + sizeBytes) return storedBytes;
    throw new StorageError(
      `the upload of ${this.#key} to ${this.#context.transport.name} has ${storedBytes} bytes, ` +
        `but ${startBytes} were acknowledged`,
      { isRetryable: false, hint: "Somebody else writes into the same upload." },
    );
  }
}
