import http from "node:http";
import https from "node:https";
import net from "node:net";
import { closeHttp, listen, portOf } from "./listening.ts";

/** What a proxy was asked for. */
export interface ProxyRequest {
  /** "CONNECT host:port", or "GET http://host:port/path". */
  readonly line: string;
  readonly login: string | undefined;
}

export interface ConnectProxyOptions {
  /** "name:password" that it wants. */
  readonly login?: string;
  /** Spoken to by TLS itself. */
  readonly tls?: { readonly key: string; readonly cert: string };
}

/** A little HTTP proxy: tunnels by CONNECT, and whole URLs. Every name leads to this machine. */
export class ConnectProxy implements AsyncDisposable {
  readonly requests: ProxyRequest[] = [];
  /** From clients into tunnels, and in bodies that were passed on. */
  passedBytes = 0;
  /** Answers every request with this instead. */
  refusal: number | undefined;
  /** Takes connections and never answers. */
  isSilent = false;
  readonly #options: ConnectProxyOptions;
  readonly #server: http.Server;
  readonly #tunnels = new Set<net.Socket>();

  private constructor(options: ConnectProxyOptions) {
    this.#options = options;
    this.#server =
      options.tls === undefined ? http.createServer() : https.createServer(options.tls);
    this.#server.on("request", (request, response) => this.#forward(request, response));
    this.#server.on("connect", (request, socket, head) => this.#tunnel(request, socket, head));
  }

  static async start(options: ConnectProxyOptions = {}): Promise<ConnectProxy> {
    const proxy = new ConnectProxy(options);
    await listen(proxy.#server);
    return proxy;
  }

  get port(): number {
    return portOf(this.#server);
  }

  get url(): string {
    return `http${this.#options.tls === undefined ? "" : "s"}://127.0.0.1:${this.port}`;
  }

  count(method: string): number {
    return this.requests.filter(({ line }) => line.startsWith(`${method} `)).length;
  }

  /** Breaks all tunnels. */
  cut(): void {
    for (const socket of this.#tunnels) socket.destroy();
  }

  async [Symbol.asyncDispose](): Promise<void> {
    this.cut();
    await closeHttp(this.#server);
  }

  /** The status of a refusal, if it is one. */
  #judge({ method = "", url = "", headers }: http.IncomingMessage): number | undefined {
    const login = headers["proxy-authorization"];
    this.requests.push({ line: `${method} ${url}`, login });
    if (this.refusal !== undefined) return this.refusal;
    const wanted = this.#options.login;
    if (wanted === undefined) return undefined;
    return login === `Basic ${Buffer.from(wanted).toString("base64")}` ? undefined : 407;
  }

  #tunnel(request: http.IncomingMessage, socket: NodeJS.ReadWriteStream, head: Buffer): void {
    const status = this.#judge(request);
    if (!(socket instanceof net.Socket)) throw new Error("no socket");
    this.#tunnels.add(socket);
    socket.on("error", () => {});
    socket.on("close", () => this.#tunnels.delete(socket));
    if (this.isSilent) return;
    if (status !== undefined) {
      socket.end(`HTTP/1.1 ${status} ${http.STATUS_CODES[status]}\r\ncontent-length: 0\r\n\r\n`);
      return;
    }
    const port = Number(/:(\d+)$/.exec(request.url ?? "")?.[1]);
    const onward = net.connect(port, "127.0.0.1", () => {
      socket.write("HTTP/1.1 200 Connection established\r\n\r\n");
      onward.write(head);
      onward.pipe(socket);
      socket.on("data", (chunk: Buffer) => void (this.passedBytes += chunk.length));
      socket.pipe(onward);
    });
    onward.on("error", () => socket.destroy());
    onward.on("close", () => socket.destroy());
    socket.on("close", () => onward.destroy());
  }

  #forward(request: http.IncomingMessage, response: http.ServerResponse): void {
    const status = this.#judge(request);
    if (status !== undefined) {
      response.writeHead(status).end();
      return;
    }
    const { port, pathname, search } = new URL(request.url ?? "");
    const { "proxy-authorization": _, ...headers } = request.headers;
    const path = pathname + search;
    const onward = http.request(
      { host: "127.0.0.1", port, path, method: request.method, headers },
      (answer) => {
        response.writeHead(answer.statusCode ?? 0, answer.headers);
        answer.pipe(response);
      },
    );
    onward.on("error", () => response.destroy());
    request.on("data", (chunk: Buffer) => void (this.passedBytes += chunk.length));
    request.pipe(onward);
  }
}
