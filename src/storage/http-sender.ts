import http from "node:http";
import https from "node:https";
import { Readable } from "node:stream";
import { StorageError } from "../errors.ts";
import { abortable, untilAborted } from "../io/abort.ts";
import type { Clock } from "../io/clock.ts";
import { Watchdog } from "../io/watchdog.ts";
import type { HttpProxy, ProxyConfig } from "./http-proxy.ts";
import { retryAfterSeconds, NO_ANSWER_HINT } from "./request-errors.ts";
import type { SendOptions } from "./storage.ts";
import type { StoreTraffic } from "./traffic.ts";

/** What an SDK asks to be sent; the part of its own type that we use. */
export interface SdkRequest {
  readonly method: string;
  readonly protocol: string;
  readonly hostname: string;
  readonly port?: number;
  readonly path: string;
  readonly query?: Readonly<Record<string, string | readonly string[] | null>>;
  readonly headers: Readonly<Record<string, string>>;
  /** Bytes or a text, or an array of them. */
  readonly body?: unknown;
}

export interface SdkResponse {
  readonly statusCode: number;
  readonly headers: Record<string, string>;
  readonly body: Readable;
}

/** What goes with a request; the SDK passes it on from its `send`. */
export interface SdkHandlerOptions {
  readonly abortSignal?: unknown;
  /** Milliseconds, for requests that take longer to be answered than others. */
  readonly requestTimeout?: number;
  readonly onSent?: SendOptions["onSent"];
}

export interface HttpSenderOptions {
  /** Nothing heard for so long (no byte accepted, no byte received) ends a request. */
  readonly timeoutMs: number;
  readonly clock: Clock;
  /** PEM certificates that are trusted instead of the system's. */
  readonly certificates?: string;
  /** Absent: the way is direct. */
  readonly proxy?: ProxyConfig | undefined;
  /** Decides when a request may go, and how fast its bytes; absent: at once. */
  readonly traffic?: StoreTraffic | undefined;
}

/** Written at once; each piece that the system accepts counts as progress. */
const WRITE_BYTES = 256 * 1024;
/** Buffered between the socket and a reader that is slower. */
const READ_AHEAD_BYTES = 1024 * 1024;
const MAX_SOCKETS = 128;
/** "Proxy Authentication Required": no store says so. */
const PROXY_LOGIN = 407;

/**
 * Sends an SDK's requests over node:http. Ours, because the deadline must cover each phase (name,
 * connection, TLS, each write, answer, each read), which no library's time-out does on Bun, and
 * because which proxy is used must not depend on the runtime: an own agent asks for none of itself.
 */
export class HttpSender {
  readonly metadata = { handlerProtocol: "http/1.1" };
  readonly #options: HttpSenderOptions;
  readonly #plain: http.Agent;
  readonly #secure: https.Agent;
  /** By their addresses; empty until one is needed. */
  readonly #proxies = new Map<string, HttpProxy>();

  constructor(options: HttpSenderOptions) {
    this.#options = options;
    const common = { keepAlive: true, maxSockets: MAX_SOCKETS };
    this.#plain = new http.Agent(common);
    const trust = options.certificates === undefined ? {} : { ca: options.certificates };
    this.#secure = new https.Agent({ ...common, ...trust });
  }

  async handle(
    request: SdkRequest,
    { abortSignal, requestTimeout = 0, onSent }: SdkHandlerOptions = {},
  ): Promise<{ response: SdkResponse }> {
    const signal = abortSignal instanceof AbortSignal ? abortSignal : new AbortController().signal;
    const { traffic } = this.#options;
    const send = () => this.#watched(request, { signal, requestTimeout, onSent });
    const response =
      traffic === undefined
        ? await send()
        : await traffic.exchange(request.method, send, { signal });
    return { response };
  }

  destroy(): void {
    this.#plain.destroy();
    this.#secure.destroy();
    for (const proxy of this.#proxies.values()) proxy.destroy();
  }

  updateHttpClientConfig(): void {}

  httpHandlerConfigs(): Record<string, never> {
    return {};
  }

  /** The time that a request waits for its turn is none in which the store is silent. */
  async #watched(
    request: SdkRequest,
    { signal, requestTimeout, onSent }: SendOptions & { readonly requestTimeout: number },
  ): Promise<SdkResponse> {
    const { clock, traffic } = this.#options;
    const silence = traffic?.silence;
    const timeoutMs = Math.max(this.#options.timeoutMs, requestTimeout);
    const origin = `${request.protocol}//${request.hostname}:${request.port ?? "default"}`;
    const watchdog = new Watchdog({
      signal,
      timeoutMs,
      clock,
      onTimeout: () =>
        new StorageError(`${origin} was silent for ${timeoutMs / 1000} s`, {
          isRetryable: true,
          hint: NO_ANSWER_HINT,
        }),
      notice: silence && { ...silence, tell: () => silence.tell(origin) },
    });
    try {
      return await this.#exchange(request, this.#way(watchdog, onSent));
    } catch (error) {
      watchdog[Symbol.dispose]();
      throw error;
    }
  }

  async #exchange(request: SdkRequest, way: Way): Promise<SdkResponse> {
    const { signal } = way.watchdog;
    signal.throwIfAborted();
    const proxy = await this.#proxyFor(request);
    const sent = this.#open(request, proxy);
    const answered = new Promise<http.IncomingMessage>((resolve, reject) => {
      sent.on("response", resolve);
      // Stays for good: a connection that breaks later must not be an uncaught exception.
      sent.on("error", reject);
    });
    try {
      // An answer may come before all was sent; then the rest is not.
      const writing = writeBody(sent, request.body, way);
      writing.catch(() => {});
      const incoming = await untilAborted(
        Promise.race([answered, writing.then(() => answered)]),
        signal,
      );
      const { statusCode = 0, statusMessage = "" } = incoming;
      if (proxy !== undefined && statusCode === PROXY_LOGIN) {
        throw proxy.refusal(statusCode, statusMessage, request);
      }
      return await receive(sent, incoming, way);
    } catch (error) {
      sent.destroy();
      throw proxy === undefined ? error : proxy.explain(error, request);
    }
  }

  /** What it needs is loaded where there is one to use. */
  async #proxyFor(request: SdkRequest): Promise<HttpProxy | undefined> {
    const { proxy: config, clock, timeoutMs, certificates } = this.#options;
    if (config === undefined) return undefined;
    const { HttpProxy: Proxy, findProxy } = await import("./http-proxy.ts");
    const url = findProxy(config, request);
    if (url === undefined) return undefined;
    const known = this.#proxies.get(url.href);
    if (known !== undefined) return known;
    const proxy = new Proxy(url, { clock, timeoutMs, certificates, maxSockets: MAX_SOCKETS });
    this.#proxies.set(url.href, proxy);
    return proxy;
  }

  #way(watchdog: Watchdog, onSent: SendOptions["onSent"]): Way {
    const { traffic, clock } = this.#options;
    return { watchdog, traffic, clock, onSent };
  }

  #open(request: SdkRequest, proxy: HttpProxy | undefined): http.ClientRequest {
    const { method, headers } = request;
    const path = request.path + formatQuery(request.query ?? {});
    if (proxy !== undefined) return proxy.request(request, { method, path, headers });
    const options = {
      method,
      host: request.hostname.replace(/^\[|\]$/g, ""),
      path,
      headers,
      ...(request.port === undefined ? {} : { port: request.port }),
    };
    return request.protocol === "https:"
      ? https.request({ ...options, agent: this.#secure })
      : http.request({ ...options, agent: this.#plain });
  }
}

/** What watches over the bytes of one request. */
interface Way extends Pick<SendOptions, "onSent"> {
  readonly watchdog: Watchdog;
  readonly traffic: StoreTraffic | undefined;
  readonly clock: Clock;
}

/** Waits until so many bytes may pass; that is no silence of the store. */
async function take({ watchdog, traffic }: Way, sizeBytes: number): Promise<void> {
  if (traffic === undefined) return;
  watchdog.suspend();
  await traffic.take(sizeBytes, watchdog);
  watchdog.resume();
}

async function writeBody(sent: http.ClientRequest, body: unknown, way: Way): Promise<void> {
  let sentBytes = 0;
  for (const bytes of bodyPieces(body)) {
    for (let start = 0; start < bytes.length; start += WRITE_BYTES) {
      const piece = bytes.subarray(start, start + WRITE_BYTES);
      await take(way, piece.length);
      await new Promise<void>((resolve, reject) => {
        sent.write(piece, (error) => (error ? reject(error) : resolve()));
      });
      way.watchdog.progress();
      way.traffic?.countSent(piece.length);
      sentBytes += piece.length;
      way.onSent?.(sentBytes);
    }
  }
  sent.end();
}

function bodyPieces(body: unknown): readonly Uint8Array[] {
  if (body === undefined || body === null) return [];
  if (body instanceof Uint8Array) return [body];
  if (typeof body === "string") return [Buffer.from(body)];
  if (Array.isArray(body)) return body.flatMap(bodyPieces);
  throw new TypeError("request bodies must be bytes: a stream could not be sent again");
}

async function receive(
  sent: http.ClientRequest,
  incoming: http.IncomingMessage,
  way: Way,
): Promise<SdkResponse> {
  const { watchdog } = way;
  watchdog.progress();
  const headers: Record<string, string> = {};
  for (const [name, value] of Object.entries(incoming.headers)) {
    if (value !== undefined) headers[name] = Array.isArray(value) ? value.join(", ") : value;
  }
  const retryAfter = retryAfterSeconds(headers, way.clock.now());
  if (retryAfter !== undefined) headers["retry-after"] = `${retryAfter}`;
  const statusCode = incoming.statusCode ?? 0;
  if (sent.method === "HEAD" || statusCode === 204 || statusCode === 304) {
    // Nobody reads such a body; read to its end, it gives the connection back.
    for await (const _ of readBody(sent, incoming, way)) continue;
    return { statusCode, headers, body: Readable.from([]) };
  }
  const body = Readable.from(readBody(sent, incoming, way), {
    objectMode: false,
    highWaterMark: READ_AHEAD_BYTES,
  });
  // A body that nobody reads never enters the generator's own clean-up.
  body.once("close", () => {
    watchdog[Symbol.dispose]();
    if (!incoming.readableEnded) sent.destroy();
  });
  return { statusCode, headers, body };
}

async function* readBody(
  sent: http.ClientRequest,
  incoming: http.IncomingMessage,
  way: Way,
): AsyncGenerator<Uint8Array, void, undefined> {
  const { watchdog, traffic } = way;
  let isWhole = false;
  try {
    for await (const chunk of abortable<Uint8Array>(incoming, watchdog.signal)) {
      traffic?.countReceived(chunk.length);
      await take(way, chunk.length);
      watchdog.suspend();
      yield chunk;
      watchdog.resume();
    }
    isWhole = true;
  } finally {
    watchdog[Symbol.dispose]();
    // What was not read, or answered before all was sent, leaves a connection of no further use.
    if (!isWhole || !sent.writableFinished) sent.destroy();
  }
}

/** As the signature has it: RFC 3986, names and values escaped alike. */
function formatQuery(query: Readonly<Record<string, string | readonly string[] | null>>): string {
  const pairs: string[] = [];
  for (const name of Object.keys(query).toSorted()) {
    const value = query[name];
    if (value === undefined) continue;
    if (value === null) pairs.push(escape(name));
    else for (const one of [value].flat()) pairs.push(`${escape(name)}=${escape(one)}`);
  }
  return pairs.length === 0 ? "" : `?${pairs.join("&")}`;
}

function escape(text: string): string {
  return encodeURIComponent(text).replace(
    /[!'()*]/g,
    (character) => `%${character.charCodeAt(0).toString(16).toUpperCase()}`,
  );
}
