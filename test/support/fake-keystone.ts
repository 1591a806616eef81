import { createHash } from "node:crypto";
import http from "node:http";
import type { SwiftConfig } from "../../src/storage/swift-config.ts";
import { listen, portOf } from "./listening.ts";

/** What the server says to a login; undefined: a token. */
export interface LoginAnswer {
  readonly status: number;
  readonly body?: string;
}

/**
 * A Keystone (version 3) and a Swift in one: as much of both as logins need. Objects are kept in
 * memory; a list has three names a page.
 */
export class FakeKeystone implements AsyncDisposable {
  readonly #server: http.Server;
  readonly #objects = new Map<string, Buffer>();
  readonly #tokens = new Set<string>();
  #count = 0;
  /** Bodies of the logins until now. */
  readonly logins: unknown[] = [];
  /** Requests to the store until now, as "PUT /v1/AUTH_one/c/a". */
  readonly requests: string[] = [];
  loginAnswer: LoginAnswer | undefined;
  tokenLifeMs = 3_600_000;
  regions: readonly string[] = ["one", "two"];

  private constructor() {
    this.#server = http.createServer((request, response) => {
      void this.#handle(request, response);
    });
  }

  static async start(): Promise<FakeKeystone> {
    const fake = new FakeKeystone();
    await listen(fake.#server);
    return fake;
  }

  get url(): string {
    return `http://127.0.0.1:${portOf(this.#server)}`;
  }

  /** From now on no token is good that was given before. */
  expireTokens(): void {
    this.#tokens.clear();
  }

  async [Symbol.asyncDispose](): Promise<void> {
    this.#server.closeAllConnections();
    this.#server.close();
  }

  async #handle(request: http.IncomingMessage, response: http.ServerResponse): Promise<void> {
    const body = Buffer.concat(await Array.fromAsync(request));
    const url = new URL(request.url ?? "/", this.url);
    if (url.pathname === "/identity/v3/auth/tokens") {
      this.logins.push(JSON.parse(body.toString()));
      this.#logIn(response);
      return;
    }
    this.requests.push(`${request.method} ${url.pathname}`);
    const token = request.headers["x-auth-token"];
    const isKnown = typeof token === "string" && this.#tokens.has(token);
    if (!isKnown) response.writeHead(401).end("<html>Unauthorized</html>");
    else this.#serve(request.method ?? "", url, body, response);
  }

  #logIn(response: http.ServerResponse): void {
    if (this.loginAnswer !== undefined) {
      response.writeHead(this.loginAnswer.status).end(this.loginAnswer.body);
      return;
    }
    const token = `token-${++this.#count}`;
    this.#tokens.add(token);
    const endpoints = this.regions.flatMap((region) =>
      ["internal", "public"].map((kind) => ({
        region,
        interface: kind,
        url: `${this.url}/v1/AUTH_${region}_${kind}`,
      })),
    );
    const expires = new Date(Date.now() + this.tokenLifeMs).toISOString();
    const catalog = [
      { type: "identity", endpoints: [] },
      { type: "object-store", endpoints },
    ];
    response.writeHead(201, { "x-subject-token": token, "content-type": "application/json" });
    response.end(JSON.stringify({ token: { expires_at: expires, catalog } }));
  }

  #serve(method: string, url: URL, body: Buffer, response: http.ServerResponse): void {
    const [, , account = "", container = "", ...parts] = decodeURIComponent(url.pathname).split(
      "/",
    );
    const name = `${account}/${container}/${parts.join("/")}`;
    if (parts.length === 0) {
      response.writeHead(200, { "content-type": "application/json" });
      response.end(method === "HEAD" ? "" : JSON.stringify(this.#page(name, url)));
      return;
    }
    const etag = createHash("md5").update(body).digest("hex");
    if (method === "PUT") {
      this.#objects.set(name, body);
      response.writeHead(201, { etag }).end();
      return;
    }
    const object = this.#objects.get(name);
    if (object === undefined) {
      response.writeHead(404).end();
      return;
    }
    const sum = createHash("md5").update(object).digest("hex");
    response.writeHead(200, { etag: sum, "content-length": `${object.length}` });
    response.end(method === "HEAD" ? undefined : object);
  }

  #page(start: string, url: URL): object[] {
    const after = url.searchParams.get("marker") ?? "";
    return [...this.#objects]
      .filter(([name]) => name.startsWith(start) && name.slice(start.length) > after)
      .map(([name, { length }]) => ({
        name: name.slice(start.length),
        bytes: length,
        hash: "",
        last_modified: "2026-11-21T10:00:00.000000",
      }))
      .toSorted((a, b) => (a.name < b.name ? -1 : 1))
      .slice(0, 3);
  }
}

/** Settings that log in with a password; the objects are below `p` in the container `c`. */
export function keystoneConfig(
  { url }: FakeKeystone,
  settings: Partial<SwiftConfig> = {},
): SwiftConfig {
  const body = { auth: { identity: { methods: ["password"] } } };
  return {
    kind: "swift",
    container: "c",
    prefix: "p",
    login: { kind: "v3", url: `${url}/identity/v3`, body },
    endpointType: "public",
    maxPartBytes: 20 * 1024 * 1024,
    ...settings,
  };
}
