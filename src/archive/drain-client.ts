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

export interface AskOptions {
  /** In all; the first answer has a second of it at most. */
  readonly timeoutMs: number;
  readonly signal: AbortSignal;
}

/** How long a drainer that lives may take to say that it heard us. */
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
  { timeoutMs, signal }: AskOptions,
): Promise<DrainAnswer | { readonly kind: "absent"; readonly reason: string }> {
  signal.throwIfAborted();
  using address = openAddress(socketPath);
  if (address === undefined) return { kind: "absent", reason: "no spool directory" };
  const { promise, resolve, reject } = Promise.withResolvers<
    DrainAnswer | { readonly kind: "absent"; readonly reason: string }
  >();
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
  const onAbort = (): void => reject(signal.reason);
  signal.addEventListener("abort", onAbort, { once: true });
  socket.on("connect", () => socket.write(formatLine(request)));
  socket.on("error", (error) => leave(error.message));
  socket.on("close", () => leave("it closed the connection"));
  readLines(socket, (line) => {
    const answer = parseAnswer(line);
    if (answer?.kind === "taken") isTaken = true;
    else resolve(answer ?? { kind: "declined", reason: "it said something else" });
  });
  try {
    return await promise;
  } finally {
    clearTimeout(first);
    clearTimeout(last);
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
