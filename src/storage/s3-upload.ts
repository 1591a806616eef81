import { createHash } from "node:crypto";
import {
  AbortMultipartUploadCommand,
  CompleteMultipartUploadCommand,
  CreateMultipartUploadCommand,
  PutObjectCommand,
  UploadPartCommand,
} from "@aws-sdk/client-s3";
import { ObjectExistsError, ObjectNotFoundError, StorageError } from "../errors.ts";
import { headObject } from "./s3-read.ts";
import { readFailure } from "./s3-errors.ts";
import type { S3Transport } from "./s3-transport.ts";
import type { CallOptions, ObjectKey, SendOptions } from "./storage.ts";

interface Conditional extends SendOptions {
  /** Sends If-None-Match, which some stores refuse. */
  readonly ifAbsent: boolean;
}

interface Part {
  readonly partNumber: number;
  readonly etag: string;
}

const CREATE_ONLY = { IfNoneMatch: "*" } as const;
/** Stores that copy the parts together answer late. */
const COMPLETE_PATIENCE = 5;

/** Stores a whole object by one request. */
export async function putObject(
  transport: S3Transport,
  key: ObjectKey,
  body: Uint8Array,
  options: Conditional,
): Promise<void> {
  const condition = options.ifAbsent ? CREATE_ONLY : {};
  const command = new PutObjectCommand({ ...transport.object(key), ...condition, Body: body });
  const { ETag } = await transport.send("put", key, options, (http) =>
    transport.client.send(command, http),
  );
  requireEtag(transport, ETag, "put", key);
}

/** An upload in parts that was begun: the object appears when it is completed. */
export class MultipartUpload {
  readonly #transport: S3Transport;
  readonly #key: ObjectKey;
  readonly #uploadId: string;
  readonly #parts: Part[] = [];
  /** Whether an attempt to complete ended without an answer that tells. */
  #isUnsure = false;

  private constructor(transport: S3Transport, key: ObjectKey, uploadId: string) {
    this.#transport = transport;
    this.#key = key;
    this.#uploadId = uploadId;
  }

  static async create(
    transport: S3Transport,
    key: ObjectKey,
    options: CallOptions,
  ): Promise<MultipartUpload> {
    const verb = "begin the upload of";
    const command = new CreateMultipartUploadCommand(transport.object(key));
    const { UploadId } = await transport.send(verb, key, options, (http) =>
      transport.client.send(command, http),
    );
    if (UploadId === undefined) throw transport.unclear(verb, key, "an upload id");
    return new MultipartUpload(transport, key, UploadId);
  }

  async uploadPart(partNumber: number, body: Uint8Array, options: SendOptions): Promise<void> {
    const transport = this.#transport;
    const verb = `upload part ${partNumber} of`;
    const part = { PartNumber: partNumber, Body: body };
    const command = new UploadPartCommand({ ...this.#target(), ...part });
    const { ETag } = await transport.send(verb, this.#key, options, (http) =>
      transport.client.send(command, http),
    );
    this.#parts.push({ partNumber, etag: requireEtag(transport, ETag, verb, this.#key) });
  }

  /** Makes the object of the parts. May be repeated after a failure. */
  async complete(options: Conditional): Promise<void> {
    const transport = this.#transport;
    const verb = "complete the upload of";
    const parts = this.#parts.toSorted((left, right) => left.partNumber - right.partNumber);
    const command = new CompleteMultipartUploadCommand({
      ...this.#target(),
      ...(options.ifAbsent ? CREATE_ONLY : {}),
      MultipartUpload: {
        Parts: parts.map(({ partNumber, etag }) => ({ PartNumber: partNumber, ETag: etag })),
      },
    });
    try {
      const call = { ...options, patience: COMPLETE_PATIENCE };
      const { ETag } = await transport.send(verb, this.#key, call, (http) =>
        transport.client.send(command, http),
      );
      requireEtag(transport, ETag, verb, this.#key);
    } catch (error) {
      const isGone = error instanceof StorageError && codeOf(error) === "NoSuchUpload";
      if (isGone && this.#isUnsure) return await this.#requireCompleted(parts, error, options);
      if (error instanceof StorageError && error.isRetryable) this.#isUnsure = true;
      throw error;
    }
  }

  /**
   * Takes the parts away; after a failure of this they stay, and cost, until the store expires
   * them.
   */
  async abort(options: CallOptions): Promise<void> {
    const command = new AbortMultipartUploadCommand(this.#target());
    await this.#transport.send("abort the upload of", this.#key, options, (http) =>
      this.#transport.client.send(command, http),
    );
  }

  #target(): { Bucket: string; Key: string; UploadId: string } {
    return { ...this.#transport.object(this.#key), UploadId: this.#uploadId };
  }

  /** The upload is gone and we do not know by whom: an attempt of ours may have completed it. */
  async #requireCompleted(
    parts: readonly Part[],
    gone: StorageError,
    options: Conditional,
  ): Promise<void> {
    try {
      const { etag } = await headObject(this.#transport, this.#key, options);
      if (etag === completedEtag(parts)) return;
    } catch (error) {
      if (error instanceof ObjectNotFoundError) throw gone;
      throw error;
    }
    if (!options.ifAbsent) throw gone;
    throw new ObjectExistsError(this.#key, this.#transport.name, { cause: gone });
  }
}

/** The ETag that S3 gives an object made of parts: the MD5 of their MD5s, and how many. */
function completedEtag(parts: readonly Part[]): string {
  const hash = createHash("md5");
  for (const { etag } of parts) hash.update(Buffer.from(etag.replaceAll('"', ""), "hex"));
  return `"${hash.digest("hex")}-${parts.length}"`;
}

function codeOf(error: StorageError): string | undefined {
  return readFailure(error.cause)?.code;
}

function requireEtag(
  transport: S3Transport,
  etag: string | undefined,
  verb: string,
  key: ObjectKey,
): string {
  if (etag === undefined || etag === "") throw transport.unclear(verb, key, "an ETag");
  return etag;
}
