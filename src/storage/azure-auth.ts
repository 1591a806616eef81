import { createHmac } from "node:crypto";
import type { Clock } from "../io/clock.ts";
import type { RestRequest } from "./rest-sender.ts";
import { lengthOf } from "./rest-sender.ts";
import type { CallOptions } from "./storage.ts";

/** Puts into each request what proves who we are. */
export interface AzureAuth {
  authorize(request: RestRequest, options: CallOptions): Promise<RestRequest>;
  /** After a refusal: whether other credentials are at hand now, so that it can be tried again. */
  renew(options: CallOptions): Promise<boolean>;
  /** Why the credentials of now are refused, where they tell it themselves, as a hint. */
  refusalHint(): string | undefined;
}

/** A key may do everything: what refuses it is not a missing right. */
const KEY_HINT =
  "Check the key in AZURE_STORAGE_ACCESS_KEY or AZURE_STORAGE_CONNECTION_STRING, the clock of this " +
  "machine, and the network rules of the account.";

/** Signs with the account's key. @source Authorize with Shared Key (Azure Storage REST API) */
export class SharedKeyAuth implements AzureAuth {
  readonly #account: string;
  readonly #key: Buffer;
  readonly #clock: Clock;

  constructor(account: string, key: string, clock: Clock) {
    this.#account = account;
    this.#key = Buffer.from(key, "base64");
    this.#clock = clock;
  }

  async authorize(request: RestRequest): Promise<RestRequest> {
    const date = new Date(this.#clock.now()).toUTCString();
    const dated = { ...request, headers: { ...request.headers, "x-ms-date": date } };
    const text = textToSign(dated, this.#account);
    const signature = createHmac("sha256", this.#key).update(text, "utf8").digest("base64");
    const authorization = `SharedKey ${this.#account}:${signature}`;
    return { ...dated, headers: { ...dated.headers, authorization } };
  }

  async renew(): Promise<boolean> {
    return false;
  }

  refusalHint(): string {
    return KEY_HINT;
  }
}

/** In the order in which they are signed; absent ones are empty lines. */
const SIGNED_HEADERS = [
  "content-md5",
  "content-type",
  "date",
  "if-modified-since",
  "if-match",
  "if-none-match",
  "if-unmodified-since",
  "range",
] as const;

function textToSign({ method, url, headers, body }: RestRequest, account: string): string {
  const length = lengthOf(body);
  const own = Object.keys(headers)
    .filter((name) => name.startsWith("x-ms-"))
    .toSorted()
    .map((name) => `${name}:${headers[name] ?? ""}\n`);
  const query = [...url.searchParams.keys()]
    .toSorted()
    .map((name) => `\n${name.toLowerCase()}:${url.searchParams.getAll(name).toSorted().join(",")}`);
  const standard = SIGNED_HEADERS.map((name) => headers[name] ?? "").join("\n");
  const lengthLine = length === 0 ? "" : `${length}`;
  return (
    `${method}\n\n\n${lengthLine}\n${standard}\n` +
    `${own.join("")}/${account}${url.pathname}${query.join("")}`
  );
}

/** Appends a shared access signature; takes up a new one from where it came from. */
export class SasAuth implements AzureAuth {
  #token: string;
  readonly #reread: (() => Promise<string | undefined>) | undefined;
  readonly #clock: Clock;

  constructor(
    token: string,
    { reread, clock }: { reread?: (() => Promise<string | undefined>) | undefined; clock: Clock },
  ) {
    this.#token = trimToken(token);
    this.#reread = reread;
    this.#clock = clock;
  }

  async authorize(request: RestRequest, options: CallOptions): Promise<RestRequest> {
    if (this.#isExpired()) await this.renew(options);
    const url = new URL(request.url);
    // As it is: decoded and encoded again, its signature would be another.
    url.search = url.search === "" ? `?${this.#token}` : `${url.search}&${this.#token}`;
    return { ...request, url };
  }

  async renew({ signal }: CallOptions): Promise<boolean> {
    const token = trimToken((await this.#reread?.()) ?? "");
    signal.throwIfAborted();
    if (token === "" || token === this.#token) return false;
    this.#token = token;
    return true;
  }

  refusalHint(): string | undefined {
    const { expiresAt, permissions } = this.#facts();
    const renewal =
      this.#reread === undefined
        ? "Set a new one in AZURE_STORAGE_SAS_TOKEN or AZURE_STORAGE_CONNECTION_STRING."
        : "Put a new one where this one came from: it is taken up without a restart.";
    if (this.#isExpired()) {
      return `The SAS token expired at ${expiresAt?.toISOString()}. ${renewal}`;
    }
    const isEnough = ["r", "c", "w", "d", "l"].every((one) => permissions.includes(one));
    if (permissions !== "" && !isEnough) {
      return (
        `The SAS token has the permissions ${permissions}; all that walnut does needs rcwdl ` +
        `(read, create, write, delete, list). ${renewal}`
      );
    }
    return `Check the SAS token: container, permissions (rcwdl) and signature. ${renewal}`;
  }

  #isExpired(): boolean {
    const { expiresAt } = this.#facts();
    return expiresAt !== undefined && expiresAt.getTime() <= this.#clock.now();
  }

  #facts(): { readonly expiresAt: Date | undefined; readonly permissions: string } {
    const fields = new URLSearchParams(this.#token);
    const expiresAt = new Date(fields.get("se") ?? "");
    return {
      expiresAt: Number.isNaN(expiresAt.getTime()) ? undefined : expiresAt,
      permissions: fields.get("sp") ?? "",
    };
  }
}

function trimToken(token: string): string {
  return token.trim().replace(/^\?/, "");
}
