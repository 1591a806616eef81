import type { S3Client, S3ClientConfig } from "@aws-sdk/client-s3";
import { ObjectNotFoundError, StorageError, systemErrorCode } from "../errors.ts";
import { untilAborted } from "../io/abort.ts";
import type { Clock } from "../io/clock.ts";
import { Watchdog } from "../io/watchdog.ts";
import { failedAction } from "./request-errors.ts";
import type { RequestAction } from "./request-errors.ts";
import { areKeysRefused, readFailure, s3Error } from "./s3-errors.ts";
import type { ObjectKey, SendOptions } from "./storage.ts";

export interface S3TransportOptions {
  readonly bucket: string;
  /** URL of a store that is not AWS. */
  readonly endpoint?: string | undefined;
  /** Silence of this length ends a request, and the search for credentials. */
  readonly requestTimeoutMs: number;
  readonly clock: Clock;
  /** Looks for other credentials than the client has; undefined: there can be none. */
  readonly reread?: (() => Promise<S3ClientConfig["credentials"]>) | undefined;
}

/** The name "bucket.host" has no address, or no place in the server's certificate. */
const NO_SUCH_HOST: ReadonlySet<string> = new Set(["ENOTFOUND", "ERR_TLS_CERT_ALTNAME_INVALID"]);

/** What the SDK's `send` takes beside the command. */
export interface HttpOptions {
  abortSignal: AbortSignal;
  requestTimeout: number;
  onSent: SendOptions["onSent"];
}

export interface TransportCall extends SendOptions {
  /** How many times longer than others this request may be silent; 1 unless given. */
  readonly patience?: number;
}

/** One bucket, and the way that every request to it is sent: once, failing with our errors. */
export class S3Transport {
  readonly client: S3Client;
  /** "s3://bucket", with a custom endpoint "s3://host:port/bucket": no two stores share a name. */
  readonly name: string;
  readonly bucket: string;
  /** Until one of them was shown to be none: of encrypted objects, and of some servers' all. */
  areEtagsSums = true;
  readonly #options: S3TransportOptions;
  #isBucketSeen = false;

  constructor(client: S3Client, options: S3TransportOptions) {
    this.client = client;
    const { bucket, endpoint } = options;
    const host = endpoint?.replace(/^\w+:\/\//, "").replace(/\/.*$/, "");
    this.name = host === undefined ? `s3://${bucket}` : `s3://${host}/${bucket}`;
    this.bucket = options.bucket;
    this.#options = options;
  }

  /** Whether an answer has shown that the bucket exists: a bare 404 does not tell. */
  get isBucketSeen(): boolean {
    return this.#isBucketSeen;
  }

  /** The parameters that name an object. */
  object(key: ObjectKey): { Bucket: string; Key: string } {
    return { Bucket: this.bucket, Key: key };
  }

  /** `verb` and `key` are for messages: "cannot <verb> <key> in s3://bucket: ...". */
  async send<T>(
    verb: string,
    key: string,
    { signal, patience = 1, onSent }: TransportCall,
    work: (options: HttpOptions) => Promise<T>,
  ): Promise<T> {
    signal.throwIfAborted();
    const requestTimeout = this.#options.requestTimeoutMs * patience;
    try {
      const http = { abortSignal: signal, requestTimeout, onSent };
      const attempt = () => untilAborted(work(http), signal);
      const action = { verb, key, storage: this.name };
      const answer = await this.#withKeysOfNow(signal, () => this.#inEitherStyle(attempt, action));
      this.#isBucketSeen = true;
      return answer;
    } catch (error) {
      signal.throwIfAborted();
      const translated = s3Error(error, { verb, key, storage: this.name });
      if (translated instanceof ObjectNotFoundError) this.#isBucketSeen = true;
      throw translated;
    }
  }

  /** Whether the bucket is named in the path of URLs, not in the host. */
  get isPathStyle(): boolean {
    return this.client.config.forcePathStyle === true;
  }

  /**
   * Servers of one's own often know their buckets in the path only: where the name in the host
   * leads nowhere, the path is tried, and kept to if it leads to the bucket.
   */
  async #inEitherStyle<T>(attempt: () => Promise<T>, action: RequestAction): Promise<T> {
    const isChoosing = this.#options.endpoint !== undefined && !this.#isBucketSeen;
    const wasPathStyle = this.isPathStyle;
    try {
      return await attempt();
    } catch (error) {
      if (!isChoosing || wasPathStyle || !leadsNowhere(error)) throw error;
      this.client.config.forcePathStyle = true;
      try {
        return await attempt();
      } catch (secondError) {
        if (s3Error(secondError, action) instanceof ObjectNotFoundError) throw secondError;
        this.client.config.forcePathStyle = false;
        throw leadsNowhere(secondError) ? error : secondError;
      }
    }
  }

  /** For an answer that says yes but lacks what a yes has: something else than S3 gave it. */
  unclear(verb: string, key: ObjectKey, missing: string): StorageError {
    return new StorageError(
      `${failedAction({ verb, key, storage: this.name })}: the answer says success without ${missing}`,
      { isRetryable: true },
    );
  }

  /** Keys in a file, or those of a role, may have been replaced while we run. */
  async #withKeysOfNow<T>(signal: AbortSignal, attempt: () => Promise<T>): Promise<T> {
    const { client } = this;
    const used = await this.#beforeDeadline(signal, client.config.credentials());
    try {
      return await attempt();
    } catch (error) {
      if (!areKeysRefused(error)) throw error;
      const isOther = await this.#beforeDeadline(
        signal,
        this.#renewCredentials(used).catch(() => false),
      );
      if (!isOther) throw error;
      return await attempt();
    }
  }

  /** Whether there are others now than the `used` ones. */
  async #renewCredentials(used: Identity): Promise<boolean> {
    const { config } = this.client;
    if (isOtherIdentity(await config.credentials(), used)) return true;
    const found = await this.#options.reread?.();
    if (found === undefined) return false;
    config.credentials = typeof found === "function" ? found : async () => found;
    return isOtherIdentity(await config.credentials(), used);
  }

  /** The SDK's sources of credentials make requests of their own, without our deadline. */
  async #beforeDeadline<T>(signal: AbortSignal, search: Promise<T>): Promise<T> {
    const { requestTimeoutMs, clock } = this.#options;
    const onTimeout = () =>
      new StorageError(`no credentials for ${this.name} within ${requestTimeoutMs / 1000} s`, {
        isRetryable: true,
      });
    using watchdog = new Watchdog({ signal, timeoutMs: requestTimeoutMs, clock, onTimeout });
    return await untilAborted(search, watchdog.signal);
  }
}

type Identity = Awaited<ReturnType<S3Client["config"]["credentials"]>>;

function isOtherIdentity(now: Identity, used: Identity): boolean {
  return now.accessKeyId !== used.accessKeyId || now.sessionToken !== used.sessionToken;
}

function leadsNowhere(error: unknown): boolean {
  const code = readFailure(error)?.code ?? systemErrorCode(error) ?? "";
  return NO_SUCH_HOST.has(code) || code === "NoSuchBucket";
}
