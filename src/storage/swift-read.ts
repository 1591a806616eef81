import { createHash } from "node:crypto";
import { ObjectNotFoundError, StorageError } from "../errors.ts";
import type { ByteStream } from "../io/bytes.ts";
import { isValidKey } from "./key.ts";
import { changedWhileRead, httpFailure } from "./request-errors.ts";
import type { RestResponse } from "./rest-sender.ts";
import type {
  ByteRange,
  CallOptions,
  GetOptions,
  ListOptions,
  ObjectInfo,
  ObjectKey,
} from "./storage.ts";
import { plainEtag } from "./swift-transport.ts";
import type { SwiftTransport } from "./swift-transport.ts";

/** An object without its bytes. */
export interface SwiftHead extends ObjectInfo {
  readonly etag: string | undefined;
  /** Made of segments, which are objects themselves. */
  readonly isLarge: boolean;
}

/** Size, time and ETag of an object; rejects with ObjectNotFoundError only if the container exists. */
export async function headObject(
  transport: SwiftTransport,
  key: ObjectKey,
  options: CallOptions,
): Promise<SwiftHead> {
  const call = { verb: "stat", key, method: "HEAD", object: key } as const;
  const { headers } = await found(transport, options, () => transport.sendForText(call, options));
  const sizeBytes = Number(headers["content-length"] ?? Number.NaN);
  if (Number.isNaN(sizeBytes)) throw transport.unclear(call, "a length");
  const modifiedAt = new Date(headers["last-modified"] ?? 0);
  return {
    key,
    sizeBytes,
    modifiedAt,
    etag: plainEtag(headers["etag"]),
    isLarge: isLarge(headers),
  };
}

/** The bytes of an object, counted, and checked against its ETag where that is the MD5 of them. */
export async function* readObject(
  transport: SwiftTransport,
  key: ObjectKey,
  options: GetOptions,
): ByteStream {
  const { range, onOpened, ifVersion, signal } = options;
  const isEmptyRange = range !== undefined && range.end === range.start;
  const opened = isEmptyRange ? undefined : await openObject(transport, key, options);
  const { sizeBytes, etag } = opened ?? (await headObject(transport, key, options));
  if (ifVersion !== undefined && ifVersion !== etag) {
    opened?.response.body.destroy();
    throw changedWhileRead(key, transport.name);
  }
  onOpened?.({ sizeBytes, ...(etag === undefined ? {} : { version: etag }) });
  if (opened === undefined) return;

  const hash = opened.isWhole ? createHash("md5") : undefined;
  let receivedBytes = 0;
  try {
    for await (const chunk of opened.response.body) {
      if (!(chunk instanceof Uint8Array)) continue;
      receivedBytes += chunk.length;
      hash?.update(chunk);
      yield chunk;
    }
  } catch (error) {
    signal.throwIfAborted();
    throw transport.bodyError(error, { verb: "get", key });
  }
  signal.throwIfAborted();
  if (receivedBytes !== opened.bodyBytes) {
    throw new StorageError(
      `cannot get ${key} in ${transport.name}: ${receivedBytes} of ${opened.bodyBytes} bytes arrived`,
      { isRetryable: true },
    );
  }
  if (hash !== undefined && hash.digest("hex") !== etag) {
    throw new StorageError(`object ${key} in ${transport.name} does not have its MD5 sum`, {
      isRetryable: false,
      hint: "It was changed in the store or on its way: try again, then check it in the store.",
    });
  }
}

/** Objects of a container in byte order, a page of the store's answer at a time. */
export async function* listObjects(
  transport: SwiftTransport,
  prefix: string,
  options: ListOptions & { readonly container?: string },
): AsyncIterable<ObjectInfo> {
  const { signal, container } = options;
  let marker = options.startAfter ?? "";
  for (;;) {
    const call = {
      verb: "list",
      key: prefix,
      method: "GET",
      ...(container === undefined ? {} : { container }),
      query: {
        format: "json",
        ...(prefix === "" ? {} : { prefix }),
        ...(marker === "" ? {} : { marker }),
      },
    } as const;
    const { text } = await found(transport, { signal }, () =>
      transport.sendForText(call, { signal }),
    );
    const page = parsePage(text);
    if (page === undefined) throw transport.unclear(call, "a list");
    if (page.length === 0) return;
    for (const info of page) {
      signal.throwIfAborted();
      // Folders of some user interfaces end in "/". Names of segments are no keys.
      if (container !== undefined || isValidKey(info.key)) yield info;
      marker = info.key;
    }
  }
}

interface OpenedObject {
  readonly response: RestResponse;
  /** Of the whole object. */
  readonly sizeBytes: number;
  readonly bodyBytes: number;
  readonly etag: string | undefined;
  /** All of an object comes whose ETag is the MD5 of it. */
  readonly isWhole: boolean;
}

/** Undefined if the range begins at the object's end or behind it. */
async function openObject(
  transport: SwiftTransport,
  key: ObjectKey,
  options: GetOptions,
): Promise<OpenedObject | undefined> {
  const { range } = options;
  const wanted = formatRange(range);
  const headers = wanted === undefined ? {} : { headers: { range: wanted } };
  const call = { verb: "get", key, method: "GET", object: key, ...headers } as const;
  try {
    const response = await found(transport, options, () => transport.send(call, options));
    const bodyBytes = Number(response.headers["content-length"] ?? Number.NaN);
    const sizeBytes = wanted === undefined ? bodyBytes : totalBytes(range, response.headers);
    if (sizeBytes === undefined || Number.isNaN(bodyBytes)) {
      response.body.destroy();
      throw transport.unclear(call, `the length of ${wanted ?? "the object"}`);
    }
    const etag = plainEtag(response.headers["etag"]);
    const isPlain = !isLarge(response.headers) && /^[0-9a-f]{32}$/.test(etag ?? "");
    return { response, sizeBytes, bodyBytes, etag, isWhole: wanted === undefined && isPlain };
  } catch (error) {
    if (httpFailure(error)?.status === 416) return undefined;
    throw error;
  }
}

async function found<T>(
  transport: SwiftTransport,
  options: CallOptions,
  work: () => Promise<T>,
): Promise<T> {
  try {
    return await work();
  } catch (error) {
    if (error instanceof ObjectNotFoundError) {
      await transport.requireContainer({ signal: options.signal });
    }
    throw error;
  }
}

function isLarge(headers: RestResponse["headers"]): boolean {
  const isStatic = headers["x-static-large-object"]?.toLowerCase() === "true";
  return isStatic || headers["x-object-manifest"] !== undefined;
}

function parsePage(text: string): ObjectInfo[] | undefined {
  try {
    const page: unknown = text === "" ? [] : JSON.parse(text);
    return Array.isArray(page) ? page.flatMap(parseEntry) : undefined;
  } catch {
    return undefined;
  }
}

function parseEntry(entry: unknown): ObjectInfo[] {
  if (typeof entry !== "object" || entry === null) return [];
  const [key, sizeBytes, modified]: readonly unknown[] = [
    Reflect.get(entry, "name"),
    Reflect.get(entry, "bytes"),
    Reflect.get(entry, "last_modified"),
  ];
  if (typeof key !== "string" || typeof sizeBytes !== "number") return [];
  return [{ key, sizeBytes, modifiedAt: new Date(`${String(modified).replace(/Z$/, "")}Z`) }];
}

function formatRange(range: ByteRange | undefined): string | undefined {
  if (range === undefined || (range.start === 0 && range.end === undefined)) return undefined;
  return `bytes=${range.start}-${range.end === undefined ? "" : range.end - 1}`;
}

/** Undefined if the answer is for another range, or for none. */
function totalBytes(
  range: ByteRange | undefined,
  headers: RestResponse["headers"],
): number | undefined {
  const match = /^bytes (\d+)-\d+\/(\d+)$/.exec(headers["content-range"] ?? "");
  const [, start, total] = match ?? [];
  return total === undefined || Number(start) !== range?.start ? undefined : Number(total);
}
