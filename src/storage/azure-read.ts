import { createHash } from "node:crypto";
import { ObjectNotFoundError, StorageError } from "../errors.ts";
import type { ByteStream } from "../io/bytes.ts";
import type { AzureTransport } from "./azure-transport.ts";
import { changedWhileRead, httpFailure } from "./request-errors.ts";
import type { RestResponse } from "./rest-sender.ts";
import type { ByteRange, CallOptions, GetOptions, ObjectInfo, ObjectKey } from "./storage.ts";

/** An object without its bytes. */
export interface AzureHead extends ObjectInfo {
  readonly etag: string | undefined;
  readonly headers: RestResponse["headers"];
}

/** Size, time and ETag of an object. */
export async function headBlob(
  transport: AzureTransport,
  key: ObjectKey,
  options: CallOptions,
): Promise<AzureHead> {
  const call = { verb: "stat", key, method: "HEAD", blob: key } as const;
  const { headers } = await transport.sendForText(call, options);
  requireObject(transport, key, headers);
  const sizeBytes = Number(headers["content-length"] ?? Number.NaN);
  if (Number.isNaN(sizeBytes)) throw transport.unclear(call, "a length");
  const modifiedAt = new Date(headers["last-modified"] ?? 0);
  return { key, sizeBytes, modifiedAt, etag: headers["etag"], headers };
}

/** The bytes of an object, counted, and checked against its MD5 where all of it is read. */
export async function* readBlob(
  transport: AzureTransport,
  key: ObjectKey,
  options: GetOptions,
): ByteStream {
  const { range, onOpened, ifVersion, signal } = options;
  const isEmptyRange = range !== undefined && range.end === range.start;
  const opened = isEmptyRange ? undefined : await openBlob(transport, key, options);
  const { sizeBytes, etag } = opened ?? (await headBlob(transport, key, options));
  if (ifVersion !== undefined && ifVersion !== etag) {
    opened?.response.body.destroy();
    throw changedWhileRead(key, transport.name);
  }
  onOpened?.({ sizeBytes, ...(etag === undefined ? {} : { version: etag }) });
  if (opened === undefined) return;

  const hash = opened.md5 === undefined ? undefined : createHash("md5");
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
  if (hash !== undefined && hash.digest("base64") !== opened.md5) {
    throw new StorageError(`object ${key} in ${transport.name} does not have its MD5 sum`, {
      isRetryable: false,
      hint: "It was changed in the store or on its way: try again, then check it in the store.",
    });
  }
}

interface OpenedBlob {
  readonly response: RestResponse;
  /** Of the whole object. */
  readonly sizeBytes: number;
  readonly bodyBytes: number;
  readonly etag: string | undefined;
  /** Of the whole object, if that is what comes and the store knows it. */
  readonly md5: string | undefined;
}

/** Undefined if the range begins at the object's end or behind it. */
async function openBlob(
  transport: AzureTransport,
  key: ObjectKey,
  options: GetOptions,
): Promise<OpenedBlob | undefined> {
  const { range, ifVersion } = options;
  const wanted = formatRange(range);
  const call = {
    verb: "get",
    key,
    method: "GET",
    blob: key,
    headers: {
      ...(wanted === undefined ? {} : { range: wanted }),
      ...(ifVersion === undefined ? {} : { "if-match": ifVersion }),
    },
  } as const;
  try {
    const response = await transport.send(call, options);
    const { headers } = response;
    requireObject(transport, key, headers);
    const bodyBytes = Number(headers["content-length"] ?? Number.NaN);
    const sizeBytes = wanted === undefined ? bodyBytes : totalBytes(range, headers);
    if (sizeBytes === undefined || Number.isNaN(bodyBytes)) {
      response.body.destroy();
      throw transport.unclear(call, `the length of ${wanted ?? "the object"}`);
    }
    const sum = wanted === undefined ? headers["content-md5"] : undefined;
    return { response, sizeBytes, bodyBytes, etag: headers["etag"], md5: sum };
  } catch (error) {
    const status = httpFailure(error)?.status;
    if (status === 416) return undefined;
    if (status === 412) throw changedWhileRead(key, transport.name, { cause: error });
    throw error;
  }
}

/** Accounts with a hierarchical namespace have directories, which answer as empty objects. */
function requireObject(
  transport: AzureTransport,
  key: ObjectKey,
  headers: RestResponse["headers"],
): void {
  const isDirectory =
    headers["x-ms-resource-type"] === "directory" || headers["x-ms-meta-hdi_isfolder"] === "true";
  if (isDirectory) throw new ObjectNotFoundError(key, transport.name);
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
