import { Readable } from "node:stream";
import { GetObjectCommand, HeadObjectCommand } from "@aws-sdk/client-s3";
import { ObjectNotFoundError, StorageError } from "../errors.ts";
import type { ByteStream } from "../io/bytes.ts";
import { changedWhileRead } from "./request-errors.ts";
import { isUnsatisfiableRange, readFailure, s3Error } from "./s3-errors.ts";
import type { S3Transport } from "./s3-transport.ts";
import type { ByteRange, CallOptions, GetOptions, ObjectInfo, ObjectKey } from "./storage.ts";

/** An object without its bytes. */
export interface S3Head extends ObjectInfo {
  readonly etag: string | undefined;
}

interface S3Body {
  /** Of the whole object. */
  readonly sizeBytes: number;
  readonly etag: string | undefined;
  /** What the answer promises; undefined if it does not say. */
  readonly bodyBytes: number | undefined;
  readonly body: unknown;
}

/** Size, time and ETag of an object; rejects with ObjectNotFoundError only if the bucket exists. */
export async function headObject(
  transport: S3Transport,
  key: ObjectKey,
  options: CallOptions,
): Promise<S3Head> {
  const command = new HeadObjectCommand(transport.object(key));
  try {
    const { ContentLength, LastModified, ETag } = await transport.send(
      "stat",
      key,
      options,
      (http) => transport.client.send(command, http),
    );
    if (ContentLength === undefined) throw transport.unclear("stat", key, "a length");
    const modifiedAt = LastModified ?? new Date(0);
    return { key, sizeBytes: ContentLength, modifiedAt, etag: ETag };
  } catch (error) {
    if (!(error instanceof StorageError) || readFailure(error.cause)?.status !== 404) throw error;
    await requireBucket(transport, key, options);
    throw new ObjectNotFoundError(key, transport.name, { cause: error });
  }
}

/** The bytes of an object, counted against what the answer promised. */
export async function* readObject(
  transport: S3Transport,
  key: ObjectKey,
  options: GetOptions,
): ByteStream {
  const { range, onOpened, ifVersion, signal } = options;
  const isEmptyRange = range !== undefined && range.end === range.start;
  const opened = isEmptyRange ? undefined : await openObject(transport, key, options);
  const { sizeBytes, etag } = opened ?? (await headObject(transport, key, options));
  if (ifVersion !== undefined && ifVersion !== etag) {
    destroy(opened?.body);
    throw changedWhileRead(key, transport.name);
  }
  onOpened?.({ sizeBytes, ...(etag === undefined ? {} : { version: etag }) });
  if (opened === undefined) return;

  let receivedBytes = 0;
  try {
    for await (const chunk of chunksOf(opened.body)) {
      receivedBytes += chunk.length;
      yield chunk;
    }
  } catch (error) {
    signal.throwIfAborted();
    throw s3Error(error, { verb: "get", key, storage: transport.name });
  }
  signal.throwIfAborted();
  const { bodyBytes = receivedBytes } = opened;
  if (receivedBytes !== bodyBytes) {
    throw new StorageError(
      `cannot get ${key} in ${transport.name}: ${receivedBytes} of ${bodyBytes} bytes arrived`,
      { isRetryable: true },
    );
  }
}

/** Undefined if the range begins at the object's end or behind it. */
async function openObject(
  transport: S3Transport,
  key: ObjectKey,
  options: GetOptions,
): Promise<S3Body | undefined> {
  const wanted = formatRange(options.range);
  const command = new GetObjectCommand({
    ...transport.object(key),
    ...(wanted === undefined ? {} : { Range: wanted }),
  });
  try {
    const answer = await transport.send("get", key, options, (http) =>
      transport.client.send(command, http),
    );
    const { Body: body, ContentLength: bodyBytes, ContentRange, ETag: etag } = answer;
    const sizeBytes = wanted === undefined ? bodyBytes : totalBytes(options.range, ContentRange);
    if (sizeBytes !== undefined) return { sizeBytes, etag, bodyBytes, body };
    destroy(body);
    throw transport.unclear("get", key, `the length of ${wanted ?? "the object"}`);
  } catch (error) {
    if (error instanceof StorageError && isUnsatisfiableRange(error.cause)) return undefined;
    throw error;
  }
}

/** The answer to HEAD has no code: only GET tells a missing object from a missing bucket. */
async function requireBucket(
  transport: S3Transport,
  key: ObjectKey,
  options: CallOptions,
): Promise<void> {
  if (transport.isBucketSeen) return;
  try {
    destroy((await openObject(transport, key, { ...options, range: { start: 0, end: 1 } }))?.body);
  } catch (error) {
    if (!(error instanceof ObjectNotFoundError)) throw error;
  }
}

function formatRange(range: ByteRange | undefined): string | undefined {
  if (range === undefined || (range.start === 0 && range.end === undefined)) return undefined;
  return `bytes=${range.start}-${range.end === undefined ? "" : range.end - 1}`;
}

/** Undefined if the answer is for another range, or for none: some servers ignore the header. */
function totalBytes(range: ByteRange | undefined, contentRange = ""): number | undefined {
  const [, start, total] = /^bytes (\d+)-\d+\/(\d+)$/.exec(contentRange) ?? [];
  return total === undefined || Number(start) !== range?.start ? undefined : Number(total);
}

async function* chunksOf(body: unknown): ByteStream {
  if (!(body instanceof Readable)) return;
  for await (const chunk of body) {
    if (chunk instanceof Uint8Array) yield chunk;
  }
}

function destroy(body: unknown): void {
  if (body instanceof Readable) body.destroy();
}
