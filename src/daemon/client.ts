import { systemErrorCode } from "../errors.ts";
import { exchangeOverUnixSocket } from "../io/runtime.ts";
import { type DaemonMessage, type DaemonReply, formatMessage } from "./protocol.ts";

export interface CallTimes {
  /** To reach the daemon: one that is being started again is waited for. */
  readonly connectMs: number;
  /** For the answer. */
  readonly answerMs: number;
}

/** What a call came to. */
export type CallResult =
  | { readonly kind: "reply"; readonly reply: DaemonReply }
  /** The daemon was not reached: it knows nothing of this call. */
  | { readonly kind: "absent"; readonly reason: string }
  /** It may be at it, or have done it. */
  | { readonly kind: "lost"; readonly reason: string };

const RETRY_MS = 100;
/** sockaddr_un holds 108 bytes, one of them a zero. */
const SOCKET_PATH_BYTES_MAX = 107;

/** Sends one message and waits for its answer. Throws FormatError for what no message can hold. */
export async function callDaemon(
  socketPath: string,
  message: DaemonMessage,
  { connectMs, answerMs }: CallTimes,
): Promise<CallResult> {
  const request = formatMessage(message);
  using address = await addressOf(socketPath);
  if (address === undefined) return { kind: "absent", reason: "no such directory" };
  const attempts = Math.max(1, Math.ceil(connectMs / RETRY_MS));
  for (let attempt = 1; ; attempt += 1) {
    const over = new AbortController();
    const timer = setTimeout(() => over.abort(), answerMs);
    const result = await exchangeOverUnixSocket(address.path, request, { signal: over.signal });
    clearTimeout(timer);
    if (over.signal.aborted) return { kind: "lost", reason: `no answer in ${answerMs} ms` };
    if (result.kind === "answer") return readReply(result.bytes);
    if (result.kind === "closed") {
      return { kind: "lost", reason: "the daemon closed the connection without an answer" };
    }
    // Refused, or no file: it may be about to start.
    const isComing = /^(ENOENT|ECONNREFUSED|EAGAIN)$/.test(result.code);
    if (!isComing || attempt >= attempts) return { kind: "absent", reason: result.code };
    await new Promise((resolve) => setTimeout(resolve, RETRY_MS));
  }
}

function readReply(bytes: Uint8Array): CallResult {
  const reply = (["O", "N", "E"] as const).find((one) => one.charCodeAt(0) === bytes[0]);
  if (reply === undefined) return { kind: "lost", reason: `answer ${bytes[0]} is unknown` };
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
