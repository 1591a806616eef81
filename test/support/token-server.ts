import { once } from "node:events";
import http from "node:http";
import https from "node:https";
import type { Server } from "node:net";
import type { Certificates } from "./certificates.ts";
import { listen, portOf } from "./listening.ts";

export interface TokenRequest {
  readonly method: string;
  readonly url: URL;
  readonly headers: http.IncomingHttpHeaders;
  readonly body: string;
}

export interface TokenAnswer {
  readonly status: number;
  /** Text goes as it is, all else as JSON. */
  readonly body: unknown;
}

/** Whoever gives tokens: a metadata service, an STS, Entra ID. Answers in JSON as it is told. */
export class TokenServer implements AsyncDisposable {
  readonly requests: TokenRequest[] = [];
  readonly #server: Server;
  readonly #scheme: string;

  private constructor(
    answer: (request: TokenRequest) => TokenAnswer,
    certificates: Certificates | undefined,
  ) {
    const handle = (request: http.IncomingMessage, response: http.ServerResponse) => {
      this.#handle(request, response, answer).catch((error: unknown) => {
        response.writeHead(500);
        response.end(String(error));
      });
    };
    this.#scheme = certificates === undefined ? "http" : "https";
    this.#server =
      certificates === undefined
        ? http.createServer(handle)
        : https.createServer({ key: certificates.key, cert: certificates.certificate }, handle);
  }

  static async start(
    answer: (request: TokenRequest) => TokenAnswer,
    certificates?: Certificates,
  ): Promise<TokenServer> {
    const server = new TokenServer(answer, certificates);
    await listen(server.#server);
    return server;
  }

  /** "127.0.0.1:40123" */
  get host(): string {
    return `127.0.0.1:${portOf(this.#server)}`;
  }

  get origin(): string {
    return `${this.#scheme}://${this.host}`;
  }

  async [Symbol.asyncDispose](): Promise<void> {
    const closed = once(this.#server, "close");
    this.#server.close();
    if ("closeAllConnections" in this.#server) {
      const { closeAllConnections } = this.#server;
      if (typeof closeAllConnections === "function") closeAllConnections.call(this.#server);
    }
    await closed;
  }

  async #handle(
    request: http.IncomingMessage,
    response: http.ServerResponse,
    answer: (request: TokenRequest) => TokenAnswer,
  ): Promise<void> {
    const chunks: Uint8Array[] = [];
    for await (const chunk of request) if (chunk instanceof Uint8Array) chunks.push(chunk);
    const seen = {
      method: request.method ?? "",
      url: new URL(request.url ?? "/", "http://localhost"),
      headers: request.headers,
      body: Buffer.concat(chunks).toString(),
    };
    this.requests.push(seen);
    const { status, body } = answer(seen);
    response.writeHead(status, { "content-type": "application/json" });
    response.end(typeof body === "string" ? body : JSON.stringify(body));
  }
}

/** A token as Entra ID gives them; nobody checks its signature. */
export function azureJwt(lifeMs: number): { readonly token: string; readonly expiresOn: number } {
  const now = Math.floor(Date.now() / 1000);
  const expiresOn = Math.ceil((Date.now() + lifeMs) / 1000);
  const tenant = "11111111-2222-3333-4444-555555555555";
  const claims = {
    aud: "https://storage.azure.com",
    iss: `https://sts.windows.net/${tenant}/`,
    iat: now,
    nbf: now - 60,
    exp: expiresOn,
    tid: tenant,
    oid: tenant,
  };
  return { token: `${encode({ alg: "RS256", typ: "JWT" })}.${encode(claims)}.c2ln`, expiresOn };
}

function encode(part: object): string {
  return Buffer.from(JSON.stringify(part)).toString("base64url");
}
