import http from "node:http";
import { StorageError } from "../errors.ts";
import { abortable, untilAborted } from "../io/abort.ts";
import type { ByteStream } from "../io/bytes.ts";
import type { Clock } from "../io/clock.ts";
import { randomHex } from "../io/random.ts";
import { Watchdog } from "../io/watchdog.ts";
import type { RcloneConfig } from "./rclone-config.ts";
import { rcloneError, readRcloneFailure } from "./rclone-errors.ts";
import { RcloneServer } from "./rclone-server.ts";
import { RestSender, readText } from "./rest-sender.ts";
import type { RestResponse } from "./rest-sender.ts";
import type { CallOptions } from "./storage.ts";

export interface RcloneClientOptions {
  /** Silence of this length ends a request. */
  readonly requestTimeoutMs: number;
  readonly clock: Clock;
  /** "rclone:remote:path", for messages. */
  readonly name: string;
}

/** What is done, for messages: "cannot <verb> <key> in rclone:...". */
export interface RcloneAction {
  readonly verb: string;
  readonly key: string;
}

const WRITE_BYTES = 256 * 1024;

/** Calls of rclone's remote control; starts rclone with the first, and again if it ended. */
export class RcloneClient {
  readonly #config: RcloneConfig;
  readonly #options: RcloneClientOptions;
  readonly #sender: RestSender;
  readonly #closed = new AbortController();
  #server: Promise<RcloneServer> | undefined;

  constructor(config: RcloneConfig, options: RcloneClientOptions) {
    this.#config = config;
    this.#options = options;
    const { requestTimeoutMs, clock } = options;
    this.#sender = new RestSender({ requestTimeoutMs, clock });
  }

  /** Gives the answer's JSON. @source rclone's documentation, "Remote controlling rclone" */
  async call(
    method: string,
    parameters: Readonly<Record<string, unknown>>,
    action: RcloneAction,
    options: CallOptions,
  ): Promise<unknown> {
    return await this.#exchange(action, options, async (server) => {
      const response = await this.#sender.send(
        {
          method: "POST",
          url: new URL(`${server.origin}/${method}`),
          headers: { authorization: server.authorization, "content-type": "application/json" },
          body: Buffer.from(JSON.stringify(parameters)),
        },
        options,
      );
      const text = await readText(response);
      if (response.status !== 200) throw readRcloneFailure(response.status, text);
      return JSON.parse(text);
    });
  }

  /** Begins to read an object; `range` is a header's value. */
  async open(key: string, range: string | undefined, options: CallOptions): Promise<RestResponse> {
    return await this.#exchange({ verb: "get", key }, options, async (server) => {
      const path = [`[${this.#config.remote}]`, ...key.split("/")].map(encodeURIComponent);
      const response = await this.#sender.send(
        {
          method: "GET",
          url: new URL(`${server.origin}/${path.join("/")}`),
          headers: {
            authorization: server.authorization,
            ...(range === undefined ? {} : { range }),
          },
        },
        options,
      );
      if (response.status === 200 || response.status === 206) return response;
      throw readRcloneFailure(response.status, await readText(response));
    });
  }

  /** Stores a stream as `folder`/`name`; gives its length. A failure may leave a part of it. */
  async upload(
    folder: string,
    name: string,
    body: ByteStream,
    options: CallOptions,
  ): Promise<number> {
    const action = { verb: "put", key: folder === "" ? name : `${folder}/${name}` };
    let bodyFailure: { readonly error: unknown } | undefined;
    // A body may read files or stores itself: its errors are not ours to translate.
    const watched = async function* (): ByteStream {
      try {
        yield* body;
      } catch (error) {
        bodyFailure = { error };
        throw error;
      }
    };
    try {
      return await this.#exchange(action, options, async (server) => {
        const query = new URLSearchParams({ fs: this.#config.remote, remote: folder });
        const url = new URL(`${server.origin}/operations/uploadfile?${query.toString()}`);
        return await this.#sendForm(url, server, { name, body: watched() }, options);
      });
    } catch (error) {
      throw bodyFailure === undefined ? error : bodyFailure.error;
    }
  }

  /** Our error for a body that broke. */
  bodyError(error: unknown, action: RcloneAction): unknown {
    return rcloneError(error, action, this.#options.name);
  }

  async close(): Promise<void> {
    this.#closed.abort(new StorageError("the store was closed", { isRetryable: false }));
    this.#sender.destroy();
    const server = await this.#server?.catch(() => undefined);
    await server?.stop();
  }

  async #exchange<T>(
    action: RcloneAction,
    { signal }: CallOptions,
    work: (server: RcloneServer) => Promise<T>,
  ): Promise<T> {
    signal.throwIfAborted();
    try {
      const server = await untilAborted(this.#running(), signal);
      const result = await work(server);
      signal.throwIfAborted();
      await server.forgetConfig();
      return result;
    } catch (error) {
      signal.throwIfAborted();
      throw rcloneError(error, action, this.#options.name);
    }
  }

  async #running(): Promise<RcloneServer> {
    const { clock, requestTimeoutMs: timeoutMs } = this.#options;
    const { signal } = this.#closed;
    signal.throwIfAborted();
    const current = this.#server;
    if (current !== undefined) {
      const server = await current.catch(() => undefined);
      if (server?.isEnded === false) return server;
      await server?.stop();
      if (this.#server === current) this.#server = undefined;
    }
    this.#server ??= RcloneServer.start(this.#config, { clock, timeoutMs }, { signal });
    return await this.#server;
  }

  async #sendForm(
    url: URL,
    { authorization }: RcloneServer,
    { name, body }: { readonly name: string; readonly body: ByteStream },
    { signal }: CallOptions,
  ): Promise<number> {
    const { requestTimeoutMs: timeoutMs, clock } = this.#options;
    const onTimeout = () =>
      new StorageError(`rclone was silent for ${timeoutMs / 1000} s`, { isRetryable: true });
    using watchdog = new Watchdog({ signal, timeoutMs, clock, onTimeout });
    const boundary = `walnut-${randomHex(16)}`;
    const headers = { authorization, "content-type": `multipart/form-data; boundary=${boundary}` };
    const sent = http.request(url, { method: "POST", headers, agent: false });
    const answered = answerOf(sent);
    answered.catch(() => {});
    try {
      const write = async (bytes: Uint8Array): Promise<void> => {
        const written = new Promise<void>((resolve, reject) => {
          sent.write(bytes, (error) => (error ? reject(error) : resolve()));
        });
        await untilAborted(Promise.race([written, answered.then(refused)]), watchdog.signal);
        watchdog.progress();
      };
      const disposition = `Content-Disposition: form-data; name="file"; filename="${name}"`;
      await write(Buffer.from(`--${boundary}\r\n${disposition}\r\n\r\n`));
      let sizeBytes = 0;
      watchdog.suspend();
      for await (const chunk of abortable(body, watchdog.signal)) {
        watchdog.resume();
        for (let start = 0; start < chunk.length; start += WRITE_BYTES) {
          // Called back, the system has it: the chunk need not stay as it is.
          await write(chunk.subarray(start, start + WRITE_BYTES));
        }
        sizeBytes += chunk.length;
        watchdog.suspend();
      }
      watchdog.resume();
      await write(Buffer.from(`\r\n--${boundary}--\r\n`));
      sent.end();
      const { status, text } = await untilAborted(answered, watchdog.signal);
      if (status !== 200) throw readRcloneFailure(status, text);
      return sizeBytes;
    } catch (error) {
      sent.destroy();
      throw error;
    }
  }
}

interface Answer {
  readonly status: number;
  readonly text: string;
}

async function answerOf(sent: http.ClientRequest): Promise<Answer> {
  const response = await new Promise<http.IncomingMessage>((resolve, reject) => {
    sent.on("response", resolve);
    // Stays for good: a connection that breaks later must not be an uncaught exception.
    sent.on("error", reject);
  });
  let text = "";
  response.setEncoding("utf8");
  for await (const chunk of response) text += String(chunk);
  return { status: response.statusCode ?? 0, text };
}

/** An answer before all was sent says no. */
function refused({ status, text }: Answer): never {
  throw readRcloneFailure(status, text);
}
