import type { Readable } from "node:stream";
import { StorageError } from "../errors.ts";
import type { Clock } from "../io/clock.ts";
import type { ProxyConfig } from "./http-proxy.ts";
import { HttpSender } from "./http-sender.ts";
import type { SendOptions } from "./storage.ts";
import type { StoreTraffic } from "./traffic.ts";

/** A request whose whole body is at hand. */
export interface RestRequest {
  readonly method: "GET" | "HEAD" | "PUT" | "POST" | "DELETE";
  readonly url: URL;
  /** Names in lower case. */
  readonly headers: Readonly<Record<string, string>>;
  readonly body?: RestBody | undefined;
}

/** Bytes, in one piece or several. */
export type RestBody = Uint8Array | readonly Uint8Array[];

export interface RestResponse {
  readonly status: number;
  /** Names in lower case. */
  readonly headers: Readonly<Record<string, string>>;
  /** To be read to its end or destroyed. */
  readonly body: Readable;
}

export interface RestOptions extends SendOptions {
  /** How many times longer than others this request may be silent; 1 unless given. */
  readonly patience?: number | undefined;
}

/** Far more than any answer that is no object. */
const MAX_TEXT_BYTES = 64 * 1024 * 1024;

export interface RestSenderOptions {
  /** Silence of this length ends a request. */
  readonly requestTimeoutMs: number;
  readonly clock: Clock;
  /** PEM certificates that are trusted instead of the system's. */
  readonly certificates?: string | undefined;
  readonly proxy?: ProxyConfig | undefined;
  /** Absent for requests that are not to the store itself. */
  readonly traffic?: StoreTraffic | undefined;
}

/** Sends requests of stores that we speak to without an SDK: once, with a deadline in each phase. */
export class RestSender {
  readonly #sender: HttpSender;
  readonly #requestTimeoutMs: number;

  constructor(options: RestSenderOptions) {
    const { requestTimeoutMs, clock, certificates, proxy, traffic } = options;
    this.#requestTimeoutMs = requestTimeoutMs;
    this.#sender = new HttpSender({
      timeoutMs: requestTimeoutMs,
      clock,
      traffic,
      proxy,
      ...(certificates === undefined ? {} : { certificates }),
    });
  }

  async send(
    request: RestRequest,
    { signal, patience = 1, onSent }: RestOptions,
  ): Promise<RestResponse> {
    signal.throwIfAborted();
    const { method, url, headers, body } = request;
    const { response } = await this.#sender.handle(
      {
        method,
        protocol: url.protocol,
        hostname: url.hostname,
        ...(url.port === "" ? {} : { port: Number(url.port) }),
        path: `${url.pathname}${url.search}`,
        headers: { ...headers, ...lengthHeader(method, body) },
        body,
      },
      { abortSignal: signal, requestTimeout: this.#requestTimeoutMs * patience, onSent },
    );
    return { status: response.statusCode, headers: response.headers, body: response.body };
  }

  destroy(): void {
    this.#sender.destroy();
  }
}

function lengthHeader(method: string, body: RestBody | undefined): Record<string, string> {
  const hasBody = method === "PUT" || method === "POST";
  return hasBody ? { "content-length": `${lengthOf(body)}` } : {};
}

/** How many bytes a body has. */
export function lengthOf(body: RestBody | undefined): number {
  if (body === undefined) return 0;
  if (body instanceof Uint8Array) return body.length;
  return body.reduce((sum, piece) => sum + piece.length, 0);
}

/** The whole body of an answer that is no object. */
export async function readText({ body }: RestResponse): Promise<string> {
  const chunks: Buffer[] = [];
  let sizeBytes = 0;
  for await (const chunk of body) {
    if (!(chunk instanceof Uint8Array)) continue;
    sizeBytes += chunk.length;
    if (sizeBytes > MAX_TEXT_BYTES) {
      throw new StorageError(`an answer has more than ${MAX_TEXT_BYTES} bytes`, {
        isRetryable: false,
      });
    }
    chunks.push(Buffer.from(chunk));
  }
  return Buffer.concat(chunks).toString();
}
