import { createHash } from "node:crypto";
import http from "node:http";
import { compareKeys } from "../../src/storage/key.ts";
import { closeHttp, listen, portOf } from "./listening.ts";

/** In what the emulated store differs from AWS; each is found among real ones. */
export interface S3Quirks {
  /** Answers 501 to If-None-Match. */
  readonly refusesConditions?: boolean;
  /** Passes over If-None-Match. */
  readonly ignoresConditions?: boolean;
  /** Checks If-None-Match on PutObject only. */
  readonly ignoresConditionOnComplete?: boolean;
  /** Answers 501 to DeleteObjects. */
  readonly refusesBatches?: boolean;
  /** Answers ListObjectsV2 as ListObjects, whose parameters alone it knows. */
  readonly ignoresListV2?: boolean;
  /** Answers 501 to ListObjectsV2. */
  readonly lacksListV2?: boolean;
  /** Passes over start-after and marker: lists begin with the first key. */
  readonly ignoresStart?: boolean;
  /** Entries in one page of a list. */
  readonly pageKeys?: number;
  /** Ignores Range. */
  readonly ignoresRange?: boolean;
  /** Lists in the order of creation. */
  readonly listsUnordered?: boolean;
}

/** An answer that replaces the emulation's own. */
export interface S3Answer {
  readonly status: number;
  readonly headers?: Record<string, string>;
  readonly body?: string;
}

export interface S3Request {
  /** Counted from 1. */
  readonly number: number;
  /** "PutObject", "UploadPart", ... */
  readonly operation: string;
  readonly key: string;
  readonly query: URLSearchParams;
  readonly headers: http.IncomingHttpHeaders;
  /** Of a POST; other bodies are not kept. */
  readonly document: string;
}

interface Entry {
  readonly bytes: Buffer;
  readonly etag: string;
  /** The beginning of 1970 unless given. */
  readonly modifiedAt?: Date;
}

const NO_ENTRY: Entry = { bytes: Buffer.alloc(0), etag: "" };

/**
 * A strict little S3 for odd answers, not for proof: real servers are for that. It keeps one bucket
 * in memory and refuses what strict providers refuse: bodies without Content-Length, aws-chunked
 * bodies, the SDK's checksums in trailers or headers, bodies that do not fit x-amz-content-sha256,
 * unsigned requests, batches without Content-MD5, parts below 5 MiB.
 */
export class S3Emulation implements AsyncDisposable {
  readonly accessKeyId = "emulated-key";
  readonly secretAccessKey = "emulated-secret";
  readonly bucket = "emulated";
  readonly objects = new Map<string, Entry>();
  /** Uploads in parts that were begun and neither completed nor aborted. */
  readonly uploads = new Map<string, Map<number, Entry>>();
  readonly requests: S3Request[] = [];
  /** Most requests that were under way at once. */
  peakConcurrency = 0;
  /** Asked before each request is done, or after if it says so; undefined: answer as usual. */
  intercept: (request: S3Request) => (S3Answer & { isDoneFirst?: boolean }) | undefined = () =>
    undefined;
  readonly #quirks: S3Quirks;
  readonly #server: http.Server;
  #uploadCount = 0;
  #activeCount = 0;

  private constructor(quirks: S3Quirks) {
    this.#quirks = quirks;
    this.#server = http.createServer((request, response) => {
      this.#handle(request, response).catch((error: unknown) => {
        response.writeHead(500);
        response.end(errorDocument("InternalError", String(error)));
      });
    });
  }

  static async start(quirks: S3Quirks = {}): Promise<S3Emulation> {
    const emulation = new S3Emulation(quirks);
    await listen(emulation.#server);
    return emulation;
  }

  get endpoint(): string {
    return `http://127.0.0.1:${portOf(this.#server)}`;
  }

  /** How many requests of an operation there were. */
  count(operation: string): number {
    return this.requests.filter((request) => request.operation === operation).length;
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await closeHttp(this.#server);
  }

  async #handle(request: http.IncomingMessage, response: http.ServerResponse): Promise<void> {
    const url = new URL(request.url ?? "/", "http://localhost");
    const [, bucket = "", ...segments] = url.pathname.split("/").map(decodeURIComponent);
    const key = segments.join("/");
    const operation = operationOf(request.method ?? "", key, url.searchParams);
    const { headers } = request;
    this.#activeCount++;
    this.peakConcurrency = Math.max(this.peakConcurrency, this.#activeCount);
    response.on("close", () => this.#activeCount--);

    const body = await readBody(request);
    const number = this.requests.length + 1;
    const document = request.method === "POST" ? body.toString() : "";
    const seen = { number, operation, key, query: url.searchParams, headers, document };
    this.requests.push(seen);
    const special = this.intercept(seen);
    const refusal = strictRefusal(headers, body, request.method ?? "");
    const isDone = refusal === undefined && (special === undefined || special.isDoneFirst === true);
    const usual = isDone ? this.#answer(seen, body, bucket) : undefined;
    const answer = special ?? refusal ?? usual ?? { status: 500 };
    const bytes = Buffer.isBuffer(answer.body) ? answer.body : Buffer.from(answer.body ?? "");
    response.writeHead(answer.status, { "content-length": `${bytes.length}`, ...answer.headers });
    response.end(request.method === "HEAD" ? undefined : bytes);
  }

  #answer(request: S3Request, body: Buffer, bucket: string): Answer {
    if (bucket !== this.bucket) return failure(404, "NoSuchBucket");
    switch (request.operation) {
      case "PutObject":
        return this.#put(request, body);
      case "GetObject":
      case "HeadObject":
        return this.#get(request);
      case "CreateMultipartUpload":
        return this.#createUpload();
      case "UploadPart":
        return this.#uploadPart(request, body);
      case "CompleteMultipartUpload":
        return this.#complete(request, body);
      case "AbortMultipartUpload":
        this.uploads.delete(request.query.get("uploadId") ?? "");
        return { status: 204 };
      case "ListObjectsV2":
      case "ListObjects":
        return this.#list(request);
      case "DeleteObject":
        this.objects.delete(request.key);
        return { status: 204 };
      case "DeleteObjects":
        return this.#deleteBatch(request, body);
      default:
        return failure(501, "NotImplemented");
    }
  }

  #put({ key, headers }: S3Request, body: Buffer): Answer {
    const refusal = this.#condition(key, headers);
    if (refusal !== undefined) return refusal;
    const etag = etagOf(body);
    this.objects.set(key, { bytes: body, etag, modifiedAt: new Date() });
    return { status: 200, headers: { etag } };
  }

  #condition(key: string, headers: http.IncomingHttpHeaders): Answer | undefined {
    if (headers["if-none-match"] === undefined) return undefined;
    if (this.#quirks.ignoresConditions === true) return undefined;
    if (this.#quirks.refusesConditions === true) return failure(501, "NotImplemented");
    return this.objects.has(key) ? failure(412, "PreconditionFailed") : undefined;
  }

  #get({ key, headers }: S3Request): Answer {
    const entry = this.objects.get(key);
    if (entry === undefined) return failure(404, "NoSuchKey");
    const { bytes, etag, modifiedAt = new Date(0) } = entry;
    const common = { etag, "last-modified": modifiedAt.toUTCString() };
    const [, first = "", last = ""] = /^bytes=(\d+)-(\d*)$/.exec(headers.range ?? "") ?? [];
    if (first === "" || this.#quirks.ignoresRange === true) {
      return {
        status: 200,
        headers: { ...common, "content-length": `${bytes.length}` },
        body: bytes,
      };
    }
    const start = Number(first);
    if (start >= bytes.length) return failure(416, "InvalidRange");
    const part = bytes.subarray(start, last === "" ? undefined : Number(last) + 1);
    const contentRange = `bytes ${start}-${start + part.length - 1}/${bytes.length}`;
    return { status: 206, headers: { ...common, "content-range": contentRange }, body: part };
  }

  #createUpload(): Answer {
    const id = `upload-${++this.#uploadCount}`;
    this.uploads.set(id, new Map());
    return {
      status: 200,
      body: `<InitiateMultipartUploadResult><UploadId>${id}</UploadId></InitiateMultipartUploadResult>`,
    };
  }

  #uploadPart({ query }: S3Request, body: Buffer): Answer {
    const parts = this.uploads.get(query.get("uploadId") ?? "");
    if (parts === undefined) return failure(404, "NoSuchUpload");
    const etag = etagOf(body);
    parts.set(Number(query.get("partNumber")), { bytes: body, etag });
    return { status: 200, headers: { etag } };
  }

  #complete({ key, query, headers }: S3Request, body: Buffer): Answer {
    const id = query.get("uploadId") ?? "";
    const parts = this.uploads.get(id);
    if (parts === undefined) return failure(404, "NoSuchUpload");
    const refusal =
      this.#quirks.ignoresConditionOnComplete === true ? undefined : this.#condition(key, headers);
    if (refusal !== undefined) return refusal;
    const numbers = [...body.toString().matchAll(/<PartNumber>(\d+)</g)].map(([, n]) => Number(n));
    const chosen = numbers.map((number) => parts.get(number));
    const whole = chosen.filter((part) => part !== undefined);
    if (whole.length !== numbers.length) return failure(400, "InvalidPart");
    if (whole.slice(0, -1).some(({ bytes }) => bytes.length < 5 * 1024 * 1024)) {
      return failure(400, "EntityTooSmall");
    }
    const hash = createHash("md5");
    for (const { etag } of whole) hash.update(Buffer.from(etag.slice(1, -1), "hex"));
    const etag = `"${hash.digest("hex")}-${whole.length}"`;
    const bytes = Buffer.concat(whole.map(({ bytes }) => bytes));
    this.objects.set(key, { bytes, etag, modifiedAt: new Date() });
    this.uploads.delete(id);
    return {
      status: 200,
      body: `<CompleteMultipartUploadResult><ETag>${etag}</ETag></CompleteMultipartUploadResult>`,
    };
  }

  #list({ query, operation }: S3Request): Answer {
    const isV2 = operation === "ListObjectsV2" && this.#quirks.ignoresListV2 !== true;
    if (isV2 && this.#quirks.lacksListV2 === true) return failure(501, "NotImplemented");
    const start = query.get(isV2 ? "start-after" : "marker");
    const token = isV2 ? query.get("continuation-token") : null;
    const after = token ?? (this.#quirks.ignoresStart === true ? null : start);
    const keys = [...this.objects.keys()];
    const ordered = this.#quirks.listsUnordered === true ? keys : keys.toSorted(compareKeys);
    const matching = ordered.filter(
      (key) =>
        key.startsWith(query.get("prefix") ?? "") &&
        (after === null || compareKeys(key, after) > 0),
    );
    const page = matching.slice(0, this.#quirks.pageKeys ?? 1000);
    const isTruncated = page.length < matching.length;
    const entries = page.map((key) => {
      const { bytes, modifiedAt = new Date(0) } = this.objects.get(key) ?? NO_ENTRY;
      return (
        `<Contents><Key>${escapeXml(key)}</Key><Size>${bytes.length}</Size>` +
        `<LastModified>${modifiedAt.toISOString()}</LastModified></Contents>`
      );
    });
    const next =
      isTruncated && isV2
        ? `<NextContinuationToken>${escapeXml(page.at(-1) ?? "")}</NextContinuationToken>`
        : "";
    const body = `<ListBucketResult><IsTruncated>${isTruncated}</IsTruncated>${next}${entries.join("")}</ListBucketResult>`;
    return { status: 200, body };
  }

  #deleteBatch({ headers }: S3Request, body: Buffer): Answer {
    if (this.#quirks.refusesBatches === true) return failure(501, "NotImplemented");
    const digest = createHash("md5").update(body).digest("base64");
    if (headers["content-md5"] !== digest) return failure(400, "InvalidRequest");
    for (const [, key = ""] of body.toString().matchAll(/<Key>([^<]*)</g)) {
      this.objects.delete(unescapeXml(key));
    }
    return { status: 200, body: "<DeleteResult></DeleteResult>" };
  }
}

interface Answer {
  readonly status: number;
  readonly headers?: Record<string, string>;
  readonly body?: string | Buffer;
}

/** The document that S3 sends with an error. */
export function errorDocument(code: string, message = code): string {
  return `<?xml version="1.0"?><Error><Code>${code}</Code><Message>${message}</Message></Error>`;
}

function failure(status: number, code: string): Answer {
  return { status, body: errorDocument(code) };
}

function strictRefusal(
  headers: http.IncomingHttpHeaders,
  body: Buffer,
  method: string,
): Answer | undefined {
  const { authorization = "" } = headers;
  if (!authorization.startsWith("AWS4-HMAC-SHA256 ")) return failure(403, "AccessDenied");
  if (/aws-chunked/.test(headers["content-encoding"] ?? "")) return failure(501, "NotImplemented");
  if (headers["x-amz-trailer"] !== undefined) return failure(501, "NotImplemented");
  const isSending = method === "PUT" || (method === "POST" && body.length > 0);
  if (isSending && headers["content-length"] === undefined) {
    return failure(411, "MissingContentLength");
  }
  const isSummed = Object.keys(headers).some((name) => /^x-amz-(sdk-)?checksum/.test(name));
  if (isSummed) return failure(501, "NotImplemented");
  const digest = createHash("sha256").update(body).digest("hex");
  const isWhole = headers["x-amz-content-sha256"] === digest;
  return isWhole ? undefined : failure(400, "XAmzContentSHA256Mismatch");
}

function operationOf(method: string, key: string, query: URLSearchParams): string {
  const isUpload = query.has("uploadId");
  if (key === "") {
    if (method === "POST" && query.has("delete")) return "DeleteObjects";
    return query.get("list-type") === "2" ? "ListObjectsV2" : "ListObjects";
  }
  if (method === "PUT") return isUpload ? "UploadPart" : "PutObject";
  if (method === "GET") return "GetObject";
  if (method === "HEAD") return "HeadObject";
  if (method === "DELETE") return isUpload ? "AbortMultipartUpload" : "DeleteObject";
  return isUpload ? "CompleteMultipartUpload" : "CreateMultipartUpload";
}

async function readBody(request: http.IncomingMessage): Promise<Buffer> {
  const chunks: Uint8Array[] = [];
  for await (const chunk of request) {
    if (chunk instanceof Uint8Array) chunks.push(chunk);
  }
  return Buffer.concat(chunks);
}

function etagOf(bytes: Buffer): string {
  return `"${createHash("md5").update(bytes).digest("hex")}"`;
}

function unescapeXml(text: string): string {
  const characters: Readonly<Record<string, string>> = {
    lt: "<",
    gt: ">",
    amp: "&",
    quot: '"',
    apos: "'",
  };
  return text.replaceAll(/&(\w+);/g, (whole, name: string) => characters[name] ?? whole);
}

function escapeXml(text: string): string {
  return text.replaceAll("&", "&amp;").replaceAll("<", "&lt;").replaceAll(">", "&gt;");
}
