import { Readable } from "node:stream";
import { GetObjectCommand, HeadObjectCommand } from "@aws-sdk/client-s3";
import type { GetObjectCommandOutput } from "@aws-sdk/client-s3";
import { ObjectNotFoundError, StorageError } from "../errors.ts";
import type { ByteStream } from "../io/bytes.ts";
import {
  HELD_BYTES_MAX,
  OBJECT_MARKS,
  formatRange,
  isOfObject,
  md5Sum,
  readBody,
  totalBytes,
  versionByEtag,
} from "./http-read.ts";
import type { BodySum, OpenedBody } from "./http-read.ts";
import { sumOfEtag } from "./object-sum.ts";
import { isUnsatisfiableRange, readFailure, s3Error } from "./s3-errors.ts";
import type { S3Transport } from "./s3-transport.ts";
import type { CallOptions, GetOptions, ObjectInfo, ObjectKey } from "./storage.ts";

/** An object without its bytes. */
export interface S3Head extends ObjectInfo {
  readonly etag: string | undefined;
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
    if (!isOfObject({ etag: ETag, "last-modified": LastModified })) {
      throw transport.unclear("stat", key, OBJECT_MARKS);
    }
    const modifiedAt = LastModified ?? new Date(0);
    return { key, sizeBytes: ContentLength, modifiedAt, etag: ETag };
  } catch (error) {
    if (!(error instanceof StorageError) || readFailure(error.cause)?.status !== 404) throw error;
    const { isPathStyle } = transport;
    await requireBucket(transport, key, options);
    // The first answer was another server's, or for another bucket.
    if (transport.isPathStyle !== isPathStyle) return await headObject(transport, key, options);
    throw new ObjectNotFoundError(key, transport.name, { cause: error });
  }
}

/** The bytes of an object, counted against what the answer promised. */
export function readObject(
  transport: S3Transport,
  key: ObjectKey,
  options: GetOptions,
): ByteStream {
  const source = {
    name: transport.name,
    open: (call: GetOptions) => openObject(transport, key, call),
    head: async (call: CallOptions) => versionByEtag(await headObject(transport, key, call)),
    bodyError: (error: unknown) => s3Error(error, { verb: "get", key, storage: transport.name }),
  };
  return readBody(source, key, options);
}

/** Undefined if the range begins at the object's end or behind it. */
async function openObject(
  transport: S3Transport,
  key: ObjectKey,
  options: GetOptions,
): Promise<OpenedBody | undefined> {
  const wanted = formatRange(options.range);
  const command = new GetObjectCommand({
    ...transport.object(key),
    ...(wanted === undefined ? {} : { Range: wanted }),
  });
  try {
    const answer = await transport.send("get", key, options, (http) =>
      transport.client.send(command, http),
    );
    const { Body, ContentLength: bodyBytes, ContentRange, ETag: version, LastModified } = answer;
    const body = Body instanceof Readable ? Body : undefined;
    const sizeBytes = totalBytes(options.range, ContentRange, bodyBytes);
    const isObject = isOfObject({ etag: version, "last-modified": LastModified });
    if (isObject && sizeBytes !== undefined) {
      const sum = wanted === undefined ? smallSum(transport, answer) : undefined;
      return { sizeBytes, version, bodyBytes, body, sum };
    }
    body?.destroy();
    const missing = isObject ? `the length of ${wanted ?? "the object"}` : OBJECT_MARKS;
    throw transport.unclear("get", key, missing);
  } catch (error) {
    if (error instanceof StorageError && isUnsatisfiableRange(error.cause)) return undefined;
    throw error;
  }
}

/** Of an object that was put whole, if it is small: hashing would slow large ones down. */
function smallSum(
  transport: S3Transport,
  { ETag, ContentLength = Infinity }: GetObjectCommandOutput,
): BodySum | undefined {
  const [kind, md5] = sumOfEtag(ETag)?.split(":") ?? [];
  if (kind !== "md5" || md5 === undefined || !transport.areEtagsSums) return undefined;
  if (ContentLength > HELD_BYTES_MAX) return undefined;
  const onRefuted = () => {
    transport.areEtagsSums = false;
  };
  return { ...md5Sum(md5, "hex"), onRefuted };
}

/** The answer to HEAD has no code: only GET tells a missing object from a missing bucket. */
async function requireBucket(
  transport: S3Transport,
  key: ObjectKey,
  options: CallOptions,
): Promise<void> {
  if (transport.isBucketSeen) return;
  try {
    const range = { start: 0, end: 1 };
    (await openObject(transport, key, { ...options, range }))?.body?.destroy();
  } catch (error) {
    if (!(error instanceof ObjectNotFoundError)) throw error;
  }
}
