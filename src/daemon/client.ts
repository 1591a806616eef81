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
/** sockaddr_un holds 108 bytes. */
const SOCKET_PATH_BYTES_MAX = 107;

/** Sends one message and waits for its answer. Throws FormatError for what no message can hold. */
export async function callDaemon(
  socketPath: string,
  message: DaemonMessage,
  { connectMs, answerMs }: CallTimes,
): Promise<CallResult> {
  const request = formatMessage(message);
  if (Buffer.byteLength(socketPath) > SOCKET_PATH_BYTES_MAX) {
    const reason = `the path is longer than ${SOCKET_PATH_BYTES_MAX} bytes`;
    return { kind: "absent", reason };
  }
  const attempts = Math.max(1, Math.ceil(connectMs / RETRY_MS));
  for (let attempt = 1; ; attempt += 1) {
    const over = new AbortController();
    const timer = setTimeout(() => over.abort(), answerMs);
    const result = await exchangeOverUnixSocket(socketPath, request, { signal: over.signal });
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
