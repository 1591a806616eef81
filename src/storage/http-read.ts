import { createHash } from "node:crypto";
import type { Readable } from "node:stream";
import { StorageError } from "../errors.ts";
import type { ByteStream } from "../io/bytes.ts";
import { changedWhileRead } from "./request-errors.ts";
import type { RestResponse } from "./rest-sender.ts";
import type { ByteRange, CallOptions, GetOptions, ObjectKey } from "./storage.ts";

/** What is told of an object with or without its bytes. */
export interface VersionedObject {
  /** Of the whole object. */
  readonly sizeBytes: number;
  readonly version: string | undefined;
}

/** For stores whose ETag is another one whenever the object is written again. */
export function versionByEtag({
  sizeBytes,
  etag,
}: {
  readonly sizeBytes: number;
  readonly etag: string | undefined;
}): VersionedObject {
  return { sizeBytes, version: etag };
}

/**
 * What the answer to a HEAD tells of an object. Throws what `unclear` makes of one that lacks a
 * length, or is of something else than an object.
 */
export function headFacts(
  headers: RestResponse["headers"],
  unclear: (missing: string) => StorageError,
): { readonly sizeBytes: number; readonly modifiedAt: Date } {
  const sizeBytes = Number(headers["content-length"] ?? Number.NaN);
  if (Number.isNaN(sizeBytes)) throw unclear("a length");
  if (!isOfObject(headers)) throw unclear(OBJECT_MARKS);
  return { sizeBytes, modifiedAt: new Date(headers["last-modified"] ?? 0) };
}

/** An object whose bytes begin to come. */
export interface OpenedBody extends VersionedObject {
  /** What the answer promises; undefined if it does not say. */
  readonly bodyBytes: number | undefined;
  /** Undefined for an answer without one. */
  readonly body: Readable | undefined;
  /** Of the whole object, if that is what comes and the store knows its sum. */
  readonly sum?: BodySum | undefined;
}

/** A sum that the bytes of a body must have. */
export interface BodySum {
  /** "MD5", for messages. */
  readonly name: string;
  /**
   * Told when other bytes came twice the same: what the store tells is no sum then, and they are
   * right. Absent where the store says that it is the sum.
   */
  readonly onRefuted?: () => void;
  update(chunk: Uint8Array): void;
  /** To be asked once, after all bytes. */
  isRight(): boolean;
}

/** How a store is asked for one object. */
export interface BodySource {
  /** Of the storage, for messages. */
  readonly name: string;
  /** Undefined if the range begins at the object's end or behind it. */
  open(options: GetOptions): Promise<OpenedBody | undefined>;
  head(options: CallOptions): Promise<VersionedObject>;
  /** Our error for a body that broke. */
  bodyError(error: unknown): unknown;
}

/** An object of this size is held back until its sum is right, and asked for again where it is not. */
export const HELD_BYTES_MAX = 1024 * 1024;
/** As often, and the line is too bad for one call. */
const READS_MAX = 4;

/**
 * The bytes of an object, counted against what the answer promised, and checked by their sum. A
 * small one, such as the documents of a repository, gives no byte that is not checked.
 */
export async function* readBody(
  source: BodySource,
  key: ObjectKey,
  options: GetOptions,
): ByteStream {
  const seen = new Set<string>();
  for (let reads = 1; ; reads++) {
    const { range, onOpened, ifVersion } = options;
    const isEmptyRange = range !== undefined && range.end === range.start;
    const opened = isEmptyRange ? undefined : await source.open(options);
    const { sizeBytes, version } = opened ?? (await source.head(options));
    if (ifVersion !== undefined && ifVersion !== version) {
      opened?.body?.destroy();
      throw changedWhileRead(key, source.name);
    }
    const told = { sizeBytes, ...(version === undefined ? {} : { version }) };
    if (opened?.sum === undefined || (opened.bodyBytes ?? Infinity) > HELD_BYTES_MAX) {
      onOpened?.(told);
      if (opened !== undefined) yield* checkedBody(source, key, opened, options);
      return;
    }
    const bytes = await readSummed(source, key, { opened, seen }, options);
    if (bytes !== undefined) {
      onOpened?.(told);
      if (bytes.length > 0) yield bytes;
      return;
    }
    if (reads === READS_MAX) {
      throw new StorageError(`object ${key} in ${source.name} came back changed ${reads} times`, {
        isRetryable: true,
        hint: "The way to the store changes bytes: use https, and look at proxies and memory.",
      });
    }
  }
}

/**
 * All bytes, undefined if they are not those of the sum. Rejects with StorageError if they have
 * come like this before: then they are so in the store. `seen` holds what has.
 */
async function readSummed(
  source: BodySource,
  key: ObjectKey,
  { opened, seen }: { readonly opened: OpenedBody; readonly seen: Set<string> },
  options: CallOptions,
): Promise<Uint8Array | undefined> {
  const { sum, ...unsummed } = opened;
  const chunks = await Array.fromAsync(checkedBody(source, key, unsummed, options));
  const bytes = Buffer.concat(chunks);
  sum?.update(bytes);
  if (sum === undefined || sum.isRight()) return bytes;
  const hash = createHash("md5").update(bytes).digest("hex");
  if (!seen.has(hash)) {
    seen.add(hash);
    return undefined;
  }
  if (sum.onRefuted === undefined) throw wrongSum(source, key, sum);
  sum.onRefuted();
  return bytes;
}

function wrongSum(source: BodySource, key: ObjectKey, sum: BodySum): StorageError {
  return new StorageError(`object ${key} in ${source.name} does not have its ${sum.name} sum`, {
    isRetryable: false,
    hint: "It was changed in the store or on its way: try again, then check it in the store.",
  });
}

async function* checkedBody(
  source: BodySource,
  key: ObjectKey,
  { body, bodyBytes, sum }: OpenedBody,
  { signal }: CallOptions,
): ByteStream {
  let receivedBytes = 0;
  try {
    for await (const chunk of body ?? []) {
      if (!(chunk instanceof Uint8Array)) continue;
      receivedBytes += chunk.length;
      sum?.update(chunk);
      yield chunk;
    }
  } catch (error) {
    signal.throwIfAborted();
    throw source.bodyError(error);
  }
  signal.throwIfAborted();
  if (bodyBytes !== undefined && receivedBytes !== bodyBytes) {
    throw new StorageError(
      `cannot get ${key} in ${source.name}: ${receivedBytes} of ${bodyBytes} bytes arrived`,
      { isRetryable: true },
    );
  }
  if (sum?.isRight() === false) throw wrongSum(source, key, sum);
}

/** The MD5 sum that a store tells of an object. */
export function md5Sum(expected: string, encoding: "base64" | "hex"): BodySum {
  const hash = createHash("md5");
  return {
    name: "MD5",
    update: (chunk) => void hash.update(chunk),
    isRight: () => hash.digest(encoding) === expected,
  };
}

/** The header that asks for a range; undefined where the whole object is wanted. */
export function formatRange(range: ByteRange | undefined): string | undefined {
  if (range === undefined || (range.start === 0 && range.end === undefined)) return undefined;
  return `bytes=${range.start}-${range.end === undefined ? "" : range.end - 1}`;
}

/**
 * Length of the whole object by the answer's Content-Range, or by its Content-Length where no range
 * was asked for. Undefined if the answer does not tell, or is for another range, or for none: some
 * servers ignore the header.
 */
export function totalBytes(
  range: ByteRange | undefined,
  contentRange: string | undefined,
  bodyBytes: number | undefined,
): number | undefined {
  if (formatRange(range) === undefined) return bodyBytes;
  const [, start, total] = /^bytes (\d+)-\d+\/(\d+)$/.exec(contentRange ?? "") ?? [];
  return total === undefined || Number(start) !== range?.start ? undefined : Number(total);
}

/** What `isOfObject` looks for, in words for messages. */
export const OBJECT_MARKS = "an ETag or a time";

/**
 * Whether an answer that says 200 is for an object, by its headers: the text of an error or a login
 * page has none of these, and would else be an object's content, or prove that there is one.
 */
export function isOfObject(headers: Readonly<Record<string, unknown>>): boolean {
  const marks = ["etag", "last-modified", "x-goog-generation"];
  return marks.some((mark) => headers[mark] !== undefined);
}

/** The body of an answer with its lengths. Throws `unclear` of what the answer does not tell. */
export function openedBody(
  { headers, body }: RestResponse,
  range: ByteRange | undefined,
  unclear: (missing: string) => StorageError,
): { readonly sizeBytes: number; readonly bodyBytes: number; readonly body: Readable } {
  const bodyBytes = Number(headers["content-length"] ?? Number.NaN);
  const sizeBytes = totalBytes(range, headers["content-range"], bodyBytes);
  const isObject = isOfObject(headers);
  if (isObject && sizeBytes !== undefined && !Number.isNaN(bodyBytes)) {
    return { sizeBytes, bodyBytes, body };
  }
  body.destroy();
  throw unclear(isObject ? `the length of ${formatRange(range) ?? "the object"}` : OBJECT_MARKS);
}
