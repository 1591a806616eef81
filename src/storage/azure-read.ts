import { ObjectNotFoundError } from "../errors.ts";
import type { ByteStream } from "../io/bytes.ts";
import type { AzureTransport } from "./azure-transport.ts";
import {
  formatRange,
  headFacts,
  md5Sum,
  openedBody,
  readBody,
  versionByEtag,
} from "./http-read.ts";
import type { OpenedBody } from "./http-read.ts";
import { changedWhileRead, httpFailure } from "./request-errors.ts";
import type { RestResponse } from "./rest-sender.ts";
import type { CallOptions, GetOptions, ObjectInfo, ObjectKey } from "./storage.ts";

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
  const facts = headFacts(headers, (missing) => transport.unclear(call, missing));
  return { key, ...facts, etag: headers["etag"], headers };
}

/** The bytes of an object, counted, and checked against its MD5 where all of it is read. */
export function readBlob(
  transport: AzureTransport,
  key: ObjectKey,
  options: GetOptions,
): ByteStream {
  const source = {
    name: transport.name,
    open: (call: GetOptions) => openBlob(transport, key, call),
    head: async (call: CallOptions) => versionByEtag(await headBlob(transport, key, call)),
    bodyError: (error: unknown) => transport.bodyError(error, { verb: "get", key }),
  };
  return readBody(source, key, options);
}

/** Undefined if the range begins at the object's end or behind it. */
async function openBlob(
  transport: AzureTransport,
  key: ObjectKey,
  options: GetOptions,
): Promise<OpenedBody | undefined> {
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
    const opened = openedBody(response, range, (missing) => transport.unclear(call, missing));
    const md5 = wanted === undefined ? headers["content-md5"] : undefined;
    const sum = md5 === undefined ? undefined : md5Sum(md5, "base64");
    return { ...opened, version: headers["etag"], sum };
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
