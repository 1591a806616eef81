import { resolve } from "node:path";
import { isStandby, listLocalHistories, requireLocalControl } from "../archive/local-control.ts";
import { describeWriter, showWriter } from "../archive/writer.ts";
import { takeTimelineOver } from "../archive/writer-claims.ts";
import { ensureRepositoryIdentity } from "../archive/identity.ts";
import { codecOf } from "../codec/table.ts";
import { RefusedError } from "../errors.ts";
import { isAncestor } from "../postgres/timeline-history.ts";
import type { Command } from "./command.ts";
import { requireDirectory } from "./data-directory.ts";
import { requirePositionals } from "./words.ts";

/** `walnut take-over`, when a server was moved without a new timeline. */
export const takeOver: Command<{ readonly dataDirectory: string | undefined }> = {
  name: "take-over",
  usage: "take-over [<data directory>]",
  summary: "Make this server the one that writes its timeline.",
  details:
    "Needed when a data directory was moved to another host and started there as it was: walnut " +
    "can't tell such a server from a copy and refuses its WAL. Make sure that the old server never " +
    "starts again. A promoted or restored server has a timeline of its own and needs this never.",
  flags: [],
  needsConfig: true,

  parse(words) {
    const [dataDirectory] = requirePositionals(words, ["the data directory"], 1);
    return { dataDirectory };
  },

  async run({ dataDirectory }, context) {
    const { config, log, signal, workingDirectory } = context;
    const directory = resolve(
      workingDirectory,
      requireDirectory(dataDirectory ?? config.dataDirectory),
    );
    const control = await requireLocalControl(directory);
    if (isStandby(control, directory)) {
      throw new RefusedError("this server is a standby: it writes no timeline", {
        hint: "Promote it; then it has a timeline of its own.",
      });
    }
    const histories = await listLocalHistories(`${directory}/pg_wal`);
    const newest = histories.find((history) => isAncestor(history, control.timeline));
    const timeline = newest?.timeline ?? control.timeline;
    const writer = await describeWriter(directory, config.archiveQueue.serverName);
    const { extension } = codecOf(config.compressionMethod);

    await using storage = await context.openStorage("archive");
    await ensureRepositoryIdentity(storage, control.systemId, { signal });
    const own = { ...writer, systemId: control.systemId, timeline, extension };
    const former = await takeTimelineOver(storage, own, { signal });
    log.info("this server writes the timeline now", {
      timeline,
      writer: showWriter(writer),
      former: former === undefined ? "nobody" : showWriter(former),
    });
  },
};
