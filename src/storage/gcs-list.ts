import { property } from "./gcs-errors.ts";
import { readHead } from "./gcs-read.ts";
import type { GcsTransport } from "./gcs-transport.ts";
import { withSum } from "./object-sum.ts";
import type { ListOptions, ObjectInfo } from "./storage.ts";

/** The most that GCS gives at once. */
const PAGE_KEYS = 1000;

interface Page {
  readonly objects: readonly ObjectInfo[];
  /** Where the next page begins; "" if this is the last. */
  readonly token: string;
}

/** The objects under a prefix, page by page. Keys that end in "/" are folders of the console. */
export async function* listObjects(
  transport: GcsTransport,
  prefix: string,
  options: ListOptions,
): AsyncIterable<ObjectInfo> {
  const { startAfter, signal } = options;
  let token: string | undefined;
  while (token !== "") {
    const page: Page = await readPage(transport, { prefix, token }, options);
    for (const info of page.objects) {
      signal.throwIfAborted();
      // The store begins at this key, not behind it.
      if (info.key !== startAfter && !info.key.endsWith("/")) yield info;
    }
    token = page.token;
  }
}

async function readPage(
  transport: GcsTransport,
  { prefix, token }: { readonly prefix: string; readonly token: string | undefined },
  options: ListOptions,
): Promise<Page> {
  const { startAfter } = options;
  const call = {
    verb: "list",
    key: prefix,
    method: "GET",
    path: transport.objectsPath,
    query: {
      maxResults: `${PAGE_KEYS}`,
      fields: "kind,nextPageToken,items(name,size,updated,generation,crc32c,md5Hash)",
      ...(prefix === "" ? {} : { prefix }),
      ...(startAfter === undefined ? {} : { startOffset: startAfter }),
      ...(token === undefined ? {} : { pageToken: token }),
    },
  } as const;
  const json = await transport.sendForJson(call, options);
  const items = property(json, "items") ?? [];
  const next = property(json, "nextPageToken") ?? "";
  const isList = property(json, "kind") === "storage#objects" && Array.isArray(items);
  if (!isList || typeof next !== "string") throw transport.unclear(call, "a list");
  const objects = items.map((item: unknown) => {
    const head = typeof item === "object" && item !== null ? readHead(item) : undefined;
    if (head === undefined) throw transport.unclear(call, "name and size of an object");
    const { key, sizeBytes, modifiedAt, sum } = head;
    return { key, sizeBytes, modifiedAt, ...withSum(sum) };
  });
  return { objects, token: next };
}
