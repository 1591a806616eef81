import { createHash } from "node:crypto";
import http from "node:http";
import { createCrc32c } from "../../src/io/crc32c.ts";
import type { GcsConfig } from "../../src/storage/gcs-config.ts";
import { compareKeys } from "../../src/storage/key.ts";
import { closeHttp, listen, portOf } from "./listening.ts";

/** In what the emulated store differs from a bucket without special settings. */
export interface GcsQuirks {
  /** Objects can neither be deleted nor replaced. */
  readonly isRetained?: boolean;
  /** Passes over ifGenerationMatch. */
  readonly ignoresConditions?: boolean;
  /** Stores only so much of each chunk. */
  readonly storedChunkBytes?: number;
  /** Says "Not Found" of missing objects, as other servers do. */
  readonly hasPlain404?: boolean;
}

export interface GcsRequest {
  /** "insert", "begin", "chunk", "state", "cancel", "get", "stat", "list", "delete". */
  readonly operation: string;
  readonly key: string;
  readonly query: URLSearchParams;
  readonly headers: http.IncomingHttpHeaders;
}

interface Entry {
  readonly bytes: Buffer;
  readonly crc32c: string;
  readonly generation: number;
  readonly updated: string;
  readonly keySha256: string | undefined;
}

interface Session {
  readonly key: string;
  readonly condition: string | null;
  readonly keySha256: string | undefined;
  chunks: Buffer[];
  storedBytes: number;
  /** What was answered to the last chunk. */
  done: string | undefined;
}

interface Answer {
  readonly status: number;
  readonly headers?: Record<string, string>;
  readonly body?: string | Buffer;
}

const UNIT_BYTES = 256 * 1024;

/**
 * A strict little GCS: one bucket in memory. It refuses requests without the token that counts at
 * the moment, chunks of odd lengths, bodies that do not fit their CRC32C, and objects of a
 * customer's key without that key.
 */
export class GcsEmulation implements AsyncDisposable {
  readonly bucket = "emulated";
  readonly objects = new Map<string, Entry>();
  readonly sessions = new Map<string, Session>();
  readonly requests: GcsRequest[] = [];
  /** Whether a token counts; undefined: none is asked for. */
  acceptsToken: ((token: string) => boolean) | undefined;
  readonly #quirks: GcsQuirks;
  readonly #server: http.Server;
  #generation = 1_700_000_000_000_000;

  private constructor(quirks: GcsQuirks) {
    this.#quirks = quirks;
    this.#server = http.createServer((request, response) => {
      this.#handle(request, response).catch((error: unknown) => {
        response.writeHead(500);
        response.end(String(error));
      });
    });
  }

  static async start(quirks: GcsQuirks = {}): Promise<GcsEmulation> {
    const emulation = new GcsEmulation(quirks);
    await listen(emulation.#server);
    return emulation;
  }

  get endpoint(): string {
    return `http://127.0.0.1:${portOf(this.#server)}`;
  }

  count(operation: string): number {
    return this.requests.filter((request) => request.operation === operation).length;
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await closeHttp(this.#server);
  }

  async #handle(request: http.IncomingMessage, response: http.ServerResponse): Promise<void> {
    const url = new URL(request.url ?? "/", "http://localhost");
    const body = await readBody(request);
    const [, upload, bucket = "", name = ""] =
      /^(\/upload)?\/storage\/v1\/b\/([^/]+)\/o(?:\/([^/]+))?$/.exec(url.pathname) ?? [];
    const query = url.searchParams;
    const method = request.method ?? "";
    const operation = operationOf(method, { isUpload: upload !== undefined, name, query });
    const key = decodeURIComponent(name) || (query.get("name") ?? "");
    const seen = { operation, key, query, headers: request.headers };
    this.requests.push(seen);
    const answer = await this.#answer(seen, body, decodeURIComponent(bucket));
    const bytes = Buffer.from(answer.body ?? "");
    response.writeHead(answer.status, { "content-length": `${bytes.length}`, ...answer.headers });
    response.end(bytes);
  }

  async #answer(request: GcsRequest, body: Buffer, bucket: string): Promise<Answer> {
    const token = (request.headers.authorization ?? "").replace(/^Bearer /, "");
    if (this.acceptsToken?.(token) === false)
      return failure(401, "authError", "Invalid Credentials");
    if (bucket !== this.bucket) {
      return failure(404, "notFound", "The specified bucket does not exist.");
    }
    switch (request.operation) {
      case "insert":
        return await this.#insert(request, body);
      case "begin":
        return this.#begin(request);
      case "chunk":
      case "state":
        return await this.#chunk(request, body);
      case "cancel":
        this.sessions.delete(request.query.get("upload_id") ?? "");
        return { status: 499 };
      case "get":
        return this.#get(request);
      case "stat":
        return this.#stat(request);
      case "list":
        return this.#list(request);
      case "delete":
        return this.#delete(request);
      default:
        return failure(400, "invalid", "no such operation");
    }
  }

  async #insert(request: GcsRequest, body: Buffer): Promise<Answer> {
    const [, boundary = "?"] = /boundary=(\S+)$/.exec(request.headers["content-type"] ?? "") ?? [];
    const parts = splitParts(body, boundary);
    if (parts === undefined) return failure(400, "badContent", "no multipart body");
    const { name, crc32c }: { name: string; crc32c: string } = JSON.parse(parts[0].toString());
    const condition = request.query.get("ifGenerationMatch");
    return await this.#store({
      key: name,
      bytes: parts[1],
      crc32c,
      condition,
      keySha256: keyOf(request.headers),
    });
  }

  async #store(object: {
    readonly key: string;
    readonly bytes: Buffer;
    readonly crc32c: string | undefined;
    readonly condition: string | null;
    readonly keySha256: string | undefined;
  }): Promise<Answer> {
    const { key, bytes, crc32c, condition, keySha256 } = object;
    const actual = await crc32cOf(bytes);
    if (crc32c !== actual) {
      return failure(400, "invalid", `Provided CRC32C "${crc32c}" doesn't match "${actual}".`);
    }
    const refusal = this.#refusal(key, condition);
    if (refusal !== undefined) return refusal;
    const updated = new Date().toISOString();
    const entry = { bytes, crc32c, generation: this.#generation++, updated, keySha256 };
    this.objects.set(key, entry);
    return json(describe(key, entry));
  }

  #refusal(key: string, condition: string | null): Answer | undefined {
    const entry = this.objects.get(key);
    const isChecked = condition !== null && this.#quirks.ignoresConditions !== true;
    if (isChecked && condition !== `${entry?.generation ?? 0}`) {
      return failure(412, "conditionNotMet", "At least one of the pre-conditions did not hold.");
    }
    if (entry === undefined || this.#quirks.isRetained !== true) return undefined;
    return failure(403, "retentionPolicyNotMet", `Object '${key}' is subject to a policy.`);
  }

  #begin({ key, query, headers }: GcsRequest): Answer {
    const condition = query.get("ifGenerationMatch");
    const refusal = condition === null ? undefined : this.#refusal(key, condition);
    if (refusal !== undefined) return refusal;
    const id = `session-${this.sessions.size + 1}`;
    const state = { chunks: [], storedBytes: 0, done: undefined };
    this.sessions.set(id, { key, condition, keySha256: keyOf(headers), ...state });
    const path = `/upload/storage/v1/b/${this.bucket}/o?uploadType=resumable&upload_id=${id}`;
    // Another host than ours: nobody may send there.
    return { status: 200, headers: { location: `http://elsewhere.invalid${path}` } };
  }

  async #chunk({ query, headers }: GcsRequest, body: Buffer): Promise<Answer> {
    const session = this.sessions.get(query.get("upload_id") ?? "");
    if (session === undefined) return failure(410, "uploadBroken", "no such upload");
    if (session.done !== undefined) return { status: 200, body: session.done };
    if (session.keySha256 !== keyOf(headers)) return failure(400, "invalid", "another key");
    const [, first, last, total = "*"] =
      /^bytes (?:(\d+)-(\d+)|\*)\/(\d+|\*)$/.exec(headers["content-range"] ?? "") ?? [];
    if (first !== undefined) {
      if (Number(last) - Number(first) + 1 !== body.length)
        return failure(400, "invalid", "length");
      if (total === "*" && body.length % UNIT_BYTES !== 0) return failure(400, "invalid", "odd");
      const skipped = session.storedBytes - Number(first);
      if (skipped < 0) return failure(400, "invalid", "a hole");
      const limit = total === "*" ? this.#quirks.storedChunkBytes : undefined;
      const kept = Buffer.from(body.subarray(skipped, limit));
      session.chunks.push(kept);
      session.storedBytes += kept.length;
    }
    if (
      total !== `${session.storedBytes}` ||
      (first === undefined && !("x-goog-hash" in headers))
    ) {
      const range = `bytes=0-${session.storedBytes - 1}`;
      return { status: 308, headers: session.storedBytes === 0 ? {} : { range } };
    }
    const [, crc32c] = /^crc32c=(.*)$/.exec(String(headers["x-goog-hash"])) ?? [];
    const { key, condition, keySha256 } = session;
    const bytes = Buffer.concat(session.chunks);
    const answer = await this.#store({ key, bytes, crc32c, condition, keySha256 });
    if (answer.status === 200) session.done = answer.body?.toString();
    session.chunks = [];
    return answer;
  }

  #missing(key: string): Answer {
    if (this.#quirks.hasPlain404 === true) return failure(404, "notFound", "Not Found");
    return failure(404, "notFound", `No such object: ${this.bucket}/${key}`);
  }

  #get(request: GcsRequest): Answer {
    const { key, query, headers } = request;
    const entry = this.objects.get(key);
    if (entry === undefined) {
      const { status } = this.#missing(key);
      const isPlain = this.#quirks.hasPlain404 === true;
      return { status, body: isPlain ? "Not Found" : `No such object: ${this.bucket}/${key}` };
    }
    const condition = query.get("ifGenerationMatch");
    if (condition !== null && condition !== `${entry.generation}`) {
      return failure(412, "conditionNotMet", "At least one of the pre-conditions did not hold.");
    }
    if (entry.keySha256 !== keyOf(headers)) {
      return failure(400, "resourceIsEncryptedWithCustomerEncryptionKey", "wants its key");
    }
    const { bytes, crc32c, generation } = entry;
    const common = { "x-goog-generation": `${generation}`, "x-goog-hash": `crc32c=${crc32c}` };
    const [, first, last] = /^bytes=(\d+)-(\d*)$/.exec(headers.range ?? "") ?? [];
    if (first === undefined) return { status: 200, headers: common, body: bytes };
    const start = Number(first);
    if (start >= bytes.length) return { status: 416, body: "range not satisfiable" };
    const part = bytes.subarray(start, last === "" ? undefined : Number(last) + 1);
    const range = `bytes ${start}-${start + part.length - 1}/${bytes.length}`;
    return { status: 206, headers: { ...common, "content-range": range }, body: part };
  }

  #stat({ key }: GcsRequest): Answer {
    const entry = this.objects.get(key);
    return entry === undefined ? this.#missing(key) : json(describe(key, entry));
  }

  #list({ query }: GcsRequest): Answer {
    const from = query.get("pageToken") ?? query.get("startOffset") ?? "";
    const matching = [...this.objects.keys()]
      .filter((key) => key.startsWith(query.get("prefix") ?? "") && compareKeys(key, from) >= 0)
      .toSorted(compareKeys);
    const page = matching.slice(0, Number(query.get("maxResults") ?? 1000));
    const next = matching[page.length];
    const items = page.flatMap((key) => {
      const entry = this.objects.get(key);
      return entry === undefined ? [] : describe(key, entry);
    });
    return json({
      kind: "storage#objects",
      ...(items.length === 0 ? {} : { items }),
      ...(next === undefined ? {} : { nextPageToken: next }),
    });
  }

  #delete({ key, query }: GcsRequest): Answer {
    const entry = this.objects.get(key);
    if (entry === undefined) return this.#missing(key);
    const condition = query.get("ifGenerationMatch");
    if (condition !== null && condition !== `${entry.generation}`) {
      return failure(412, "conditionNotMet", "At least one of the pre-conditions did not hold.");
    }
    const refusal = this.#refusal(key, null);
    if (refusal !== undefined) return refusal;
    this.objects.delete(key);
    return { status: 204 };
  }
}

/** Settings as config/ would make them; `prefix` keeps tests apart. */
export function gcsConfig(
  server: { readonly endpoint: string; readonly bucket: string },
  settings: Partial<GcsConfig> = {},
): GcsConfig {
  const { endpoint, bucket } = server;
  const chunkBytes = 16 * 1024 * 1024;
  return { kind: "gcs", bucket, prefix: "", endpoint, isAnonymous: true, chunkBytes, ...settings };
}

function describe(key: string, { bytes, crc32c, generation, updated }: Entry) {
  const size = `${bytes.length}`;
  return { kind: "storage#object", name: key, size, crc32c, generation: `${generation}`, updated };
}

function operationOf(
  method: string,
  { isUpload, name, query }: { isUpload: boolean; name: string; query: URLSearchParams },
): string {
  if (isUpload) {
    if (method === "DELETE") return "cancel";
    if (method === "PUT") return "chunk";
    return query.get("uploadType") === "multipart" ? "insert" : "begin";
  }
  if (method === "DELETE") return "delete";
  if (name === "") return "list";
  return query.get("alt") === "media" ? "get" : "stat";
}

/** The contents of a body of two parts. */
function splitParts(body: Buffer, boundary: string): readonly [Buffer, Buffer] | undefined {
  const contents: Buffer[] = [];
  const line = Buffer.from(`--${boundary}`);
  let at = body.indexOf(line);
  while (at >= 0) {
    const from = body.indexOf("\r\n\r\n", at);
    const to = body.indexOf(Buffer.from(`\r\n--${boundary}`), at + line.length);
    if (from < 0 || to < 0) break;
    contents.push(body.subarray(from + 4, to));
    at = to + 2;
  }
  const [metadata, bytes] = contents;
  return metadata === undefined || bytes === undefined ? undefined : [metadata, bytes];
}

function keyOf(headers: http.IncomingHttpHeaders): string | undefined {
  const key = headers["x-goog-encryption-key"];
  if (typeof key !== "string") return undefined;
  const sum = createHash("sha256").update(Buffer.from(key, "base64")).digest("base64");
  return headers["x-goog-encryption-key-sha256"] === sum ? sum : "wrong";
}

async function crc32cOf(bytes: Uint8Array): Promise<string> {
  const sum = await createCrc32c();
  sum.update(bytes);
  return sum.base64();
}

function json(value: object): Answer {
  return { status: 200, body: JSON.stringify(value) };
}

/** What GCS's JSON API says of an error. */
export function errorJson(status: number, reason: string, message: string): string {
  const errors = [{ message, domain: "global", reason }];
  return JSON.stringify({ error: { code: status, message, errors } });
}

function failure(status: number, reason: string, message: string): Answer {
  return { status, body: errorJson(status, reason, message) };
}

async function readBody(request: http.IncomingMessage): Promise<Buffer> {
  const chunks: Uint8Array[] = [];
  for await (const chunk of request) {
    if (chunk instanceof Uint8Array) chunks.push(chunk);
  }
  return Buffer.concat(chunks);
}
