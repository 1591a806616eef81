import { createConnection } from "node:net";
import {
  type DrainAnswer,
  DrainError,
  type DrainRequest,
  formatLine,
  parseAnswer,
  readLines,
  socketAddress,
} from "./drain-protocol.ts";
import { type LastCycle, watchLastCycle } from "./last-cycle.ts";

export interface AskOptions {
  /** In all; the first answer has a second of it at most. */
  readonly timeoutMs: number;
  /** After that many milliseconds without a word it counts as frozen; absent: it need say none. */
  readonly silenceMs?: number;
  /** Ends the waiting earlier where a server waits for it to stop. */
  readonly lastCycle?: LastCycle;
  readonly signal: AbortSignal;
}

/** How long a process that lives may take to say that it heard us. */
const FIRST_ANSWER_MS = 1000;

/**
 * The way that a push took: "absent" where nobody listens, "declined" where we must do it
 * ourselves.
 */
export type AskOutcome =
  | { readonly kind: "stored"; readonly outcome: string }
  | { readonly kind: "absent" | "declined"; readonly reason: string };

/**
 * Asks the drainer to push a file and waits for it. Rejects with the drainer's own error, and with
 * the signal's reason; everything else, also a drainer that ends meanwhile, gives "absent" or
 * "declined".
 */
export async function askDrainer(
  socketPath: string,
  request: Extract<DrainRequest, { kind: "push" }>,
  options: AskOptions,
): Promise<AskOutcome> {
  const answer = await ask(socketPath, request, options);
  if (answer.kind === "failed") throw new DrainError(answer);
  if (answer.kind === "stored" || answer.kind === "absent") return answer;
  return { kind: "declined", reason: answer.kind === "declined" ? answer.reason : "other answer" };
}

/**
 * The drainer's last answer; "absent" when it can't be reached. Rejects with the signal's reason.
 */
export async function ask(
  socketPath: string,
  request: DrainRequest,
  options: AskOptions,
): Promise<DrainAnswer | Absent> {
  return await converse(socketPath, { request, parse: parseAnswer }, options);
}

/** Nobody listens, or nobody answered. */
export interface Absent {
  readonly kind: "absent";
  readonly reason: string;
}

/** No answer, though somebody is there. */
interface Declined {
  readonly kind: "declined";
  readonly reason: string;
}

/** What is asked over a socket; `parse` gives undefined for what is no answer. */
export interface Question<Answer> {
  readonly request: object;
  readonly parse: (line: string) => Answer | undefined;
}

/**
 * The last answer of who listens at the socket: the first one that is not "taken". Rejects with the
 * signal's reason.
 */
export async function converse<Answer extends { readonly kind: string }>(
  socketPath: string,
  { request, parse }: Question<Answer>,
  { timeoutMs, silenceMs, lastCycle, signal }: AskOptions,
): Promise<Answer | Absent | Declined> {
  signal.throwIfAborted();
  using address = openAddress(socketPath);
  if (address === undefined) return { kind: "absent", reason: "no spool directory" };
  const { promise, resolve, reject } = Promise.withResolvers<Answer | Absent | Declined>();
  const socket = createConnection({ path: address.path });
  let isTaken = false;
  const leave = (reason: string): void =>
    resolve({ kind: isTaken ? "declined" : "absent", reason });
  const first = setTimeout(
    () => isTaken || resolve({ kind: "declined", reason: "it does not answer" }),
    Math.min(FIRST_ANSWER_MS, timeoutMs),
  );
  const last = setTimeout(
    () => resolve({ kind: "declined", reason: `no answer in ${timeoutMs} ms` }),
    timeoutMs,
  );
  let silence: NodeJS.Timeout | undefined;
  const heard = (): void => {
    if (silenceMs === undefined) return;
    clearTimeout(silence);
    const reason = `it says nothing any more, for ${silenceMs} ms`;
    silence = setTimeout(() => resolve({ kind: "declined", reason }), silenceMs);
  };
  const onStop = (): void => resolve({ kind: "declined", reason: "the server stops" });
  using _watch = lastCycle === undefined ? undefined : watchLastCycle(lastCycle, onStop);
  const onAbort = (): void => reject(signal.reason);
  signal.addEventListener("abort", onAbort, { once: true });
  socket.on("connect", () => socket.write(formatLine(request)));
  socket.on("error", (error) => leave(error.message));
  socket.on("close", () => leave("it closed the connection"));
  readLines(socket, (line) => {
    const answer = parse(line);
    heard();
    if (answer?.kind === "taken") isTaken = true;
    else resolve(answer ?? { kind: "declined", reason: "it said something else" });
  });
  try {
    return await promise;
  } finally {
    clearTimeout(first);
    clearTimeout(last);
    clearTimeout(silence);
    signal.removeEventListener("abort", onAbort);
    socket.destroy();
  }
}

function openAddress(path: string): ReturnType<typeof socketAddress> | undefined {
  try {
    return socketAddress(path);
  } catch {
    return undefined;
  }
}
