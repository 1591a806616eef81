import { StorageAccessError, StorageError } from "../errors.ts";
import type { CreateOnlyMemory } from "./create-only.ts";
import { MIN_PART_BYTES, partBytes } from "./part-buffers.ts";
import type { PartBuffers } from "./part-buffers.ts";
import type { PartLimits, PartTarget, PartedObject } from "./parted-put.ts";
import { requireAbsent } from "./presence.ts";
import type { Repeat } from "./repeat.ts";
import { isNotImplemented } from "./s3-errors.ts";
import { headObject } from "./s3-read.ts";
import type { S3Transport } from "./s3-transport.ts";
import { MultipartUpload, putObject } from "./s3-upload.ts";
import type { CallOptions, ObjectKey, PutOptions, SendOptions } from "./storage.ts";

/** What all puts of one store share. */
export interface S3PutContext {
  readonly transport: S3Transport;
  readonly buffers: PartBuffers;
  /** How the store takes If-None-Match. */
  readonly createOnly: CreateOnlyMemory;
  /** Whether it may check the condition for single requests only. */
  readonly isCompletionDoubted: boolean;
  /** Length of parts, and up to which an object is one request. */
  readonly maxPartBytes: number;
  readonly uploadConcurrency: number;
  readonly repeat: Repeat;
}

const MAX_PART_COUNT = 10_000;
/** Taking away the parts of a failed upload is tried for so long. */
const ABORT_TIMEOUT_MS = 5_000;

/** Parts as S3 takes them. */
export function s3PartLimits({ transport, maxPartBytes }: S3PutContext, key: string): PartLimits {
  return {
    wantedBytes: maxPartBytes,
    minBytes: MIN_PART_BYTES,
    maxCount: MAX_PART_COUNT,
    lengthOf: partBytes,
    tooLong: () =>
      new StorageError(
        `object ${key} is too long for ${transport.name}: ` +
          `it needs more than ${MAX_PART_COUNT} parts`,
        { isRetryable: false, hint: "Raise S3_MAX_PART_SIZE." },
      ),
  };
}

/** The requests of one put to S3. */
export class S3Put implements PartTarget {
  readonly #context: S3PutContext;
  readonly #key: ObjectKey;
  readonly #ifAbsent: boolean;

  constructor(context: S3PutContext, key: ObjectKey, options: PutOptions) {
    this.#context = context;
    this.#key = key;
    this.#ifAbsent = options.ifAbsent === true;
  }

  async putWhole(body: Uint8Array, options: SendOptions): Promise<void> {
    const { transport } = this.#context;
    await this.#create(options.signal, ({ ifAbsent }) =>
      putObject(transport, this.#key, body, { ...options, ifAbsent }),
    );
  }

  async begin({ signal }: CallOptions): Promise<PartedObject> {
    const { transport } = this.#context;
    // Some stores check the condition for single requests only; and this spares the whole upload.
    if (this.#ifAbsent) await this.#context.repeat(signal, () => this.#requireAbsent(signal));
    const upload = await this.#context.repeat(signal, () =>
      MultipartUpload.create(transport, this.#key, { signal }),
    );
    return {
      sendPart: (partNumber, body, options) =>
        this.#context.repeat(options.signal, () => upload.uploadPart(partNumber, body, options)),
      complete: (options) => this.#complete(upload, options),
      abandon: () =>
        upload.abort({ signal: AbortSignal.timeout(ABORT_TIMEOUT_MS) }).catch(() => {}),
    };
  }

  async #complete(upload: MultipartUpload, { signal }: CallOptions): Promise<void> {
    const { repeat, isCompletionDoubted } = this.#context;
    // Sending the parts took its time since the first look.
    if (this.#ifAbsent && isCompletionDoubted) {
      await repeat(signal, () => this.#requireAbsent(signal));
    }
    await this.#create(signal, ({ ifAbsent }) => upload.complete({ signal, ifAbsent }));
  }

  async #create(
    signal: AbortSignal,
    write: (options: { readonly ifAbsent: boolean }) => Promise<void>,
  ): Promise<void> {
    await this.#context.repeat(signal, () => this.#createOnce(signal, write));
  }

  /** `write` with the condition, where the store knows it; else after a look. */
  async #createOnce(
    signal: AbortSignal,
    write: (options: { readonly ifAbsent: boolean }) => Promise<void>,
  ): Promise<void> {
    if (!this.#ifAbsent) return await write({ ifAbsent: false });
    const { createOnly } = this.#context;
    const finding = await createOnly.find({ signal });
    if (finding !== "refused") {
      if (finding === "ignored") await this.#requireNoneSeen(signal);
      try {
        return await write({ ifAbsent: true });
      } catch (error) {
        if (!isNotImplemented(error)) throw error;
        await createOnly.noteRefusal();
      }
    }
    await this.#requireAbsent(signal);
    await write({ ifAbsent: false });
  }

  /** As far as we may look: who has the right to write only is not kept from writing. */
  async #requireNoneSeen(signal: AbortSignal): Promise<void> {
    try {
      await this.#requireAbsent(signal);
    } catch (error) {
      if (!(error instanceof StorageAccessError)) throw error;
    }
  }

  async #requireAbsent(signal: AbortSignal): Promise<void> {
    const { transport } = this.#context;
    await requireAbsent(this.#key, transport.name, () =>
      headObject(transport, this.#key, { signal }),
    );
  }
}
