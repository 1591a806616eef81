import { StorageAccessError, StorageError } from "../errors.ts";
import type { Clock } from "../io/clock.ts";
import { connectionError, parseRetryAfter } from "./request-errors.ts";
import { readText } from "./rest-sender.ts";
import type { RestSender } from "./rest-sender.ts";
import type { CallOptions } from "./storage.ts";
import type { SwiftConfig, SwiftLogin } from "./swift-config.ts";
import { TokenCache } from "./token-auth.ts";
import type { AccessToken } from "./token-auth.ts";

export interface SwiftAuthOptions {
  readonly sender: RestSender;
  readonly clock: Clock;
  /** For one login. */
  readonly requestTimeoutMs: number;
  /** "swift://container", for messages. */
  readonly storage: string;
}

/** What every request to the store needs. */
export interface SwiftAccess {
  readonly token: string;
  /** "https://swift.example.com/v1/AUTH_abc", without "/" at the end. */
  readonly storageUrl: string;
}

/** When a server does not say how long its token lives. */
const UNKNOWN_LIFE_MS = 30 * 60_000;

const CREDENTIALS_HINT =
  "Check OS_USERNAME, OS_PASSWORD, the project and the domains, or the application credential.";
const TOKEN_HINT = "OS_AUTH_TOKEN has expired: set a new one, or a user and password.";
const HINTS = {
  endpoint: "Check OS_AUTH_URL: scheme, host and port.",
  certificate: "The server's certificate is not trusted: set OS_CACERT to its authority.",
} as const;

/** The token of now and where the store is; logs in when there is none, or it was refused. */
export class SwiftAuth {
  readonly #config: SwiftConfig;
  readonly #options: SwiftAuthOptions;
  readonly #cache: TokenCache;
  #storageUrl: string | undefined;

  constructor(config: SwiftConfig, options: SwiftAuthOptions) {
    this.#config = config;
    this.#options = options;
    const { clock, requestTimeoutMs: timeoutMs, storage } = options;
    const hint = CREDENTIALS_HINT;
    this.#cache = new TokenCache((call) => this.#logIn(call), { clock, timeoutMs, storage, hint });
  }

  async get(options: CallOptions): Promise<SwiftAccess> {
    const token = await this.#cache.get(options);
    const storageUrl = this.#config.storageUrl ?? this.#storageUrl ?? "";
    return { token, storageUrl: storageUrl.replace(/\/+$/, "") };
  }

  /** After a refusal; gives whether another login may help. */
  forget(): boolean {
    return this.#config.login.kind !== "token" && this.#cache.forget();
  }

  get hint(): string {
    return this.#config.login.kind === "token" ? TOKEN_HINT : CREDENTIALS_HINT;
  }

  async #logIn(options: CallOptions): Promise<AccessToken> {
    const { login } = this.#config;
    if (login.kind === "token") {
      return { token: login.token, expiresAtMs: Number.MAX_SAFE_INTEGER };
    }
    const answer = await this.#ask(login, options);
    const { token, storageUrl, expiresAtMs } =
      login.kind === "v1" ? this.#readV1(answer) : this.#readV3(answer);
    if (storageUrl === undefined && this.#config.storageUrl === undefined) {
      throw new StorageError(`${login.url} names no object store${this.#wanted()}`, {
        isRetryable: false,
        hint: "Check OS_REGION_NAME and OS_ENDPOINT_TYPE, or set OS_STORAGE_URL.",
      });
    }
    this.#storageUrl = storageUrl;
    return { token, expiresAtMs };
  }

  async #ask(login: Exclude<SwiftLogin, { kind: "token" }>, options: CallOptions): Promise<Answer> {
    const { sender, storage } = this.#options;
    try {
      const response = await sender.send(
        login.kind === "v1"
          ? {
              method: "GET",
              url: new URL(login.url),
              headers: { "x-auth-user": login.user, "x-auth-key": login.key },
            }
          : {
              method: "POST",
              url: new URL(`${login.url}/auth/tokens`),
              headers: { "content-type": "application/json", accept: "application/json" },
              body: Buffer.from(JSON.stringify(login.body)),
            },
        options,
      );
      const answer = { ...response, text: await readText(response), url: login.url };
      if (response.status < 200 || response.status > 299) throw refusal(answer, storage);
      return answer;
    } catch (error) {
      options.signal.throwIfAborted();
      const verb = `log in at ${login.url} for`;
      throw connectionError(error, { verb, key: "", storage }, HINTS);
    }
  }

  #readV1({ headers, url }: Answer): Grant {
    const token = headers["x-auth-token"] ?? headers["x-storage-token"];
    if (token === undefined) throw noToken(url);
    const seconds = Number(headers["x-auth-token-expires"] ?? Number.NaN);
    const lifeMs = Number.isNaN(seconds) ? UNKNOWN_LIFE_MS : seconds * 1000;
    const expiresAtMs = this.#options.clock.now() + lifeMs;
    return { token, storageUrl: headers["x-storage-url"], expiresAtMs };
  }

  #readV3({ headers, text, url }: Answer): Grant {
    const token = headers["x-subject-token"];
    if (token === undefined) throw noToken(url);
    const body = property(parseJson(text), "token");
    const expires = Date.parse(String(property(body, "expires_at")));
    const expiresAtMs = Number.isNaN(expires)
      ? this.#options.clock.now() + UNKNOWN_LIFE_MS
      : expires;
    return { token, storageUrl: this.#findEndpoint(property(body, "catalog")), expiresAtMs };
  }

  #findEndpoint(catalogue: unknown): string | undefined {
    const { region, endpointType } = this.#config;
    for (const service of list(catalogue)) {
      if (property(service, "type") !== "object-store") continue;
      for (const endpoint of list(property(service, "endpoints"))) {
        const place = property(endpoint, "region") ?? property(endpoint, "region_id");
        const url = property(endpoint, "url");
        const isWanted = property(endpoint, "interface") === endpointType;
        if (!isWanted || (region !== undefined && place !== region)) continue;
        if (typeof url === "string") return url;
      }
    }
    return undefined;
  }

  #wanted(): string {
    const { region, endpointType } = this.#config;
    return region === undefined ? "" : ` in region ${region} (${endpointType})`;
  }
}

interface Answer {
  readonly url: string;
  readonly status: number;
  readonly headers: Readonly<Record<string, string>>;
  readonly text: string;
}

interface Grant extends AccessToken {
  readonly storageUrl: string | undefined;
}

function refusal({ url, status, headers, text }: Answer, storage: string): Error {
  const reason = property(property(parseJson(text), "error"), "message");
  const tail = typeof reason === "string" ? `: ${reason.replace(/\.$/, "")}` : "";
  if (status === 401 || status === 403) {
    const message = `${url} refuses the credentials for ${storage}: ${status}${tail}`;
    return new StorageAccessError(message, { hint: CREDENTIALS_HINT });
  }
  const retryAfterMs = parseRetryAfter(headers["retry-after"]);
  return new StorageError(`cannot log in at ${url} for ${storage}: ${status}${tail}`, {
    isRetryable: status === 429 || status >= 500,
    ...(retryAfterMs === undefined ? {} : { retryAfterMs }),
    ...(status < 500 ? { hint: "Check OS_AUTH_URL, and OS_IDENTITY_API_VERSION (1 or 3)." } : {}),
  });
}

function noToken(url: string): StorageError {
  return new StorageError(`${url} says success but gives no token`, {
    isRetryable: false,
    hint: "Check OS_AUTH_URL, and OS_IDENTITY_API_VERSION (1 or 3).",
  });
}

function parseJson(text: string): unknown {
  try {
    return JSON.parse(text);
  } catch {
    return undefined;
  }
}

function list(value: unknown): readonly unknown[] {
  return Array.isArray(value) ? value : [];
}

function property(value: unknown, name: string): unknown {
  return typeof value === "object" && value !== null ? Reflect.get(value, name) : undefined;
}
