import { createHash } from "node:crypto";
import { ObjectNotFoundError, StorageError } from "../errors.ts";
import type { AzureAuth } from "./azure-auth.ts";
import { azureConnectionError, azureError, readAzureFailure } from "./azure-errors.ts";
import type { RequestAction } from "./request-errors.ts";
import type { RestOptions, RestRequest, RestResponse, RestSender } from "./rest-sender.ts";
import { readText } from "./rest-sender.ts";
import type { ObjectKey } from "./storage.ts";

/** One request to the container or to a blob in it. */
export interface AzureCall {
  /** For messages: "cannot <verb> <key> in azure://...". */
  readonly verb: string;
  readonly key: string;
  readonly method: RestRequest["method"];
  /** The blob; absent for requests to the container. */
  readonly blob?: ObjectKey;
  readonly query?: Readonly<Record<string, string>>;
  /** Names in lower case. */
  readonly headers?: Readonly<Record<string, string>>;
  readonly body?: Uint8Array;
}

export interface AzureTransportOptions {
  readonly sender: RestSender;
  readonly auth: AzureAuth;
  /** "https://account.blob.core.windows.net", or with the account in the path. */
  readonly endpoint: string;
  readonly container: string;
}

/** Has all that we use, and emulators and clouds of one's own have it by now. */
const API_VERSION = "2021-08-06";

/** One container, and the way that every request to it is sent: once, failing with our errors. */
export class AzureTransport {
  /** "azure://account.blob.core.windows.net/container". */
  readonly name: string;
  readonly #options: AzureTransportOptions;
  readonly #root: string;

  constructor(options: AzureTransportOptions) {
    this.#options = options;
    this.#root = `${options.endpoint.replace(/\/+$/, "")}/${encodeURIComponent(options.container)}`;
    this.name = `azure://${this.#root.replace(/^\w+:\/\//, "")}`;
  }

  /** An answer that says yes; its body is the caller's to read or destroy. */
  async send(call: AzureCall, options: RestOptions): Promise<RestResponse> {
    options.signal.throwIfAborted();
    const action = this.#action(call);
    // Azure takes "\\" for "/": the answer would be for another object.
    if (call.blob?.includes("\\") === true) throw new ObjectNotFoundError(call.blob, this.name);
    try {
      const response = await this.#exchange(call, action, options);
      options.signal.throwIfAborted();
      return response;
    } catch (error) {
      options.signal.throwIfAborted();
      throw azureConnectionError(error, action);
    }
  }

  /** The same with the whole body. */
  async sendForText(
    call: AzureCall,
    options: RestOptions,
  ): Promise<{ readonly headers: RestResponse["headers"]; readonly text: string }> {
    const response = await this.send(call, options);
    try {
      return { headers: response.headers, text: await readText(response) };
    } catch (error) {
      options.signal.throwIfAborted();
      throw azureConnectionError(error, this.#action(call));
    }
  }

  /** For an answer that says yes but lacks what a yes has: something else than Azure gave it. */
  unclear({ verb, key }: Pick<AzureCall, "verb" | "key">, missing: string): StorageError {
    return new StorageError(
      `cannot ${verb} ${key} in ${this.name}: the answer says success without ${missing}`,
      { isRetryable: true },
    );
  }

  /** Our error for a body that broke. */
  bodyError(error: unknown, call: Pick<AzureCall, "verb" | "key">): unknown {
    return azureConnectionError(error, this.#action(call));
  }

  destroy(): void {
    this.#options.sender.destroy();
  }

  async #exchange(
    call: AzureCall,
    action: RequestAction,
    options: RestOptions,
  ): Promise<RestResponse> {
    const { sender, auth } = this.#options;
    const request = this.#request(call);
    for (let hasRenewed = false; ; hasRenewed = true) {
      const response = await sender.send(await auth.authorize(request, options), options);
      if (response.status >= 200 && response.status < 300) return response;

      const text = await readText(response);
      const failure = readAzureFailure(response.status, response.headers, text);
      const isRefused = failure.status === 401 || failure.status === 403;
      if (isRefused && !hasRenewed && (await auth.renew(options))) continue;
      throw azureError(failure, action, {
        accessHint: isRefused ? auth.refusalHint() : undefined,
      });
    }
  }

  #request(call: AzureCall): RestRequest {
    const url = new URL(this.#root);
    if (call.blob !== undefined) url.pathname += `/${encodeKey(call.blob)}`;
    for (const [name, value] of Object.entries(call.query ?? {})) {
      url.searchParams.set(name, value);
    }
    // URLSearchParams writes blanks as "+", which Azure takes for themselves.
    url.search = url.search.replaceAll("+", "%20");
    const { body } = call;
    return {
      method: call.method,
      url,
      headers: {
        "x-ms-version": API_VERSION,
        "user-agent": "walnut",
        ...(body === undefined ? {} : { "content-md5": md5(body) }),
        ...call.headers,
      },
      ...(body === undefined ? {} : { body }),
    };
  }

  #action({ verb, key }: Pick<AzureCall, "verb" | "key">): RequestAction {
    return { verb, key, storage: this.name };
  }
}

/** As Content-MD5 has it: base64. */
function md5(body: Uint8Array): string {
  return createHash("md5").update(body).digest("base64");
}

function encodeKey(key: ObjectKey): string {
  return key.split("/").map(encodeURIComponent).join("/");
}
