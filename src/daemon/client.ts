import { systemErrorCode } from "../errors.ts";
import { exchangeOverUnixSocket } from "../io/runtime.ts";
import { type DaemonMessage, type DaemonReply, formatMessage } from "./protocol.ts";

export interface CallTimes {
  /** To reach the daemon: one that is being started again is waited for. */
  readonly connectMs: number;
  /** For the answer. */
  readonly answerMs: number;
}

export interface CallOptions extends CallTimes {
  /** That of the caller's server, by directoryIdentity: no other server's daemon is to do it. */
  readonly dataDirectory?: string | undefined;
}

/** What a call came to. */
export type CallResult =
  | { readonly kind: "reply"; readonly reply: DaemonReply }
  /** The daemon was not reached: it knows nothing of this call. */
  | { readonly kind: "absent"; readonly reason: string }
  /** It serves another data directory and has not done it. */
  | { readonly kind: "foreign"; readonly reason: string }
  /** It may be at it, or have done it. */
  | { readonly kind: "lost"; readonly reason: string };

const RETRY_MS = 100;
const OK = 0x4f;
const NO = 0x4e;
/** sockaddr_un holds 108 bytes, one of them a zero. */
const SOCKET_PATH_BYTES_MAX = 107;

/** Sends one message and waits for its answer. Throws FormatError for what no message can hold. */
export async function callDaemon(
  socketPath: string,
  message: DaemonMessage,
  { connectMs, answerMs, dataDirectory }: CallOptions,
): Promise<CallResult> {
  const messages: readonly DaemonMessage[] =
    dataDirectory === undefined ? [message] : [{ kind: "check", dataDirectory }, message];
  const request = Buffer.concat(messages.map(formatMessage));
  using address = await addressOf(socketPath);
  if (address === undefined) return { kind: "absent", reason: "no such directory" };
  const attempts = Math.max(1, Math.ceil(connectMs / RETRY_MS));
  for (let attempt = 1; ; attempt += 1) {
    const over = new AbortController();
    const timer = setTimeout(() => over.abort(), answerMs);
    const result = await exchangeOverUnixSocket(address.path, request, {
      signal: over.signal,
      answerBytes: messages.length,
    });
    clearTimeout(timer);
    if (over.signal.aborted) return { kind: "lost", reason: `no answer in ${answerMs} ms` };
    if (result.kind === "answer") return readReplies(result.bytes, messages.length);
    if (result.kind === "closed") return UNANSWERED;
    // Refused, or no file: it may be about to start.
    const isComing = /^(ENOENT|ECONNREFUSED|EAGAIN)$/.test(result.code);
    if (!isComing || attempt >= attempts) return { kind: "absent", reason: result.code };
    await new Promise((resolve) => setTimeout(resolve, RETRY_MS));
  }
}

const UNANSWERED: CallResult = {
  kind: "lost",
  reason: "the daemon closed the connection without an answer",
};

/** A byte for each message, none behind one that was refused. */
function readReplies(bytes: Uint8Array, messageCount: number): CallResult {
  const check = messageCount > 1 ? bytes[0] : OK;
  if (check === NO) return { kind: "foreign", reason: "it serves another data directory" };
  const byte = check === OK ? bytes[messageCount - 1] : check;
  if (byte === undefined) return UNANSWERED;
  const reply = (["O", "N", "E"] as const).find((one) => one.charCodeAt(0) === byte);
  if (reply === undefined) return { kind: "lost", reason: `answer ${byte} is unknown` };
  return { kind: "reply", reply };
}

/** Undefined where the directory of a long path can't be opened. */
async function addressOf(
  path: string,
): Promise<({ readonly path: string } & Disposable) | undefined> {
  if (Buffer.byteLength(path) <= SOCKET_PATH_BYTES_MAX) return { path, [Symbol.dispose]() {} };
  const { socketAddress } = await import("../archive/drain-protocol.ts");
  try {
    return socketAddress(path);
  } catch (error) {
    if (systemErrorCode(error) === undefined) throw error;
    return undefined;
  }
}
