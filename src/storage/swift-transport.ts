import { createHash } from "node:crypto";
import {
  ObjectExistsError,
  ObjectNotFoundError,
  StorageAccessError,
  StorageError,
} from "../errors.ts";
import type { OperationError } from "../errors.ts";
import { HttpFailure, formatFailure, parseRetryAfter } from "./request-errors.ts";
import { readText } from "./rest-sender.ts";
import type { RestOptions, RestRequest, RestResponse, RestSender } from "./rest-sender.ts";
import { type RestCall, RestTransport } from "./rest-transport.ts";
import type { CallOptions } from "./storage.ts";
import type { SwiftAuth } from "./swift-auth.ts";

/** One request to a container or to an object in it. */
export interface SwiftCall extends RestCall {
  readonly method: RestRequest["method"];
  /** Our own container unless given. */
  readonly container?: string;
  /** The object; absent for requests to the container. */
  readonly object?: string;
  readonly query?: Readonly<Record<string, string>>;
  /** Names in lower case. */
  readonly headers?: Readonly<Record<string, string>>;
  readonly body?: Uint8Array;
}

export interface SwiftTransportOptions {
  readonly sender: RestSender;
  readonly auth: SwiftAuth;
  readonly container: string;
  /** "swift://container". */
  readonly name: string;
}

const HINTS = {
  endpoint: "Check OS_STORAGE_URL, or what the identity service says of the object store.",
  certificate: "The server's certificate is not trusted: set OS_CACERT to its authority.",
} as const;
const RIGHTS_HINT =
  "The user may not do this here: it needs read and write rights on the container.";
const QUOTA_HINT = "The quota of the account or the container, or the store itself, is used up.";
/** @source Swift's rate limit middleware answers 498 */
const RATE_LIMITED = 498;

/** One container, and the way that every request to it is sent: once, failing with our errors. */
export class SwiftTransport extends RestTransport<SwiftCall> {
  readonly name: string;
  readonly container: string;
  readonly #options: SwiftTransportOptions;
  #isContainerSeen = false;

  constructor(options: SwiftTransportOptions) {
    super(options.sender, HINTS);
    this.#options = options;
    this.name = options.name;
    this.container = options.container;
  }

  /** A 404 is the object's only if the container is there: "not in the store" must be proved. */
  async requireContainer(options: CallOptions): Promise<void> {
    if (this.#isContainerSeen) return;
    const { container } = this;
    const call = { verb: "look at", key: container, method: "HEAD" } as const;
    try {
      await this.sendForText(call, options);
    } catch (error) {
      if (!(error instanceof ObjectNotFoundError)) throw error;
      throw new StorageError(`the container of ${this.name} does not exist`, {
        isRetryable: false,
        hint: `Create the container ${container}, or correct its name.`,
        cause: error,
      });
    }
  }

  protected async exchange(call: SwiftCall, options: RestOptions): Promise<RestResponse> {
    const { auth } = this.#options;
    for (let hasRenewed = false; ; hasRenewed = true) {
      const { token, storageUrl } = await auth.get(options);
      const response = await this.sender.send(this.#request(call, token, storageUrl), options);
      const isOurs = call.container === undefined;
      if (response.status >= 200 && response.status < 300) {
        if (isOurs) this.#isContainerSeen = true;
        return response;
      }
      const text = await readText(response);
      if (response.status === 401 && !hasRenewed && auth.forget()) continue;
      throw this.#refusal(call, response, text);
    }
  }

  #request(call: SwiftCall, token: string, storageUrl: string): RestRequest {
    const { container = this.container, object, body } = call;
    const path = [container, ...(object === undefined ? [] : object.split("/"))];
    const url = new URL(`${storageUrl}/${path.map(encodeURIComponent).join("/")}`);
    for (const [name, value] of Object.entries(call.query ?? {})) {
      url.searchParams.set(name, value);
    }
    url.search = url.search.replaceAll("+", "%20");
    return {
      method: call.method,
      url,
      headers: { "x-auth-token": token, "user-agent": "walnut", ...call.headers },
      ...(body === undefined ? {} : { body }),
    };
  }

  #refusal(call: SwiftCall, { status, headers }: RestResponse, body: string): OperationError {
    const text = /^\s*</.test(body) ? "" : body.trim().split("\n", 1).join();
    const retryAfterMs = parseRetryAfter(headers["retry-after"]);
    const failure = new HttpFailure({ status, code: "", text, retryAfterMs });
    const action = this.action(call);
    const details = { cause: failure };
    if (status === 404) return new ObjectNotFoundError(call.key, this.name, details);
    if (status === 412) return new ObjectExistsError(call.key, this.name, details);
    const message = formatFailure(failure, action);
    if (status === 401 || status === 403) {
      const hint = status === 401 ? this.#options.auth.hint : RIGHTS_HINT;
      return new StorageAccessError(message, { ...details, hint });
    }
    const isFull = status === 413 || status === 507;
    // 422: what arrived does not have the sum that we sent.
    const isPassing = [408, 409, 422, 429, RATE_LIMITED].includes(status) || status >= 500;
    return new StorageError(message, {
      ...details,
      isRetryable: isPassing && !isFull && status !== 501,
      ...(isFull ? { hint: QUOTA_HINT } : {}),
      ...(retryAfterMs === undefined ? {} : { retryAfterMs }),
    });
  }
}

/** As Swift's ETag has it: hex. */
export function md5(body: Uint8Array): string {
  return createHash("md5").update(body).digest("hex");
}

/** Without the quotes that large objects have. */
export function plainEtag(etag: string | undefined): string | undefined {
  return etag?.replaceAll('"', "");
}
