import { connect } from "node:net";
import type { Socket } from "node:net";
import ssh2 from "ssh2";
import type { Client, SFTPWrapper } from "ssh2";
import { StorageError } from "../errors.ts";
import type { StorageAccessError } from "../errors.ts";
import { untilAborted } from "../io/abort.ts";
import type { Clock } from "../io/clock.ts";
import { Watchdog, type WatchdogOptions } from "../io/watchdog.ts";
import { NO_ANSWER_HINT } from "./request-errors.ts";
import type { SftpConfig } from "./sftp-config.ts";
import { SFTP_STATUS, SftpRefusal, connectionError } from "./sftp-errors.ts";
import { hostKeyAlgorithms, hostKeyProblem } from "./sftp-login.ts";
import type { SftpLogin } from "./sftp-login.ts";
import type { StoreTraffic } from "./traffic.ts";

export interface SftpConnectionOptions {
  /** "ssh://host:port". */
  readonly name: string;
  readonly login: SftpLogin;
  /** Silence of this length, while something is awaited, ends the connection. */
  readonly requestTimeoutMs: number;
  readonly clock: Clock;
  /** Who is told of a silence; absent where nobody waits. */
  readonly traffic?: Pick<StoreTraffic, "silence"> | undefined;
}

/** What ssh2 calls with the answer to a request. */
export type SftpCallback<T> = (error: Error | null | undefined, value: T) => void;

/** What of ssh2's channel no type tells. */
const DEFAULT_PIECE_BYTES = 32 * 1024;

/**
 * One SSH connection with its SFTP channel. Any number of requests may be under way; when the
 * connection breaks, or the server is silent, all of them reject with a retryable StorageError.
 */
export class SftpConnection {
  readonly #client: Client;
  readonly #channel: SFTPWrapper;
  readonly #options: SftpConnectionOptions;
  readonly #broken = new AbortController();
  readonly #watchdog: Watchdog;
  #pendingCount = 0;

  private constructor(
    client: Client,
    channel: SFTPWrapper,
    socket: Socket,
    options: SftpConnectionOptions,
  ) {
    this.#client = client;
    this.#channel = channel;
    this.#options = options;
    const { requestTimeoutMs: timeoutMs, clock } = options;
    const { signal } = this.#broken;
    this.#watchdog = new Watchdog({
      signal,
      timeoutMs,
      clock,
      onTimeout: () => silent(options),
      notice: noticeOf(options),
    });
    this.#watchdog.suspend();
    const { signal: timedOut } = this.#watchdog;
    timedOut.addEventListener("abort", () => this.close(timedOut.reason), { once: true });
    signal.addEventListener("abort", () => socket.destroy(), { once: true });
    socket.on("data", () => this.#watchdog.progress());

    const lost = new StorageError(`the connection to ${options.name} was cut`, {
      isRetryable: true,
    });
    client.on("error", (error) => this.close(connectionError(options.name, error)));
    client.on("close", () => this.close(lost));
    channel.on("error", (error: unknown) => this.close(connectionError(options.name, error)));
    channel.on("close", () => this.close(lost));
  }

  /** Connects, checks the server's key, logs in and opens the channel. */
  static async open(
    config: SftpConfig,
    options: SftpConnectionOptions,
    { signal }: { readonly signal: AbortSignal },
  ): Promise<SftpConnection> {
    const { requestTimeoutMs: timeoutMs, clock } = options;
    const onTimeout = () => silent(options);
    const notice = noticeOf(options);
    using watchdog = new Watchdog({ signal, timeoutMs, clock, onTimeout, notice });
    watchdog.signal.throwIfAborted();
    const socket = connect({ host: config.host, port: config.port, noDelay: true });
    const client = new ssh2.Client();
    try {
      const ready = logIn(client, socket, config, options);
      await untilAborted(ready, watchdog.signal);
      const channel = await untilAborted(openChannel(client), watchdog.signal);
      return new SftpConnection(client, channel, socket, options);
    } catch (error) {
      socket.destroy();
      watchdog.signal.throwIfAborted();
      throw connectionError(options.name, error);
    }
  }

  /** Aborted, with the reason, once the connection is of no further use. */
  get broken(): AbortSignal {
    return this.#broken.signal;
  }

  /** Most that the server takes or gives in one request. */
  get pieceBytes(): number {
    const limits = ["_maxWriteLen", "_maxReadLen"].map((name): unknown =>
      Reflect.get(this.#channel, name),
    );
    const known = limits.filter((limit) => typeof limit === "number");
    return known.length === 2 ? Math.min(...known) : DEFAULT_PIECE_BYTES;
  }

  /** Whether the server offers "fsync@openssh.com" or the like. */
  supports(extension: string): boolean {
    const extensions: unknown = Reflect.get(this.#channel, "_extensions");
    return typeof extensions === "object" && extensions !== null && extension in extensions;
  }

  /** Sends a request; rejects with SftpRefusal if the server says no. */
  async request<T>(start: (channel: SFTPWrapper, callback: SftpCallback<T>) => void): Promise<T> {
    const { signal } = this.#broken;
    signal.throwIfAborted();
    if (this.#pendingCount++ === 0) this.#watchdog.resume();
    try {
      const answer = new Promise<T>((resolve, reject) => {
        start(this.#channel, (error, value) => {
          if (error === undefined || error === null) resolve(value);
          else reject(this.#refusal(error));
        });
      });
      return await untilAborted(answer, signal);
    } finally {
      if (--this.#pendingCount === 0) this.#watchdog.suspend();
    }
  }

  /** Ends the connection; what is under way rejects with `reason`. */
  close(reason?: unknown): void {
    if (this.#broken.signal.aborted) return;
    const closed = new StorageError(`the connection to ${this.#options.name} was closed`, {
      isRetryable: true,
    });
    this.#broken.abort(reason ?? closed);
    this.#watchdog[Symbol.dispose]();
    this.#client.end();
  }

  #refusal(error: Error): unknown {
    const status = "code" in error ? error.code : undefined;
    if (typeof status === "number" && status >= SFTP_STATUS.noSuchFile) {
      return new SftpRefusal(status, error.message);
    }
    return connectionError(this.#options.name, error);
  }
}

function silent({ name, requestTimeoutMs }: SftpConnectionOptions): StorageError {
  return new StorageError(`${name} was silent for ${requestTimeoutMs / 1000} s`, {
    isRetryable: true,
    hint: NO_ANSWER_HINT,
  });
}

function noticeOf({ name, traffic }: SftpConnectionOptions): WatchdogOptions["notice"] {
  const silence = traffic?.silence;
  return silence && { afterMs: silence.afterMs, tell: () => silence.tell(name) };
}

async function logIn(
  client: Client,
  socket: Socket,
  config: SftpConfig,
  { name, login }: SftpConnectionOptions,
): Promise<void> {
  let hostKeyRefusal: StorageAccessError | undefined;
  let agentError: unknown;
  const ready = new Promise<void>((resolve, reject) => {
    client.once("ready", resolve);
    // Stays for good: what fails later must not be an uncaught exception.
    client.on("error", (error) => {
      // The agent may not be there; other ways to log in are tried after it.
      if ("level" in error && error.level === "agent") agentError = error;
      else reject(hostKeyRefusal ?? withAgent(error, agentError));
    });
    client.once("close", () => reject(new Error("it was cut before the login was done")));
  });
  client.connect({
    sock: socket,
    username: config.username,
    authHandler: [...login.methods],
    readyTimeout: 0,
    algorithms: { serverHostKey: hostKeyAlgorithms(login, config) },
    hostVerifier: (key: Buffer) => {
      hostKeyRefusal = hostKeyProblem(login, config, key);
      return hostKeyRefusal === undefined;
    },
  });
  await ready.catch((error: unknown) => {
    throw connectionError(name, error, `${config.username} by ${waysOf(login)}`);
  });
}

/** "publickey and password". */
function waysOf({ methods }: SftpLogin): string {
  return [...new Set(methods.map(({ type }) => type))].join(" and ");
}

function withAgent(error: Error, agentError: unknown): Error {
  if (!(agentError instanceof Error)) return error;
  return Object.assign(new Error(`${error.message} (agent: ${agentError.message})`), {
    level: "level" in error ? error.level : undefined,
  });
}

async function openChannel(client: Client): Promise<SFTPWrapper> {
  return await new Promise((resolve, reject) => {
    client.sftp((error, channel) => (error === undefined ? resolve(channel) : reject(error)));
  });
}
