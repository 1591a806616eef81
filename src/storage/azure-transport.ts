import { createHash } from "node:crypto";
import { ObjectNotFoundError } from "../errors.ts";
import type { AzureAuth } from "./azure-auth.ts";
import { AZURE_CONNECTION_HINTS, azureError, readAzureFailure } from "./azure-errors.ts";
import type { RestOptions, RestRequest, RestResponse, RestSender } from "./rest-sender.ts";
import { readText } from "./rest-sender.ts";
import { type RestCall, RestTransport } from "./rest-transport.ts";
import type { ObjectKey } from "./storage.ts";

/** One request to the container or to a blob in it. */
export interface AzureCall extends RestCall {
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
export class AzureTransport extends RestTransport<AzureCall> {
  /** "azure://account.blob.core.windows.net/container". */
  readonly name: string;
  readonly #options: AzureTransportOptions;
  readonly #root: string;

  constructor(options: AzureTransportOptions) {
    super(options.sender, AZURE_CONNECTION_HINTS);
    this.#options = options;
    this.#root = `${options.endpoint.replace(/\/+$/, "")}/${encodeURIComponent(options.container)}`;
    this.name = `azure://${this.#root.replace(/^\w+:\/\//, "")}`;
  }

  protected async exchange(call: AzureCall, options: RestOptions): Promise<RestResponse> {
    // Azure takes "\\" for "/": the answer would be for another object.
    if (call.blob?.includes("\\") === true) throw new ObjectNotFoundError(call.blob, this.name);
    const { auth } = this.#options;
    const request = this.#request(call);
    for (let hasRenewed = false; ; hasRenewed = true) {
      const response = await this.sender.send(await auth.authorize(request, options), options);
      if (response.status >= 200 && response.status < 300) return response;

      const text = await readText(response);
      const failure = readAzureFailure(response.status, response.headers, text);
      const isRefused = failure.status === 401 || failure.status === 403;
      if (isRefused && !hasRenewed && (await auth.renew(options))) continue;
      throw azureError(failure, this.action(call), {
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
}

/** As Content-MD5 has it: base64. */
function md5(body: Uint8Array): string {
  return createHash("md5").update(body).digest("base64");
}

function encodeKey(key: ObjectKey): string {
  return key.split("/").map(encodeURIComponent).join("/");
}
