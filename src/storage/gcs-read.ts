import { ObjectNotFoundError, StorageError } from "../errors.ts";
import type { ByteStream } from "../io/bytes.ts";
import { createCrc32c } from "../io/crc32c.ts";
import { property } from "./gcs-errors.ts";
import type { GcsTransport } from "./gcs-transport.ts";
import { changedWhileRead, httpFailure } from "./request-errors.ts";
import type { RestResponse } from "./rest-sender.ts";
import type { ByteRange, CallOptions, GetOptions, ObjectInfo, ObjectKey } from "./storage.ts";

/** An object without its bytes. */
export interface GcsHead extends ObjectInfo {
  readonly generation: string;
  /** In base64. */
  readonly crc32c: string;
  /** All that GCS tells of it. */
  readonly json: object;
}

/** Size, time and generation of an object. */
export async function headObject(
  transport: GcsTransport,
  key: ObjectKey,
  options: CallOptions,
): Promise<GcsHead> {
  const path = transport.objectPath(key);
  const call = { verb: "stat", key, method: "GET", path, isKeyed: true } as const;
  try {
    const json = await transport.sendForJson(call, options);
    const head = readHead(json);
    if (head === undefined) throw transport.unclear(call, "an object");
    return { ...head, key };
  } catch (error) {
    throw await explainMissing(transport, { key, error }, options);
  }
}

/** Undefined for what describes no object. */
export function readHead(json: object): GcsHead | undefined {
  const key = property(json, "name");
  const size = property(json, "size");
  const updated = property(json, "updated");
  const generation = property(json, "generation");
  const crc32c = property(json, "crc32c");
  if (typeof key !== "string" || typeof size !== "string" || !/^\d+$/.test(size)) return undefined;
  return {
    key,
    sizeBytes: Number(size),
    modifiedAt: new Date(typeof updated === "string" ? updated : 0),
    generation: typeof generation === "string" ? generation : "",
    crc32c: typeof crc32c === "string" ? crc32c : "",
    json,
  };
}

/** The bytes of an object, counted, and checked against its CRC32C where all of it is read. */
export async function* readObject(
  transport: GcsTransport,
  key: ObjectKey,
  options: GetOptions,
): ByteStream {
  const { range, onOpened, ifVersion, signal } = options;
  const isEmptyRange = range !== undefined && range.end === range.start;
  const opened = isEmptyRange ? undefined : await openObject(transport, key, options);
  const { sizeBytes, generation } = opened ?? (await headObject(transport, key, options));
  if (ifVersion !== undefined && ifVersion !== generation) {
    opened?.response.body.destroy();
    throw changedWhileRead(key, transport.name);
  }
  onOpened?.({ sizeBytes, ...(generation === "" ? {} : { version: generation }) });
  if (opened === undefined) return;

  const sum = opened.crc32c === undefined ? undefined : await createCrc32c();
  let receivedBytes = 0;
  try {
    for await (const chunk of opened.response.body) {
      if (!(chunk instanceof Uint8Array)) continue;
      receivedBytes += chunk.length;
      sum?.update(chunk);
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
  if (sum !== undefined && sum.base64() !== opened.crc32c) {
    throw new StorageError(`object ${key} in ${transport.name} does not have its CRC32C sum`, {
      isRetryable: false,
      hint: "It was changed in the store or on its way: try again, then check it in the store.",
    });
  }
}

interface OpenedObject {
  readonly response: RestResponse;
  /** Of the whole object. */
  readonly sizeBytes: number;
  readonly bodyBytes: number;
  readonly generation: string;
  /** Of the whole object, if that is what comes and the store tells it. */
  readonly crc32c: string | undefined;
}

/** Undefined if the range begins at the object's end or behind it. */
async function openObject(
  transport: GcsTransport,
  key: ObjectKey,
  options: GetOptions,
): Promise<OpenedObject | undefined> {
  const { range, ifVersion } = options;
  const wanted = formatRange(range);
  const call = {
    verb: "get",
    key,
    method: "GET",
    path: transport.objectPath(key),
    query: { alt: "media", ...(ifVersion === undefined ? {} : { ifGenerationMatch: ifVersion }) },
    // Objects that say they are gzip come as they are stored.
    headers: { "accept-encoding": "gzip", ...(wanted === undefined ? {} : { range: wanted }) },
    isKeyed: true,
  } as const;
  try {
    const response = await transport.send(call, options);
    const { headers } = response;
    const bodyBytes = Number(headers["content-length"] ?? Number.NaN);
    const sizeBytes = wanted === undefined ? bodyBytes : totalBytes(range, headers);
    if (sizeBytes === undefined || Number.isNaN(bodyBytes)) {
      response.body.destroy();
      throw transport.unclear(call, `the length of ${wanted ?? "the object"}`);
    }
    const [, sum] = /(?:^|[,\s])crc32c=([A-Za-z0-9+/=]+)/.exec(headers["x-goog-hash"] ?? "") ?? [];
    const generation = headers["x-goog-generation"] ?? "";
    const crc32c = wanted === undefined ? sum : undefined;
    return { response, sizeBytes, bodyBytes, generation, crc32c };
  } catch (error) {
    const status = httpFailure(error)?.status;
    if (status === 416) return undefined;
    if (status === 412) throw changedWhileRead(key, transport.name, { cause: error });
    throw await explainMissing(transport, { key, error }, options);
  }
}

/**
 * A 404 in other words than GCS's own proves a missing object only if the bucket answers. Gives the
 * error to throw.
 */
export async function explainMissing(
  transport: GcsTransport,
  { key, error }: { readonly key: ObjectKey; readonly error: unknown },
  options: CallOptions,
): Promise<unknown> {
  const failure = httpFailure(error);
  if (failure?.status !== 404 || error instanceof ObjectNotFoundError) return error;
  if (/bucket/i.test(failure.message)) return error;
  const query = { maxResults: "1", fields: "kind,items(name)" };
  const path = transport.objectsPath;
  try {
    await transport.sendForJson({ verb: "list", key, method: "GET", path, query }, options);
  } catch (listError) {
    return listError;
  }
  return new ObjectNotFoundError(key, transport.name, { cause: failure });
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
