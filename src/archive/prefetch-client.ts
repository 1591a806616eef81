import { readdir, rm } from "node:fs/promises";
import { join } from "node:path";
import { exchangeOverUnixSocket } from "../io/runtime.ts";
import { localFileError } from "../io/system-error.ts";
import type { AskOptions } from "./drain-client.ts";
import { formatLine, socketAddress } from "./drain-protocol.ts";
import { parsePrefetchAnswer, type PrefetchRequest } from "./prefetch-protocol.ts";
import type { Spool } from "./spool-directory.ts";

/**
 * Where a segment was fetched ahead to; "absent" where nobody listens, "declined" where the caller
 * must fetch it itself. None of this says anything about the archive.
 */
export type TakeOutcome =
  | { readonly kind: "ready"; readonly path: string }
  | { readonly kind: "absent" | "declined"; readonly reason: string };

/**
 * Asks the prefetcher for a segment, and waits for it while it is being fetched. Rejects with the
 * signal's reason only.
 */
export async function askPrefetcher(
  { prefetchSocket }: Spool,
  request: Extract<PrefetchRequest, { kind: "take" }>,
  options: AskOptions,
): Promise<TakeOutcome> {
  const first = await firstAnswer(prefetchSocket, request, options);
  if (first !== undefined) return first;
  // It is under way: the answer may take as long as a fetch.
  const { converse } = await import("./drain-client.ts");
  const question = { request: { ...request, isAgain: true }, parse: parsePrefetchAnswer };
  const answer = await converse(prefetchSocket, question, options);
  if (answer.kind === "ready" || answer.kind === "absent") return answer;
  return { kind: "declined", reason: answer.kind === "declined" ? answer.reason : "other answer" };
}

/** How long a process that lives may take to say that it heard us. */
const FIRST_ANSWER_MS = 1000;

/** Undefined when it is worth waiting for another answer. */
async function firstAnswer(
  socketPath: string,
  request: PrefetchRequest,
  { timeoutMs, signal }: AskOptions,
): Promise<TakeOutcome | undefined> {
  signal.throwIfAborted();
  using address = openAddress(socketPath);
  if (address === undefined) return { kind: "absent", reason: "no spool directory" };
  const patience = AbortSignal.timeout(Math.min(FIRST_ANSWER_MS, timeoutMs));
  const question = Buffer.from(formatLine(request));
  const either = { signal: AbortSignal.any([signal, patience]) };
  const exchange = await exchangeOverUnixSocket(address.path, question, either);
  signal.throwIfAborted();
  if (exchange.kind === "absent") return { kind: "absent", reason: exchange.code };
  if (exchange.kind === "closed") return { kind: "declined", reason: "it does not answer" };
  const [line = ""] = Buffer.from(exchange.bytes).toString("utf8").split("\n");
  const answer = parsePrefetchAnswer(line);
  if (answer?.kind === "taken") return undefined;
  if (answer?.kind === "ready" || answer?.kind === "declined") return answer;
  return { kind: "declined", reason: "other answer" };
}

function openAddress(path: string): ReturnType<typeof socketAddress> | undefined {
  try {
    return socketAddress(path);
  } catch {
    return undefined;
  }
}

/**
 * Removes what a prefetcher left that was killed; nothing, and gives false, while one lives.
 * Rejects with LocalFileError.
 */
export async function sweepPrefetched(
  { prefetch, prefetchSocket }: Spool,
  options: AskOptions,
): Promise<boolean> {
  // Listed first: one that begins now makes other names.
  const names = await listed(prefetch);
  if (names.length === 0) return true;
  const { converse } = await import("./drain-client.ts");
  const question = { request: { kind: "status" }, parse: parsePrefetchAnswer };
  if ((await converse(prefetchSocket, question, options)).kind !== "absent") return false;
  for (const name of names) await rm(join(prefetch, name), { recursive: true, force: true });
  return true;
}

async function listed(directory: string): Promise<readonly string[]> {
  try {
    return await readdir(directory);
  } catch (error) {
    throw localFileError("list", directory, error);
  }
}
