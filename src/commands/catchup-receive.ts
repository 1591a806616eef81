import { resolve } from "node:path";
import { CatchUpListener, requireSecret } from "../backup/catch-up-connection.ts";
import { inspectCatchUpPlace, receiveCatchUp } from "../backup/catch-up-receive.ts";
import { UsageError } from "../errors.ts";
import type { Command } from "./command.ts";
import { formatBytes } from "./progress.ts";
import { requirePositionals } from "./words.ts";

/** An end that has given no sign of life for so long counts as gone. */
export const CATCH_UP_IDLE_MS = 60_000;

const LOOPBACK = "127.0.0.1";

interface CatchUpReceiveArguments {
  /** As the user wrote it. */
  readonly dataDirectory: string;
  readonly port: number;
  readonly address: string;
}

/** `walnut catchup-receive` */
export const catchUpReceive: Command<CatchUpReceiveArguments> = {
  name: "catchup-receive",
  usage: "catchup-receive <data-directory> <port>",
  summary: "Wait for catchup-send and bring a stopped standby up to the primary.",
  details:
    "The directory must be that of a standby of the same cluster, stopped cleanly. Its configuration " +
    "and standby.signal stay. No server can start on it before everything is there; after an " +
    "interruption run both commands again. WALNUT_CATCHUP_SECRET has to be the same on both hosts. " +
    "Without --listen only this host can connect, as through ssh: on the primary, " +
    "`ssh -L 7001:127.0.0.1:7001 <standby>`, and catchup-send to 127.0.0.1:7001.",
  flags: [
    {
      name: "listen",
      value: "<address>",
      text: "Address to listen on: one of this host's, or 0.0.0.0 for all; 127.0.0.1 unless given.",
    },
  ],
  needsConfig: true,

  parse(words) {
    const names = ["the data directory", "the port"];
    const [dataDirectory = "", port = ""] = requirePositionals(words, names);
    if (!/^[0-9]{1,5}$/.test(port) || Number(port) > 65_535) {
      throw new UsageError(`${JSON.stringify(port)} is no port`, {
        hint: "Give 1 to 65535; the address to listen at goes into --listen.",
      });
    }
    return { dataDirectory, port: Number(port), address: words.value("listen") ?? LOOPBACK };
  },

  async run({ dataDirectory, port, address: host }, context) {
    const { config, log, clock, signal, progress } = context;
    const secret = requireSecret(config.catchUpSecret);
    const destination = resolve(context.workingDirectory, dataDirectory);
    const place = await inspectCatchUpPlace(destination);
    if (place === undefined) {
      log.info("caught up by the run before this; start the standby", { directory: destination });
      return;
    }
    const idleMs = CATCH_UP_IDLE_MS;
    const options = { secret, idleMs, clock, log, signal };
    await using listener = await CatchUpListener.open({ host, port }, options);
    log.info("waiting for catchup-send", { address: host, port: listener.port });
    await using link = await listener.accept();
    log.info("connected", { directory: place.directory, goesOn: place.found !== undefined });
    try {
      const received = await receiveCatchUp(link, place, {
        fsync: config.fsync,
        log,
        signal,
        onProgress: (doneBytes) => progress.update({ activity: "catching up", doneBytes }),
      });
      progress.end();
      log.info("caught up; start the standby", {
        directory: place.directory,
        received: formatBytes(received.receivedBytes),
        written: formatBytes(received.changedBytes),
        removed: received.removedCount,
      });
    } finally {
      progress.end();
    }
  },
};
