import { createHash } from "node:crypto";
import { GCS_CONNECTION_HINTS, gcsError, parseJson, readGcsFailure } from "./gcs-errors.ts";
import type {
  RestBody,
  RestOptions,
  RestRequest,
  RestResponse,
  RestSender,
} from "./rest-sender.ts";
import { readText } from "./rest-sender.ts";
import { type RestCall, RestTransport } from "./rest-transport.ts";
import type { CallOptions, ObjectKey } from "./storage.ts";

/** One request of the JSON API. */
export interface GcsCall extends RestCall {
  readonly method: RestRequest["method"];
  /** Below the endpoint, escaped. */
  readonly path: string;
  readonly query?: Readonly<Record<string, string>>;
  /** Names in lower case. */
  readonly headers?: Readonly<Record<string, string>>;
  readonly body?: RestBody;
  /** Whether it touches an object's bytes, so that a key of the customer's goes with it. */
  readonly isKeyed?: boolean;
  /** Answers that are no failure besides 2xx. */
  readonly expected?: readonly number[];
}

/** Tokens of now. */
export interface TokenHolder {
  get(options: CallOptions): Promise<string>;
  /** After a refusal: whether another may help. */
  forget(): boolean;
}

export interface GcsTransportOptions {
  readonly sender: RestSender;
  /** Undefined for an emulator. */
  readonly tokens: TokenHolder | undefined;
  readonly endpoint: string | undefined;
  readonly bucket: string;
  /** 32 bytes in base64. */
  readonly encryptionKey: string | undefined;
}

const RANGE_NOT_SATISFIABLE = 416;
const DEFAULT_ENDPOINT = "https://storage.googleapis.com";

/** One bucket, and the way that every request to it is sent: once, failing with our errors. */
export class GcsTransport extends RestTransport<GcsCall> {
  /** "gs://bucket", with a custom endpoint "gs://host:port/bucket". */
  readonly name: string;
  /** "/storage/v1/b/bucket/o" */
  readonly objectsPath: string;
  /** "/upload/storage/v1/b/bucket/o" */
  readonly uploadPath: string;
  readonly #options: GcsTransportOptions;
  readonly #origin: string;
  readonly #keyHeaders: Readonly<Record<string, string>>;

  constructor(options: GcsTransportOptions) {
    super(options.sender, GCS_CONNECTION_HINTS);
    const { endpoint, bucket, encryptionKey } = options;
    this.#options = options;
    this.#origin = (endpoint ?? DEFAULT_ENDPOINT).replace(/\/+$/, "");
    const host = endpoint?.replace(/^\w+:\/\//, "").replace(/\/.*$/, "");
    this.name = host === undefined ? `gs://${bucket}` : `gs://${host}/${bucket}`;
    this.objectsPath = `/storage/v1/b/${encodeURIComponent(bucket)}/o`;
    this.uploadPath = `/upload${this.objectsPath}`;
    this.#keyHeaders = encryptionKey === undefined ? {} : customerKeyHeaders(encryptionKey);
  }

  objectPath(key: ObjectKey): string {
    return `${this.objectsPath}/${encodeURIComponent(key)}`;
  }

  /** Sends it for an answer that is a JSON object. */
  async sendForJson(call: GcsCall, options: RestOptions): Promise<object> {
    const { text } = await this.sendForText(call, options);
    const json = parseJson(text);
    if (typeof json !== "object" || json === null) throw this.unclear(call, "JSON");
    return json;
  }

  protected async exchange(call: GcsCall, options: RestOptions): Promise<RestResponse> {
    const { tokens } = this.#options;
    for (let hasRenewed = false; ; hasRenewed = true) {
      const token = await tokens?.get(options);
      const response = await this.sender.send(this.#request(call, token), options);
      const { status } = response;
      if ((status >= 200 && status < 300) || call.expected?.includes(status) === true) {
        return response;
      }
      // fake-gcs-server promises more of this answer's body than it sends.
      if (status === RANGE_NOT_SATISFIABLE) response.body.destroy();
      const text = status === RANGE_NOT_SATISFIABLE ? "" : await readText(response);
      const failure = readGcsFailure(status, response.headers, text);
      if (status === 401 && !hasRenewed && tokens?.forget() === true) continue;
      throw gcsError(failure, this.action(call));
    }
  }

  #request(call: GcsCall, token: string | undefined): RestRequest {
    const url = new URL(this.#origin + call.path);
    for (const [name, value] of Object.entries(call.query ?? {})) url.searchParams.set(name, value);
    // Not every server takes "+" for a blank.
    url.search = url.search.replaceAll("+", "%20");
    return {
      method: call.method,
      url,
      headers: {
        "user-agent": "walnut",
        ...(token === undefined ? {} : { authorization: `Bearer ${token}` }),
        ...(call.isKeyed === true ? this.#keyHeaders : {}),
        ...call.headers,
      },
      ...(call.body === undefined ? {} : { body: call.body }),
    };
  }
}

function customerKeyHeaders(key: string): Readonly<Record<string, string>> {
  const sum = createHash("sha256").update(Buffer.from(key, "base64")).digest("base64");
  return {
    "x-goog-encryption-algorithm": "AES256",
    "x-goog-encryption-key": key,
    "x-goog-encryption-key-sha256": sum,
  };
}
