import { ObjectNotFoundError } from "../errors.ts";
import type { ByteStream } from "../io/bytes.ts";
import { createCrc32c } from "../io/crc32c.ts";
import { property } from "./gcs-errors.ts";
import type { GcsTransport } from "./gcs-transport.ts";
import { sumOfBase64, withSum } from "./object-sum.ts";
import { formatRange, openedBody, readBody } from "./http-read.ts";
import type { BodySum, OpenedBody, VersionedObject } from "./http-read.ts";
import { changedWhileRead, httpFailure } from "./request-errors.ts";
import type { CallOptions, GetOptions, ObjectInfo, ObjectKey } from "./storage.ts";

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
    ...withSum(sumOfBase64("md5", property(json, "md5Hash")) ?? sumOfBase64("crc32c", crc32c)),
    json,
  };
}

/** The bytes of an object, counted, and checked against its CRC32C where all of it is read. */
export function readObject(
  transport: GcsTransport,
  key: ObjectKey,
  options: GetOptions,
): ByteStream {
  const source = {
    name: transport.name,
    open: (call: GetOptions) => openObject(transport, key, call),
    head: (call: CallOptions) => headVersion(transport, key, call),
    bodyError: (error: unknown) => transport.bodyError(error, { verb: "get", key }),
  };
  return readBody(source, key, options);
}

async function headVersion(
  transport: GcsTransport,
  key: ObjectKey,
  options: CallOptions,
): Promise<VersionedObject> {
  const { sizeBytes, generation } = await headObject(transport, key, options);
  return { sizeBytes, version: generation === "" ? undefined : generation };
}

async function crc32cSum(expected: string): Promise<BodySum> {
  const sum = await createCrc32c();
  return {
    name: "CRC32C",
    update: (chunk) => sum.update(chunk),
    isRight: () => sum.base64() === expected,
  };
}

/** Undefined if the range begins at the object's end or behind it. */
async function openObject(
  transport: GcsTransport,
  key: ObjectKey,
  options: GetOptions,
): Promise<OpenedBody | undefined> {
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
    const opened = openedBody(response, range, (missing) => transport.unclear(call, missing));
    const [, told] = /(?:^|[,\s])crc32c=([A-Za-z0-9+/=]+)/.exec(headers["x-goog-hash"] ?? "") ?? [];
    const isSummed = wanted === undefined && told !== undefined;
    const sum = isSummed ? await crc32cSum(told) : undefined;
    return { ...opened, version: headers["x-goog-generation"], sum };
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
