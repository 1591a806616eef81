import { stat } from "node:fs/promises";
import { join, resolve } from "node:path";
import { callDaemon } from "../daemon/client.ts";
import { directoryIdentity } from "../daemon/directory-identity.ts";
import { DaemonServer } from "../daemon/server.ts";
import { readService, ServiceNotifier } from "../daemon/service.ts";
import { ConfigError, OperationError, RefusedError } from "../errors.ts";
import { Bell } from "../io/bell.ts";
import type { Command, Context } from "./command.ts";
import { DaemonArchive, resolvedDataDirectory } from "./daemon-archive.ts";
import { onePath } from "./words.ts";

/** What is under way when we are told to stop may go on for so long. */
const STOP_MS = 20_000;
/** To put the store's connections away. */
const CLOSE_MS = 5000;
const TICK_MS = 1000;
/** Beyond the time limits of the calls themselves. */
const STALL_MARGIN_MS = 30_000;
const PROBE_MS = 5000;

/** `walnut daemon /run/walnut/walnut.sock`, as a service. */
export const daemon: Command<{ readonly socketPath: string }> = {
  name: "daemon",
  usage: "daemon <socket>",
  summary: "Archive and fetch WAL for clients of a unix socket, as WAL-G's daemon does.",
  details:
    "Serves the data directory that PGDATA names, as its owner, to walnut-client, walg-daemon-client " +
    "and PostgreSQL modules that speak WAL-G's protocol. The socket file is there when it is ready.\n\n" +
    "SIGHUP reads the settings anew; if they are wrong, the old ones stay. SIGTERM lets what is " +
    "under way end, for 20 seconds at most; a second one ends at once. `walnut setup --systemd` " +
    "prints a unit.",
  flags: [],
  needsConfig: true,

  parse: (words) => ({ socketPath: onePath(words, "the path of the socket") }),

  async run({ socketPath }, context) {
    const { clock, launch, workingDirectory } = context;
    const dataDirectory = resolvedDataDirectory(context, context);
    if (dataDirectory === undefined) {
      throw new ConfigError("PGDATA is not set", {
        hint: "Name the data directory whose WAL the daemon is to archive and fetch.",
      });
    }
    const service = launch === undefined ? {} : readService(launch);
    const notifier = await ServiceNotifier.open(service);
    const archive = new DaemonArchive(context, dataDirectory);
    await archive.open();
    const path = resolve(workingDirectory, socketPath);
    const { listenDescriptor } = service;
    const log = () => archive.log;
    const isServed = (other: string): boolean => other === directoryIdentity(dataDirectory);
    const listening = { path, listenDescriptor, work: archive, isServed, log, clock };
    const server = await DaemonServer.listen(listening);
    log().info("daemon listens", { socket: path, dataDirectory });
    if (!(await isThere(join(dataDirectory, "pg_wal")))) {
      log().warning("the data directory has no pg_wal: until it has, every push fails", {
        hint: "Does PGDATA name the server's data directory, and is that mounted?",
      });
    }
    const parts = { path, server, archive, notifier, watchdogMs: service.watchdogMs };
    try {
      await supervise(parts, context);
    } finally {
      notifier.stopping();
      notifier.status("stopping");
      await server.stop({ graceMs: STOP_MS });
      await archive.close({ signal: AbortSignal.timeout(CLOSE_MS) });
      log().info("daemon ends", server.counts);
    }
  },
};

async function isThere(path: string): Promise<boolean> {
  try {
    return (await stat(path)).isDirectory();
  } catch {
    return false;
  }
}

interface Parts {
  readonly path: string;
  readonly server: DaemonServer;
  readonly archive: DaemonArchive;
  readonly notifier: ServiceNotifier;
  readonly watchdogMs: number | undefined;
}

/** Until we are told to stop. Rejects when clients can't find us any more. */
async function supervise(parts: Parts, context: Context): Promise<void> {
  const { server, notifier, path, watchdogMs = Number.POSITIVE_INFINITY } = parts;
  const { clock, signal } = context;
  const bell = new Bell();
  let isReloadWanted = false;
  context.onSignal?.("SIGHUP", () => {
    isReloadWanted = true;
    bell.ring();
  });
  // WAL-G opens its log anew. Ours is opened for each line, so that there is nothing to do.
  context.onSignal?.("SIGUSR1", () => {});
  signal.addEventListener("abort", () => bell.ring(), { once: true });
  notifier.ready();
  let toldAtMs = Number.NEGATIVE_INFINITY;
  let refusal = "";
  while (!signal.aborted) {
    if (isReloadWanted) {
      isReloadWanted = false;
      refusal = (await reload(parts, context)) ? "" : "; new settings were refused, see the log";
    }
    if (!(await server.isOwn())) {
      throw new RefusedError(`${path} does not lead to this daemon any more`, {
        hint: "Its socket was removed, or another daemon took it over.",
      });
    }
    const { done, failed } = server.counts;
    const running = server.runningCount;
    notifier.status(`${done} done, ${failed} failed, ${running} under way${refusal}`);
    const isDue = clock.monotonicMs() - toldAtMs >= watchdogMs / 2;
    if (Number.isFinite(watchdogMs) && isDue && (await getsOn(parts, context))) {
      toldAtMs = clock.monotonicMs();
      notifier.alive();
    }
    await bell.rungWithin(Math.min(TICK_MS, watchdogMs / 4), context);
  }
}

/** Whether work under way ends, and a client is answered. */
async function getsOn(
  { server, archive, path }: Parts,
  { clock, traffic }: Pick<Context, "clock" | "traffic">,
): Promise<boolean> {
  // A slow transfer that gets on has its time again and again.
  const silentMs = clock.monotonicMs() - (traffic?.heardAtMs ?? Number.NEGATIVE_INFINITY);
  const stalledMs = Math.min(server.stalledMs, silentMs);
  if (stalledMs > 2 * archive.callMs + STALL_MARGIN_MS) {
    archive.log.error("no call has ended for long; the watchdog is not told", { stalledMs });
    return false;
  }
  const times = { connectMs: 0, answerMs: PROBE_MS };
  const result = await callDaemon(path, { kind: "check" }, times);
  if (result.kind === "reply" && result.reply === "O") return true;
  const reason = result.kind === "reply" ? result.reply : result.reason;
  archive.log.error("the daemon does not answer itself; the watchdog is not told", { reason });
  return false;
}

/** Gives whether the settings that are there are those in use. */
async function reload({ archive, notifier }: Parts, context: Context): Promise<boolean> {
  if (context.reload === undefined) return true;
  notifier.reloading();
  try {
    await archive.reload(await context.reload());
    archive.log.info("settings were read anew");
    return true;
  } catch (error) {
    if (!(error instanceof OperationError)) throw error;
    const { message: reason, hint } = error;
    archive.log.error("new settings are refused, the old ones stay", { reason, hint });
    return false;
  } finally {
    notifier.ready();
  }
}
