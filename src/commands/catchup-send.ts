import { resolve } from "node:path";
import { connectCatchUp, type HostPort, requireSecret } from "../backup/catch-up-connection.ts";
import { sendCatchUp } from "../backup/catch-up-send.ts";
import { UsageError } from "../errors.ts";
import { formatLsn } from "../postgres/lsn.ts";
import { CATCH_UP_IDLE_MS } from "./catchup-receive.ts";
import type { Command } from "./command.ts";
import { formatBytes } from "./progress.ts";
import { requirePositionals } from "./words.ts";

interface CatchUpSendArguments {
  /** As the user wrote it. */
  readonly dataDirectory: string;
  readonly receiver: HostPort;
}

/** `walnut catchup-send` */
export const catchUpSend: Command<CatchUpSendArguments> = {
  name: "catchup-send",
  usage: "catchup-send <data-directory> <host:port>",
  summary: "Give a lagging standby what it lacks, from server to server.",
  details:
    "Run it on the primary, after catchup-receive on the stopped standby's host. It sends the pages " +
    "that changed since the standby's last checkpoint, all files that have no pages, and the WAL of " +
    "that time; no repository is needed. Everything on the way is encrypted by WALNUT_CATCHUP_SECRET, " +
    "which has to be the same on both hosts. When it ends with 0, the standby's directory is whole.",
  flags: [],
  needsConfig: true,

  parse(words) {
    const names = ["the data directory", "the receiver's host:port"];
    const [dataDirectory = "", receiver = ""] = requirePositionals(words, names);
    return { dataDirectory, receiver: parseReceiver(receiver) };
  },

  async run({ dataDirectory, receiver }, context) {
    const { config, log, clock, signal, progress } = context;
    const secret = requireSecret(config.catchUpSecret);
    const idleMs = CATCH_UP_IDLE_MS;
    await using link = await connectCatchUp(receiver, { secret, idleMs, clock, log, signal });
    const settings = {
      dataDirectory: resolve(context.workingDirectory, dataDirectory),
      connection: config.postgres,
      aliveCheckIntervalMs: config.aliveCheckIntervalMs,
    };
    const onProgress = (state: { readonly doneBytes: number; readonly totalBytes?: number }) =>
      progress.update({ activity: "sending what changed", ...state });
    try {
      const sent = await sendCatchUp(link, settings, { log, clock, onProgress, signal });
      progress.end();
      log.info("the standby is caught up; start it", {
        since: formatLsn(sent.fromLsn),
        to: formatLsn(sent.stopLsn),
        sent: formatBytes(sent.dataBytes),
        unchanged: sent.unchangedCount,
      });
    } finally {
      progress.end();
    }
  },
};

function parseReceiver(text: string): HostPort {
  const match = /^(?:\[([^\]]+)\]|([^:]+)):([0-9]{1,5})$/.exec(text);
  const [host, port] = [match?.[1] ?? match?.[2], Number(match?.[3])];
  if (host !== undefined && port >= 1 && port <= 65_535) return { host, port };
  throw new UsageError(`${JSON.stringify(text)} is not host:port`, {
    hint: "As in standby.example.com:7001, or [fd00::1]:7001.",
  });
}
