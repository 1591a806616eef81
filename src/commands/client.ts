import { join } from "node:path";
import { duration } from "../config/value-types.ts";
import { callDaemon, type CallResult, type CallTimes } from "../daemon/client.ts";
import { directoryIdentity } from "../daemon/directory-identity.ts";
import type { DaemonMessage, DaemonReply } from "../daemon/protocol.ts";
import { NotInArchiveError, OperationError, ServerStopsError, UsageError } from "../errors.ts";
import type { Command } from "./command.ts";
import { type ExitPlace, clientExitCode } from "./exit-codes.ts";

/** What the client needs of the process; it reads no settings. */
export interface ClientPlace extends Omit<ExitPlace, "positionals"> {
  readonly versionText: string;
  readonly dataDirectory: string | undefined;
  readonly writeOutput: (text: string) => Promise<void>;
  readonly writeError: (text: string) => Promise<void>;
}

/** How a run of the client ends: with a code, or as another command line of walnut's own. */
export type ClientOutcome =
  | { readonly kind: "exit"; readonly code: number }
  | { readonly kind: "run"; readonly args: readonly string[] };

interface ClientCall {
  readonly socketPath: string;
  readonly message: Exclude<DaemonMessage, { kind: "check" }>;
  readonly times: CallTimes;
  readonly isFallback: boolean;
  /** For the run that stands in for the daemon. */
  readonly settings: readonly string[];
}

const USAGE = "client <socket> wal-push <name> | wal-fetch <name> <destination>";
/** WAL-G's own. */
const CONNECT_MS = 5000;
const ANSWER_MS = 60_000;

/** Shows the help; what it does is done before anything else of walnut is loaded. */
export const client: Command<never> = {
  name: "client",
  usage: USAGE,
  summary: "Let a running daemon archive or fetch one WAL file; also under the name walnut-client.",
  details:
    "Takes the arguments of walg-daemon-client and ends as that does, but for a failure of " +
    "wal-fetch: then with 200, which stops a server that would open without this WAL, or with 75 " +
    "for a standby.\n\n" +
    "postgresql.conf: archive_command = 'walnut-client /run/walnut/walnut.sock wal-push %f', " +
    "restore_command = 'exec walnut-client /run/walnut/walnut.sock wal-fetch %f %p'. A link of " +
    "this name to the executable will do.",
  flags: [
    {
      name: "timeout",
      value: "<duration>",
      text: "How long to wait for the answer; 60s unless set.",
    },
    {
      name: "connection-timeout",
      value: "<duration>",
      text: "How long to wait for a daemon that is being started; 5s unless set.",
    },
    {
      name: "fallback",
      text: "Where there is no daemon, do it here; settings stand behind, as --name=value.",
    },
  ],
  needsConfig: false,

  parse() {
    throw new UsageError('"client" is to be the first word', { hint: `Usage: walnut ${USAGE}.` });
  },
  run: (call) => call,
};

/** Runs the client on the words behind its name. Never rejects. */
export async function runClient(
  words: readonly string[],
  place: ClientPlace,
): Promise<ClientOutcome> {
  const fail = async (error: unknown): Promise<ClientOutcome> => {
    const isExpected = error instanceof OperationError;
    const message = error instanceof Error ? error.message : String(error);
    const text = isExpected ? message : `a bug in walnut: ${message}`;
    const hint = isExpected && error.hint !== undefined ? `HINT: ${error.hint}\n` : "";
    await place.writeError(`ERROR: ${text}\n${hint}`);
    const positionals = words.filter((word) => !word.startsWith("-"));
    const code = clientExitCode(error, { ...place, positionals });
    return { kind: "exit", code };
  };
  const last = async (error: OperationError): Promise<OperationError> =>
    words.includes("wal-push") ? await ofLastCycle(error, place) : error;
  try {
    if (/^(-h|--?help)$/.test(words[0] ?? "--help"))
      return { kind: "run", args: ["help", "client"] };
    if (/^--?version$/.test(words[0] ?? "")) {
      await place.writeOutput(place.versionText.replace(/^walnut version /, "walnut-client\t"));
      return { kind: "exit", code: 0 };
    }
    const call = parseCall(words);
    const dataDirectory = callersDataDirectory(place);
    const result = await callDaemon(call.socketPath, call.message, {
      ...call.times,
      dataDirectory,
    });
    if (result.kind === "reply") {
      return await answered(result.reply, call, async (error) => await fail(await last(error)));
    }
    if (result.kind !== "lost" && call.isFallback) {
      await place.writeError(`WARNING: no daemon at ${call.socketPath} (${result.reason})\n`);
      return { kind: "run", args: fallbackWords(call, place) };
    }
    return await fail(await last(unreached(call, result)));
  } catch (error) {
    return await fail(error);
  }
}

/**
 * PostgreSQL starts us in its data directory. The daemon takes a name, and a path as its own server
 * has it: what another server asks for would be brought into, or taken from, the wrong pg_wal.
 */
function callersDataDirectory({ workingDirectory, fileExists }: ClientPlace): string | undefined {
  if (!fileExists(join(workingDirectory, "PG_VERSION"))) return undefined;
  return directoryIdentity(workingDirectory);
}

async function answered(
  reply: DaemonReply,
  { message }: ClientCall,
  fail: (error: OperationError) => Promise<ClientOutcome>,
): Promise<ClientOutcome> {
  if (reply === "O") return { kind: "exit", code: 0 };
  if (reply === "N" && message.kind === "fetch") {
    return await fail(new NotInArchiveError(`WAL file ${message.name} is not in the archive`));
  }
  return await fail(
    new DaemonCallError(`the daemon could not ${message.kind} ${message.name}`, {
      hint: "Its log says why.",
    }),
  );
}

/** A server that stops would call five times more, and wait each time. */
async function ofLastCycle(
  error: OperationError,
  { workingDirectory }: ClientPlace,
): Promise<OperationError> {
  const { isLastCycle, STOP_HINT } = await import("../archive/last-cycle.ts");
  if (!(await isLastCycle(workingDirectory))) return error;
  return new ServerStopsError(`${error.message}, and the server has only this to wait for`, {
    hint: STOP_HINT,
  });
}

/** The daemon did not do it, or we do not know. */
class DaemonCallError extends OperationError {
  readonly code = "storage";
}

function unreached(
  { socketPath, message }: ClientCall,
  { kind, reason }: Exclude<CallResult, { kind: "reply" }>,
): DaemonCallError {
  const { what, hint } = UNREACHED[kind];
  return new DaemonCallError(
    `${what} at ${socketPath} to ${message.kind} ${message.name}: ${reason}`,
    { hint },
  );
}

const UNREACHED = {
  absent: {
    what: "no daemon was reached",
    hint: "Is it running (systemctl status walnut), as the same user? --fallback works without it.",
  },
  foreign: {
    what: "the daemon refused",
    hint:
      "A daemon works for the server of its PGDATA alone. In a copy or a restore use the lines of " +
      "`walnut setup`, or a daemon and a socket of its own.",
  },
  lost: {
    what: "the daemon did not answer",
    hint: "PostgreSQL calls again by itself; the daemon's log says what it does.",
  },
} as const;

function fallbackWords({ message, settings }: ClientCall, place: ClientPlace): readonly string[] {
  if (message.kind === "fetch") {
    return ["wal-fetch", message.name, message.destination, ...settings];
  }
  const relative = join("pg_wal", message.name);
  const isHere = place.fileExists(join(place.workingDirectory, relative));
  const path = isHere ? relative : join(place.dataDirectory ?? ".", relative);
  return ["wal-push", path, ...settings];
}

/** Flags as Go's programs take them: with one dash or two, before or behind the rest. */
function parseCall(words: readonly string[]): ClientCall {
  const positionals: string[] = [];
  const settings: string[] = [];
  const times = { connectMs: CONNECT_MS, answerMs: ANSWER_MS };
  let isFallback = false;
  for (let index = 0; index < words.length; index += 1) {
    const word = words[index] ?? "";
    const [, flag = "", inline] = /^--?([a-z0-9-]+)(?:=(.*))?$/s.exec(word) ?? [];
    if (flag === "timeout" || flag === "connection-timeout") {
      const value = inline ?? words[(index += 1)] ?? "";
      times[flag === "timeout" ? "answerMs" : "connectMs"] = parseDuration(flag, value);
    } else if (flag === "fallback" && inline === undefined) {
      isFallback = true;
    } else if (word.startsWith("--") && inline !== undefined) {
      settings.push(word);
    } else if (flag !== "") {
      throw new UsageError(`unknown flag ${word}`, { hint: `Usage: walnut ${USAGE}.` });
    } else {
      positionals.push(word);
    }
  }
  if (settings.length > 0 && !isFallback) {
    throw new UsageError(`${settings[0]} means nothing without --fallback`);
  }
  const [socketPath = "", ...rest] = positionals;
  // There is nothing to wait for where the work can begin at once.
  const connectMs = isFallback ? 0 : times.connectMs;
  const message = parseMessage(rest);
  return { socketPath, message, times: { ...times, connectMs }, isFallback, settings };
}

function parseMessage(words: readonly string[]): ClientCall["message"] {
  const [verb, name = "", destination = "", ...surplus] = words;
  if (name.includes("/")) {
    throw new UsageError(`${name} is no name of a WAL file: it has a slash`, {
      hint: "Write %f for it in postgresql.conf.",
    });
  }
  if (verb === "wal-push" && name !== "" && words.length === 2) return { kind: "push", name };
  if (verb === "wal-fetch" && destination !== "" && surplus.length === 0) {
    return { kind: "fetch", name, destination };
  }
  throw new UsageError(`usage: walnut ${USAGE}`);
}

function parseDuration(flag: string, text: string): number {
  try {
    return duration({ minMs: 0 }).parse(text);
  } catch (cause) {
    throw new UsageError(`--${flag} takes a duration such as 30s, not ${JSON.stringify(text)}`, {
      cause,
    });
  }
}
