import { ConfigError } from "../errors.ts";
import type { S3Config } from "../storage/open.ts";
import type { FoundSettings } from "./found-settings.ts";
import { storage } from "./storage-settings.ts";
import { defined } from "./store-url.ts";

type RequestHeaders = Pick<S3Config, "lock" | "tags" | "isRequesterPays" | "requestHeaders">;

/** S3 takes so many of one object. */
const MAX_TAGS = 10;
/** Part of each request already, or what its signature is made of. */
const OWN_HEADERS = /^(authorization|host|content-length|content-md5|x-amz-(date|content-sha256))$/;

/** What S3 is told with requests beside the requests themselves. Throws ConfigError. */
export function readRequestHeaders(found: FoundSettings): RequestHeaders {
  const periodSeconds = found.get(storage.retentionPeriod) ?? 0;
  const mode = found.get(storage.retentionMode);
  return {
    ...(periodSeconds > 0 ? { lock: { mode, periodSeconds } } : {}),
    ...defined("tags", readTags(found)),
    ...(found.get(storage.requesterPays) ? { isRequesterPays: true } : {}),
    ...defined("requestHeaders", readHeaders(found)),
  };
}

function readTags(found: FoundSettings): string | undefined {
  const text = found.get(storage.tags);
  if (text === undefined || text === "") return undefined;
  const tags = text.split("&");
  const isRight = tags.every((tag) => /^[\w.%+~*-]+=[\w.%+~*-]*$/.test(tag));
  const names = new Set(tags.map((tag) => tag.split("=", 1)[0]));
  if (isRight && names.size === tags.length && tags.length <= MAX_TAGS) return text;
  throw new ConfigError(
    `${found.describe(storage.tags)} is no list of tags: ${JSON.stringify(text)}`,
    { hint: 'Write up to ten as in URLs, such as "team=db&cost%20center=7", each name once.' },
  );
}

function readHeaders(found: FoundSettings): Readonly<Record<string, string>> | undefined {
  const text = found.get(storage.requestHeaders);
  if (text === undefined || text.trim() === "") return undefined;
  const pairs = text.trim().startsWith("{") ? jsonPairs(text) : linePairs(text);
  const headers = pairs?.map(([name, value]) => [name.toLowerCase(), value] as const);
  const isRight = headers?.every(([name, value]) => isHeader(name, value)) ?? false;
  if (headers !== undefined && isRight) return Object.fromEntries(headers);
  // The value may be a credential.
  throw new ConfigError(`${found.describe(storage.requestHeaders)} is no list of headers`, {
    hint:
      'Write {"name": "value"} or lines of "name: value"; what a request is signed with ' +
      "(Authorization, Host, X-Amz-Date and so on) can't be replaced.",
  });
}

function isHeader(name: string, value: string): boolean {
  return /^[a-z0-9-]+$/.test(name) && /^[\x20-\x7e]*$/.test(value) && !OWN_HEADERS.test(name);
}

function jsonPairs(text: string): readonly (readonly [string, string])[] | undefined {
  let value: unknown;
  try {
    value = JSON.parse(text);
  } catch {
    return undefined;
  }
  if (typeof value !== "object" || value === null) return undefined;
  const pairs = Object.entries(value).flatMap(([name, one]: [string, unknown]) =>
    typeof one === "string" ? [[name, one] as const] : [],
  );
  return pairs.length === Object.keys(value).length ? pairs : undefined;
}

function linePairs(text: string): readonly (readonly [string, string])[] | undefined {
  const lines = text.split("\n").filter((line) => line.trim() !== "");
  const pairs = lines.flatMap((line) => {
    const [, name, value] = /^\s*([^\s:]+):\s+(.*?)\s*$/.exec(line) ?? [];
    return name === undefined || value === undefined
      ? []
      : [[name, value.replace(/^(["'])(.*)\1$/, "$2")] as const];
  });
  return pairs.length === lines.length ? pairs : undefined;
}
