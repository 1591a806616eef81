import {
  DeleteObjectCommand,
  DeleteObjectsCommand,
  ListObjectsCommand,
  ListObjectsV2Command,
} from "@aws-sdk/client-s3";
import { ObjectNotFoundError, StorageAccessError, StorageError } from "../errors.ts";
import { sumOfEtag, withSum } from "./object-sum.ts";
import { compareKeys } from "./key.ts";
import { failedAction } from "./request-errors.ts";
import { isNotImplemented, isPassingFailure, isRefusal } from "./s3-errors.ts";
import type { S3Transport } from "./s3-transport.ts";
import type { CallOptions, ListOptions, ObjectInfo, ObjectKey } from "./storage.ts";

interface Page {
  readonly objects: readonly ObjectInfo[];
  /** Asks for the page after this one; undefined if this is the last. */
  readonly next: Position | undefined;
}

/** Where a page begins: after a key, or where the store's own token says. */
interface Position {
  readonly startAfter?: ObjectKey | undefined;
  readonly token?: string | undefined;
}

/** What was found out about a store's lists. */
export interface ListMemory {
  /** It lacks ListObjectsV2: set by the first answer that shows it. */
  isVersion1: boolean;
}

/**
 * The objects under a prefix, page by page. Entries whose keys end in "/" are the folders of some
 * user interfaces and no objects.
 */
export async function* listObjects(
  transport: S3Transport,
  prefix: string,
  options: ListOptions & { readonly lists: ListMemory },
): AsyncIterable<ObjectInfo> {
  const { lists, startAfter } = options;
  let last = "";
  let position: Position | undefined = { startAfter: options.startAfter };
  while (position !== undefined) {
    const page: Page | undefined = lists.isVersion1
      ? await readPageV1(transport, prefix, position, options)
      : await readPageV2(transport, prefix, { ...position, last }, options);
    if (page === undefined) {
      lists.isVersion1 = true;
      position = { startAfter: last === "" ? startAfter : last };
      continue;
    }
    const end = page.objects.at(-1)?.key;
    if (page.next !== undefined && isBehind(end, last)) throw listsAgain(transport, prefix, last);
    for (const info of page.objects) {
      options.signal.throwIfAborted();
      last = info.key;
      // Some stores know no start: they list everything, whatever was asked for.
      if (!info.key.endsWith("/") && !isBehind(info.key, startAfter)) yield info;
    }
    position = page.next;
  }
}

function isBehind(key: ObjectKey | undefined, start: ObjectKey | undefined): boolean {
  return key !== undefined && start !== undefined && compareKeys(key, start) <= 0;
}

function listsAgain(transport: S3Transport, prefix: string, last: ObjectKey): StorageError {
  const what = failedAction({ verb: "list", key: prefix, storage: transport.name });
  return new StorageError(`${what}: asked for what follows "${last}", it begins anew`, {
    isRetryable: false,
    hint: "The store lists in pages and gives no way to the next one: such lists can't be used.",
  });
}

/** Undefined if the store does not know this request. */
async function readPageV2(
  transport: S3Transport,
  prefix: string,
  { startAfter, token, last }: Position & { readonly last: ObjectKey },
  options: CallOptions,
): Promise<Page | undefined> {
  const command = new ListObjectsV2Command({
    Bucket: transport.bucket,
    Prefix: prefix,
    ...(startAfter === undefined ? {} : { StartAfter: startAfter }),
    ...(token === undefined ? {} : { ContinuationToken: token }),
  });
  const answer = await orRefused(
    transport.send("list", prefix, options, (http) => transport.client.send(command, http)),
  );
  if (answer === undefined) return undefined;
  const { Contents = [], IsTruncated, NextContinuationToken } = answer;
  // A list always has it; a login page of some proxy, which is no empty bucket, has not.
  if (IsTruncated === undefined) throw transport.unclear("list", prefix, "a list");
  const objects = Contents.map(toInfo);
  // A store that passes over what it does not know answers as to the older request.
  const isStarted = (token ?? startAfter) !== undefined;
  const isStartIgnored = isStarted && isBehind(objects[0]?.key, startAfter ?? last);
  const isTokenMissing = IsTruncated && NextContinuationToken === undefined;
  if (isStartIgnored || isTokenMissing) return undefined;
  return { objects, next: IsTruncated ? { token: NextContinuationToken } : undefined };
}

async function orRefused<T>(answer: Promise<T>): Promise<T | undefined> {
  try {
    return await answer;
  } catch (error) {
    if (isNotImplemented(error)) return undefined;
    throw error;
  }
}

/** The older request, for stores that lack the newer. */
async function readPageV1(
  transport: S3Transport,
  prefix: string,
  { startAfter }: Position,
  options: CallOptions,
): Promise<Page> {
  const command = new ListObjectsCommand({
    Bucket: transport.bucket,
    Prefix: prefix,
    ...(startAfter === undefined ? {} : { Marker: startAfter }),
  });
  const answer = await transport.send("list", prefix, options, (http) =>
    transport.client.send(command, http),
  );
  const { Contents = [], IsTruncated, NextMarker } = answer;
  if (IsTruncated === undefined) throw transport.unclear("list", prefix, "a list");
  const objects = Contents.map(toInfo);
  if (!IsTruncated) return { objects, next: undefined };
  const next = NextMarker ?? objects.at(-1)?.key;
  if (next === undefined) throw transport.unclear("list", prefix, "where the next page begins");
  return { objects, next: { startAfter: next } };
}

function toInfo(entry: {
  readonly Key?: string | undefined;
  readonly Size?: number | undefined;
  readonly LastModified?: Date | undefined;
  readonly ETag?: string | undefined;
}): ObjectInfo {
  const { Key: key = "", Size: sizeBytes = 0, LastModified: modifiedAt = new Date(0) } = entry;
  return { key, sizeBytes, modifiedAt, ...withSum(sumOfEtag(entry.ETag)) };
}

/** Deletes one object; a missing one is no error. */
export async function deleteObject(
  transport: S3Transport,
  key: ObjectKey,
  options: CallOptions,
): Promise<void> {
  const command = new DeleteObjectCommand(transport.object(key));
  try {
    await transport.send("delete", key, options, (http) => transport.client.send(command, http));
  } catch (error) {
    if (!(error instanceof ObjectNotFoundError)) throw error;
  }
}

/** Many stores delete one key after the other and answer at the end. */
const KEYS_PER_PATIENCE = 100;

/** What is left of a batch after one request. */
export interface BatchResult {
  readonly remaining: readonly ObjectKey[];
  /** Of the first of them; undefined if none remain. */
  readonly error: StorageError | StorageAccessError | undefined;
}

/** Deletes at most 1,000 objects by one request, which may succeed for some and fail for others. */
export async function deleteBatch(
  transport: S3Transport,
  keys: readonly ObjectKey[],
  options: CallOptions,
): Promise<BatchResult> {
  const command = new DeleteObjectsCommand({
    Bucket: transport.bucket,
    Delete: { Objects: keys.map((Key) => ({ Key })), Quiet: true },
  });
  const call = { ...options, patience: 1 + keys.length / KEYS_PER_PATIENCE };
  const answer = await transport.send("delete", `${keys.length} objects`, call, (http) =>
    transport.client.send(command, http),
  );
  const failures = (answer.Errors ?? []).filter(({ Code }) => Code !== "NoSuchKey");
  const [first] = failures;
  if (first === undefined) return { remaining: [], error: undefined };

  const remaining = failures.map(({ Key = "" }) => Key);
  const { Key = "", Code: code = "no code", Message = "" } = first;
  const others = remaining.length === 1 ? "" : ` and ${remaining.length - 1} other objects`;
  const message =
    `cannot delete ${Key}${others} in ${transport.name}: ${code} ${Message}`.trimEnd();
  if (isRefusal(code)) return { remaining, error: new StorageAccessError(message) };
  const isRetryable = failures.every(({ Code = "" }) => isPassingFailure({ code: Code }));
  return { remaining, error: new StorageError(message, { isRetryable }) };
}
