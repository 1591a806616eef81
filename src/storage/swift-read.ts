import { ObjectNotFoundError } from "../errors.ts";
import type { ByteStream } from "../io/bytes.ts";
import {
  formatRange,
  headFacts,
  md5Sum,
  openedBody,
  readBody,
  versionByEtag,
} from "./http-read.ts";
import type { OpenedBody } from "./http-read.ts";
import { isValidKey } from "./key.ts";
import { sumOfEtag, withSum } from "./object-sum.ts";
import { httpFailure } from "./request-errors.ts";
import type { RestResponse } from "./rest-sender.ts";
import type { CallOptions, GetOptions, ListOptions, ObjectInfo, ObjectKey } from "./storage.ts";
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
  const facts = headFacts(headers, (missing) => transport.unclear(call, missing));
  return { key, ...facts, etag: plainEtag(headers["etag"]), isLarge: isLarge(headers) };
}

/** The bytes of an object, counted, and checked against its ETag where that is the MD5 of them. */
export function readObject(
  transport: SwiftTransport,
  key: ObjectKey,
  options: GetOptions,
): ByteStream {
  const source = {
    name: transport.name,
    open: (call: GetOptions) => openObject(transport, key, call),
    head: async (call: CallOptions) => versionByEtag(await headObject(transport, key, call)),
    bodyError: (error: unknown) => transport.bodyError(error, { verb: "get", key }),
  };
  return readBody(source, key, options);
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

/** Undefined if the range begins at the object's end or behind it. */
async function openObject(
  transport: SwiftTransport,
  key: ObjectKey,
  options: GetOptions,
): Promise<OpenedBody | undefined> {
  const { range } = options;
  const wanted = formatRange(range);
  const headers = wanted === undefined ? {} : { headers: { range: wanted } };
  const call = { verb: "get", key, method: "GET", object: key, ...headers } as const;
  try {
    const response = await found(transport, options, () => transport.send(call, options));
    const opened = openedBody(response, range, (missing) => transport.unclear(call, missing));
    const version = plainEtag(response.headers["etag"]);
    const isPlain = !isLarge(response.headers) && /^[0-9a-f]{32}$/.test(version ?? "");
    const isSummed = wanted === undefined && isPlain && version !== undefined;
    return { ...opened, version, sum: isSummed ? md5Sum(version, "hex") : undefined };
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
  const hash: unknown = Reflect.get(entry, "hash");
  const modifiedAt = new Date(`${String(modified).replace(/Z$/, "")}Z`);
  return [{ key, sizeBytes, modifiedAt, ...withSum(sumOfEtag(String(hash))) }];
}
