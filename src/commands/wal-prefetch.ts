import { resolve } from "node:path";
import { queueIn } from "../archive/archive-status.ts";
import { converse } from "../archive/drain-client.ts";
import { parsePrefetchAnswer } from "../archive/prefetch-protocol.ts";
import { prefetch } from "../archive/prefetcher.ts";
import { readSegmentBefore } from "../archive/recovery-watch.ts";
import { RefusedError, UsageError } from "../errors.ts";
import type { Command } from "./command.ts";
import { prefetchSpool } from "./fetch-ahead.ts";
import { requirePositionals } from "./words.ts";

interface Arguments {
  readonly dataDirectory: string | undefined;
  readonly after: string | undefined;
  readonly isBegin: boolean;
  readonly recovery: string | undefined;
  readonly isStatus: boolean;
}

const IDLE_MS = 5 * 60_000;
const INSPECT_MS = 1000;
const STATUS_TIMEOUT_MS = 2000;

/** Started by wal-fetch; by hand only to look at it. */
export const walPrefetch: Command<Arguments> = {
  name: "wal-prefetch",
  usage: "wal-prefetch [<data directory>] [--status]",
  summary: "Fetch WAL ahead of a recovery; wal-fetch starts it by itself.",
  details:
    "Ends with the recovery, with the server, and after five minutes in which nothing was asked " +
    "for. It runs once a data directory; --status asks the one that runs.",
  flags: [
    { name: "after", value: "<segment>", text: "The segment that recovery has got last." },
    { name: "begin", text: "Begin with the segment that backup_label names." },
    { name: "recovery", value: "<name>", text: "The recovery, as setup's line names it." },
    { name: "status", text: "Print as JSON what the running one does." },
  ],
  needsConfig: true,

  parse(words) {
    const [dataDirectory] = requirePositionals(words, ["the data directory"], 1);
    const isStatus = words.has("status");
    const after = words.value("after");
    const isBegin = words.has("begin");
    if (after === undefined && !isBegin && !isStatus) {
      throw new UsageError("the segment that recovery has got last is missing", {
        hint: "wal-fetch starts this command; `walnut wal-prefetch --status` looks at it.",
      });
    }
    return { dataDirectory, after, isBegin, recovery: words.value("recovery"), isStatus };
  },

  async run({ dataDirectory, after = "", isBegin, recovery, isStatus }, context) {
    const { config, log, clock, signal, workingDirectory, self } = context;
    const place = dataDirectory ?? config.dataDirectory ?? ".";
    const queue = queueIn(resolve(workingDirectory, place));
    const spool = await prefetchSpool(queue.dataDirectory, config);
    if (isStatus) {
      const question = { request: { kind: "status" }, parse: parsePrefetchAnswer };
      const options = { timeoutMs: STATUS_TIMEOUT_MS, signal };
      const answer = await converse(spool.prefetchSocket, question, options);
      const status = answer.kind === "status" ? { running: true, ...answer.status } : undefined;
      return await context.write(`${JSON.stringify(status ?? { running: false })}\n`);
    }
    if (self === undefined) throw new RefusedError("wal-prefetch can't run here");
    const last = isBegin ? await readSegmentBefore(queue) : after;
    // The call for the first segment has found nobody, and starts another one.
    if (last === undefined) return log.debug("the recovery has begun already");
    const { installRenameProgram } = await import("../archive/rename-program.ts");
    await installRenameProgram(spool.renameProgram).catch((error: unknown) => {
      log.debug("no program to rename", { reason: String(error) });
    });
    const reason = await prefetch({
      queue,
      spool,
      openStorage: () => context.openStorage(),
      codecJobs: config.codecJobs,
      cacheDirectory: config.cacheDirectory,
      ...config.prefetch,
      timeoutMs: config.walTimeoutMs,
      idleMs: IDLE_MS,
      inspectMs: INSPECT_MS,
      settings: self.fingerprint,
      configFile: self.configFile,
      after: last,
      recovery,
      log,
      clock,
      signal,
    });
    log.debug("ended", { reason });
  },
};
