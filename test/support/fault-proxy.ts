import { once } from "node:events";
import http from "node:http";
import net from "node:net";
import { setTimeout as delay } from "node:timers/promises";
import { listen, portOf } from "./listening.ts";

/** What the proxy knows of a request when it chooses a fault for it. */
export interface ProxiedRequest {
  /** Counted from 1, over all requests of the proxy. */
  readonly number: number;
  readonly method: string;
  /** Path and query. */
  readonly url: string;
  readonly headers: http.IncomingHttpHeaders;
}

/** At most one of them for a request; `delayMs` goes with each. */
export interface HttpFault {
  /** Waits before anything is done. */
  readonly delayMs?: number;
  /** Answers by itself; the server is not asked. */
  readonly answer?: { status: number; headers?: Record<string, string>; body?: string };
  /** Resets the connection once so much of the request's body came; the server is not asked. */
  readonly resetAfterBytes?: number;
  /** The server gets so many bytes of the request's body, then both connections are reset. */
  readonly cutRequestAfterBytes?: number;
  /** One bit of this byte of the request's body is wrong when the server gets it. */
  readonly corruptRequestByte?: number;
  /** The server does it, the client sees a reset instead of the answer. */
  readonly loseAnswer?: boolean;
  /** The server's answer ends with a reset after so many bytes of its body. */
  readonly truncateAfterBytes?: number;
  /** One bit of this byte of the answer's body is wrong. */
  readonly corruptByte?: number;
  /** The answer's body comes no faster than this. */
  readonly bytesPerSecond?: number;
  /** The request's body is taken no faster than this. */
  readonly requestBytesPerSecond?: number;
  /** Takes the request and never answers. */
  readonly hang?: boolean;
}

/** Chooses what goes wrong with a request; undefined: nothing. */
export type FaultRule = (request: ProxiedRequest) => HttpFault | undefined;

/** An HTTP proxy on 127.0.0.1 before one server, for faults that servers have and tests need. */
export class FaultProxy implements AsyncDisposable {
  rule: FaultRule = () => undefined;
  /** All requests until now. */
  readonly requests: ProxiedRequest[] = [];
  readonly #target: URL;
  readonly #server: http.Server;
  readonly #sockets = new Set<net.Socket>();

  private constructor(target: string) {
    this.#target = new URL(target);
    this.#server = http.createServer((request, response) => {
      // Both sides forget the socket once their stream is done.
      const { socket } = request;
      this.#handle(request, response, socket).catch(() => socket.destroy());
    });
    this.#server.on("connection", (socket: net.Socket) => {
      socket.setNoDelay(true);
      this.#sockets.add(socket);
      socket.on("close", () => this.#sockets.delete(socket));
    });
  }

  /** `target` is the server's origin, "http://127.0.0.1:9000". */
  static async start(target: string): Promise<FaultProxy> {
    const proxy = new FaultProxy(target);
    await listen(proxy.#server);
    return proxy;
  }

  /** To be used in place of the server's own. */
  get endpoint(): string {
    return `http://127.0.0.1:${portOf(this.#server)}`;
  }

  async [Symbol.asyncDispose](): Promise<void> {
    const closed = once(this.#server, "close");
    this.#server.close();
    for (const socket of this.#sockets) socket.destroy();
    this.#server.closeAllConnections();
    await closed;
  }

  async #handle(
    request: http.IncomingMessage,
    response: http.ServerResponse,
    socket: net.Socket,
  ): Promise<void> {
    const { method = "GET", url = "/", headers } = request;
    const seen = { number: this.requests.length + 1, method, url, headers };
    this.requests.push(seen);
    const fault = this.rule(seen) ?? {};

    if (fault.delayMs !== undefined) await delay(fault.delayMs);
    if (fault.hang === true) return void request.resume();
    if (fault.answer !== undefined) return await answer(request, response, fault.answer);
    if (fault.resetAfterBytes !== undefined) {
      await receive(request, fault.resetAfterBytes);
      socket.resetAndDestroy();
      return;
    }

    const incoming = await this.#ask(request, fault);
    if (fault.loseAnswer === true) {
      for await (const _ of incoming) continue;
      socket.resetAndDestroy();
      return;
    }
    response.writeHead(incoming.statusCode ?? 502, incoming.headers);
    const isWhole = await passOn(incoming, response, fault);
    if (isWhole) response.end();
    else socket.resetAndDestroy();
  }

  async #ask(request: http.IncomingMessage, fault: HttpFault): Promise<http.IncomingMessage> {
    const { hostname, port } = this.#target;
    const { method = "GET", url = "/", headers } = request;
    const options = { host: hostname, port, method, path: url, headers, agent: false } as const;
    const asked = http.request(options);
    const answered = new Promise<http.IncomingMessage>((resolve, reject) => {
      asked.on("response", resolve);
      asked.on("error", reject);
    });
    const { cutRequestAfterBytes, corruptRequestByte, requestBytesPerSecond } = fault;
    if ((cutRequestAfterBytes ?? corruptRequestByte ?? requestBytesPerSecond) === undefined) {
      request.pipe(asked);
      return await answered;
    }
    // A server may have answered before it has everything.
    answered.catch(() => {});
    if (
      !(await passOn(request, asked, {
        corruptByte: corruptRequestByte,
        truncateAfterBytes: cutRequestAfterBytes,
        bytesPerSecond: requestBytesPerSecond,
      }))
    ) {
      asked.destroy();
      throw new Error("cut");
    }
    asked.end();
    return await answered;
  }
}

async function answer(
  request: http.IncomingMessage,
  response: http.ServerResponse,
  { status, headers = {}, body = "" }: NonNullable<HttpFault["answer"]>,
): Promise<void> {
  for await (const _ of request) continue;
  response.writeHead(status, { "content-length": `${Buffer.byteLength(body)}`, ...headers });
  response.end(body);
}

async function receive(request: http.IncomingMessage, sizeBytes: number): Promise<void> {
  let receivedBytes = 0;
  for await (const chunk of request) {
    if (chunk instanceof Uint8Array) receivedBytes += chunk.length;
    if (receivedBytes >= sizeBytes) return;
  }
}

interface BodyFault {
  readonly truncateAfterBytes?: number | undefined;
  readonly corruptByte?: number | undefined;
  readonly bytesPerSecond?: number | undefined;
}

/** Gives false if the body is to end before its end. */
async function passOn(
  incoming: http.IncomingMessage,
  outgoing: http.OutgoingMessage,
  { truncateAfterBytes, corruptByte, bytesPerSecond }: BodyFault,
): Promise<boolean> {
  let sentBytes = 0;
  for await (const chunk of incoming) {
    if (!(chunk instanceof Uint8Array)) continue;
    const bytes = Buffer.from(chunk);
    flipAt(bytes, (corruptByte ?? -1) - sentBytes);

    const leftBytes = (truncateAfterBytes ?? Number.POSITIVE_INFINITY) - sentBytes;
    if (bytes.length > leftBytes) {
      await send(outgoing, bytes.subarray(0, leftBytes));
      incoming.destroy();
      return false;
    }
    await send(outgoing, bytes);
    sentBytes += bytes.length;
    if (bytesPerSecond !== undefined) await delay((bytes.length / bytesPerSecond) * 1000);
  }
  return true;
}

async function send(outgoing: http.OutgoingMessage, bytes: Uint8Array): Promise<void> {
  if (bytes.length === 0) return;
  await new Promise<void>((resolve, reject) => {
    outgoing.write(bytes, (error) => (error ? reject(error) : resolve()));
  });
}

/** What goes wrong with a connection of bytes that nobody understands: SFTP, TLS, PostgreSQL. */
export interface TcpFault {
  /** Each chunk waits so long, in both directions. */
  readonly delayMs?: number;
  /** Reset after the client sent so many bytes. */
  readonly cutAfterBytes?: number;
  /** Reset after the server sent so many bytes; it still does all that it was sent. */
  readonly cutAnswersAfterBytes?: number;
  /** One bit of this byte that the client sends is wrong when the server gets it. */
  readonly corruptByte?: number;
  /** Runs when the client has sent more than so many bytes; nothing more passes before it ends. */
  readonly atBytes?: { readonly count: number; readonly run: () => Promise<void> };
  /** Accepts, and reads what comes, but never answers. */
  readonly isSilent?: boolean;
  /** Accepts and never reads: the client's writes stall once the system's buffers are full. */
  readonly isDeaf?: boolean;
}

/** The same for any protocol over TCP. */
export class TcpFaultProxy implements AsyncDisposable {
  /** Of all connections, also those that are there. */
  fault: TcpFault = {};
  /** Chooses a fault for one connection, counted from 1; undefined: `fault`. */
  rule: ((connection: number) => TcpFault | undefined) | undefined;
  #count = 0;
  readonly #target: { readonly host: string; readonly port: number };
  readonly #server: net.Server;
  readonly #sockets = new Set<net.Socket>();

  private constructor(target: { readonly host: string; readonly port: number }) {
    this.#target = target;
    this.#server = net.createServer((client) => this.#connect(client));
  }

  static async start(target: { host: string; port: number }): Promise<TcpFaultProxy> {
    const proxy = new TcpFaultProxy(target);
    await listen(proxy.#server);
    return proxy;
  }

  get port(): number {
    return portOf(this.#server);
  }

  /** Connections that are open now. */
  get connectionCount(): number {
    return this.#sockets.size;
  }

  async [Symbol.asyncDispose](): Promise<void> {
    const closed = once(this.#server, "close");
    this.#server.close();
    for (const socket of this.#sockets) socket.destroy();
    await closed;
  }

  #connect(client: net.Socket): void {
    this.#count += 1;
    const own = this.rule?.(this.#count);
    const current = () => own ?? this.fault;
    const { isDeaf, isSilent } = current();
    this.#track(client);
    if (isDeaf === true) return void client.pause();
    if (isSilent === true) return void client.resume();

    const server = net.connect(this.#target);
    this.#track(server);
    const pass = async (from: net.Socket, to: net.Socket) => {
      let sentBytes = 0;
      let isRun = false;
      const isFromClient = from === client;
      for await (const chunk of from) {
        if (!(chunk instanceof Uint8Array)) continue;
        const { delayMs, cutAfterBytes, cutAnswersAfterBytes, corruptByte, atBytes } = current();
        if (delayMs !== undefined) await delay(delayMs);
        if (isFromClient) flipAt(chunk, (corruptByte ?? -1) - sentBytes);
        sentBytes += chunk.length;
        if (sentBytes > ((isFromClient ? cutAfterBytes : cutAnswersAfterBytes) ?? Infinity)) {
          client.resetAndDestroy();
          if (isFromClient) server.destroy();
          else server.end();
          return;
        }
        if (isFromClient && !isRun && atBytes !== undefined && sentBytes > atBytes.count) {
          isRun = true;
          await atBytes.run();
        }
        if (!to.write(chunk)) await once(to, "drain");
      }
      to.end();
    };
    const destroy = () => {
      client.destroy();
      server.destroy();
    };
    pass(client, server).catch(destroy);
    pass(server, client).catch(destroy);
  }

  #track(socket: net.Socket): void {
    this.#sockets.add(socket);
    socket.on("error", () => socket.destroy());
    socket.on("close", () => this.#sockets.delete(socket));
  }
}

/** Breaks the first `times` requests that `matches`. */
export function first(
  times: number,
  matches: (method: string, url: string) => boolean,
  fault: ReturnType<FaultRule>,
): FaultRule {
  let left = times;
  return ({ method, url }) => (matches(method, url) && left-- > 0 ? fault : undefined);
}

function flipAt(bytes: Uint8Array, index: number): void {
  const byte = bytes[index];
  if (byte !== undefined) bytes[index] = byte ^ 1;
}
