import { StorageError } from "../errors.ts";
import { connectionError, failedAction } from "./request-errors.ts";
import type { ConnectionHints, RequestAction } from "./request-errors.ts";
import type { RestOptions, RestResponse, RestSender } from "./rest-sender.ts";
import { readText } from "./rest-sender.ts";

/** What a request does, for messages: "cannot <verb> <key> in gs://bucket". */
export interface RestCall {
  readonly verb: string;
  readonly key: string;
}

/** An answer with its whole body. */
export type TextResponse = Omit<RestResponse, "body"> & { readonly text: string };

/** The way that every request to one store is sent: once, failing with our errors. */
export abstract class RestTransport<Call extends RestCall> {
  /** Of the store. */
  abstract readonly name: string;
  protected readonly sender: RestSender;
  readonly #hints: ConnectionHints;

  /** `hints`: the ways out where the store can't be reached. */
  constructor(sender: RestSender, hints: ConnectionHints) {
    this.sender = sender;
    this.#hints = hints;
  }

  /** An answer that says yes; its body is the caller's to read or destroy. */
  async send(call: Call, options: RestOptions): Promise<RestResponse> {
    options.signal.throwIfAborted();
    try {
      const response = await this.exchange(call, options);
      options.signal.throwIfAborted();
      return response;
    } catch (error) {
      options.signal.throwIfAborted();
      throw this.bodyError(error, call);
    }
  }

  /** The same with the whole body. */
  async sendForText(call: Call, options: RestOptions): Promise<TextResponse> {
    const response = await this.send(call, options);
    try {
      const { status, headers } = response;
      return { status, headers, text: await readText(response) };
    } catch (error) {
      options.signal.throwIfAborted();
      throw this.bodyError(error, call);
    }
  }

  /** For an answer that says yes but lacks what a yes has: something else than the store gave it. */
  unclear({ verb, key }: RestCall, missing: string): StorageError {
    return new StorageError(
      `${failedAction({ verb, key, storage: this.name })}: the answer says success without ${missing}`,
      { isRetryable: true },
    );
  }

  /** Our error for a connection or body that broke; what is our error already stays as it is. */
  bodyError(error: unknown, call: RestCall): unknown {
    return connectionError(error, this.action(call), this.#hints);
  }

  destroy(): void {
    this.sender.destroy();
  }

  protected action({ verb, key }: RestCall): RequestAction {
    return { verb, key, storage: this.name };
  }

  /** Sends it, with new credentials once more where that may help; throws our error for a no. */
  protected abstract exchange(call: Call, options: RestOptions): Promise<RestResponse>;
}
