import type { AzureTransport } from "./azure-transport.ts";
import { inByteOrder } from "./byte-order.ts";
import { compareKeys } from "./key.ts";
import { sumOfBase64, withSum } from "./object-sum.ts";
import type { ListOptions, ObjectInfo } from "./storage.ts";
import { decodeXmlText } from "./xml-text.ts";

/** Azure gives up to 5,000; a page of these has some 500 KiB of XML. */
const PAGE_KEYS = 1000;

interface Page {
  readonly objects: readonly ObjectInfo[];
  /** Where the next page begins; "" if this is the last. */
  readonly marker: string;
}

/** The objects under a prefix, page by page; what comes before `startAfter` is read and left out. */
export async function* listBlobs(
  transport: AzureTransport,
  prefix: string,
  options: ListOptions,
): AsyncIterable<ObjectInfo> {
  const { startAfter, signal } = options;
  for await (const info of inByteOrder(readPages(transport, prefix, options))) {
    signal.throwIfAborted();
    const isAfter = startAfter === undefined || compareKeys(info.key, startAfter) > 0;
    if (isAfter && !info.key.endsWith("/")) yield info;
  }
}

async function* readPages(
  transport: AzureTransport,
  prefix: string,
  options: ListOptions,
): AsyncIterable<ObjectInfo> {
  let marker: string | undefined;
  while (marker !== "") {
    const page: Page = await readPage(transport, { prefix, marker }, options);
    yield* page.objects;
    marker = page.marker;
  }
}

async function readPage(
  transport: AzureTransport,
  { prefix, marker }: { readonly prefix: string; readonly marker: string | undefined },
  options: ListOptions,
): Promise<Page> {
  const call = {
    verb: "list",
    key: prefix,
    method: "GET",
    query: {
      restype: "container",
      comp: "list",
      maxresults: `${PAGE_KEYS}`,
      ...(prefix === "" ? {} : { prefix }),
      ...(marker === undefined ? {} : { marker }),
    },
  } as const;
  const { text } = await transport.sendForText(call, options);
  const page = parseListing(text);
  if (page === undefined) throw transport.unclear(call, "a list");
  return page;
}

/** Undefined for what is no whole list of blobs. */
export function parseListing(text: string): Page | undefined {
  const isWhole =
    /<EnumerationResults[\s>]/.test(text) && text.trimEnd().endsWith("</EnumerationResults>");
  if (!isWhole) return undefined;
  const objects: ObjectInfo[] = [];
  for (const [, blob = ""] of text.matchAll(/<Blob>([\s\S]*?)<\/Blob>/g)) {
    const key = nameOf(blob);
    const size = /<Content-Length>(\d+)<\/Content-Length>/.exec(blob)?.[1];
    const modified = /<Last-Modified>([^<]*)<\/Last-Modified>/.exec(blob)?.[1];
    if (key === undefined || size === undefined || modified === undefined) return undefined;
    if (/<ResourceType>directory<\/ResourceType>/.test(blob)) continue;
    const sum = sumOfBase64("md5", /<Content-MD5>([^<]*)<\/Content-MD5>/.exec(blob)?.[1]);
    const modifiedAt = new Date(modified);
    objects.push({ key, sizeBytes: Number(size), modifiedAt, ...withSum(sum) });
  }
  const marker = /<NextMarker>([^<]*)<\/NextMarker>/.exec(text)?.[1] ?? "";
  return { objects, marker: decodeXmlText(marker) };
}

function nameOf(blob: string): string | undefined {
  const [, encoded, name] = /<Name( Encoded="true")?>([^<]*)<\/Name>/.exec(blob) ?? [];
  if (name === undefined) return undefined;
  // Names that XML can't hold are escaped as in URLs, and say so.
  return encoded === undefined ? decodeXmlText(name) : decodeURIComponent(decodeXmlText(name));
}
