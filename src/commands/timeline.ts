import { readCatalogue } from "../catalogue/catalogue.ts";
import { CommitFinder } from "../catalogue/commit-finder.ts";
import {
  type ReportedTimeline,
  reportTimelines,
  type TimelineReport,
} from "../catalogue/timeline-report.ts";
import { walView } from "../catalogue/wal-view.ts";
import { formatJson } from "../layout/json.ts";
import { formatTimeUtc, type TimeNs } from "../layout/time.ts";
import { formatLsn } from "../postgres/lsn.ts";
import type { Storage } from "../storage/storage.ts";
import { warnOfCollisions } from "./collision-warnings.ts";
import type { Command, Context } from "./command.ts";
import { indentJson } from "./indented-json.ts";
import { formatPlainTable } from "./table.ts";
import { timelineJson } from "./timeline-json.ts";
import { warnOfHistories } from "./wal-show.ts";
import { requirePositionals } from "./words.ts";

interface TimelineArguments {
  readonly isJson: boolean;
  readonly htmlFile: string | undefined;
}

/** `walnut timeline` */
export const timeline: Command<TimelineArguments> = {
  name: "timeline",
  usage: "timeline [--json] [--html <file>]",
  summary: "Show to which points in time a restore can go.",
  details:
    "For each timeline of the cluster: its backups, the windows of time that can be restored, and " +
    "the holes. A window ends with the last commit in the archive. The times are those that the " +
    "server wrote into its WAL; where they are not noted yet, the segments at the edges are read.\n\n" +
    "--html writes one page with a picture, which needs nothing from the network.",
  flags: [
    { name: "json", text: "One JSON object; see docs/verify.md." },
    { name: "html", value: "<file>", text: "Write a page with an interactive picture." },
  ],
  needsConfig: true,

  parse(words) {
    requirePositionals(words, []);
    return { isJson: words.has("json"), htmlFile: words.value("html") };
  },

  async run({ isJson, htmlFile }, context) {
    await using storage = await context.openStorage();
    const report = await readReport(storage, context);
    if (htmlFile !== undefined) await writePage(htmlFile, report, context);
    if (isJson) {
      await context.write(`${indentJson(formatJson(timelineJson(report)), "  ")}\n`);
    } else if (htmlFile === undefined) {
      await context.write(formatReport(report));
    }
  },
};

async function readReport(storage: Storage, context: Context): Promise<TimelineReport> {
  const { config, signal, log } = context;
  const catalogue = await readCatalogue(storage, { signal });
  warnOfHistories(catalogue, log);
  await warnOfCollisions(storage, catalogue.ownKeys, { log, signal });
  const view = walView(catalogue);
  let doneBytes = 0;
  const finder = await CommitFinder.open(
    storage,
    { catalogue, view },
    {
      jobs: config.downloadConcurrency,
      codecJobs: config.codecJobs,
      signal,
      onBytes(count) {
        doneBytes += count;
        context.progress.update({ activity: "reading commits", doneBytes });
      },
    },
  );
  try {
    return await reportTimelines({ catalogue, view, finder });
  } finally {
    context.progress.end();
    await finder.close();
  }
}

async function writePage(path: string, report: TimelineReport, context: Context): Promise<void> {
  const [{ timelinePage }, { writeFileDurably }, { resolve }] = await Promise.all([
    import("./timeline-page.ts"),
    import("../io/durable.ts"),
    import("node:path"),
  ]);
  const page = timelinePage(timelineJson(report), new Date(context.clock.now()));
  const destination = resolve(context.workingDirectory, path);
  await writeFileDurably(destination, Buffer.from(page), { signal: context.signal });
  context.log.info("page written", { path: destination });
}

/** One block a timeline. */
export function formatReport(report: TimelineReport): string {
  if (report.timelines.length === 0) return "the archive is empty\n";
  return report.timelines.map((one) => formatTimeline(one)).join("\n");
}

function formatTimeline(one: ReportedTimeline): string {
  const { timeline: number, parentTimeline, forkLsn, backups, windows, holes } = one;
  const origin = one.isHistoryLost
    ? ", whose history is lost: no restore from before comes to it"
    : parentTimeline === 0
      ? ""
      : `, which left timeline ${parentTimeline} at ${formatLsn(forkLsn)}`;
  const parts = [`timeline ${number}${origin}\n`];
  if (backups.length > 0) {
    const rows = backups.map((backup) => [
      `  ${backup.name}`,
      backup.isIncrement ? "increment" : "full",
      timeText(backup.finish.timeNs),
      formatLsn(backup.finish.lsn),
      backup.problem ?? (backup.isPermanent ? "permanent" : "ok"),
    ]);
    parts.push(formatPlainTable(["  backup", "kind", "finished", "lsn", "state"], rows));
  }
  if (windows.length > 0) {
    const rows = windows.map((window) => [
      `  ${timeText(window.from.timeNs)}`,
      timeText(window.to.timeNs),
      formatLsn(window.to.lsn),
      window.commitIsKnown ? String(window.lastXid) : "-",
      String(window.backups.length),
      endText(window, holes),
    ]);
    const headings = ["  restorable from", "to", "last commit", "xid", "backups", "ends at"];
    parts.push(formatPlainTable(headings, rows));
  } else {
    parts.push("  nothing on this timeline can be restored\n");
  }
  if (holes.length > 0) {
    const rows = holes.map((hole) => [
      `  ${hole.firstSegment}`,
      hole.lastSegment,
      String(hole.segmentCount),
      timeText(hole.after?.timeNs),
      timeText(hole.before?.timeNs),
      hole.givenUpCount > 0 ? "given up" : hole.isIntended ? "retention" : "MISSING",
    ]);
    const headings = ["  hole from", "to", "segments", "commit before", "commit behind", "why"];
    parts.push(formatPlainTable(headings, rows));
  }
  return parts.join("");
}

function endText(
  { end, to }: ReportedTimeline["windows"][number],
  holes: ReportedTimeline["holes"],
): string {
  if (end !== "hole") return "the archive's end";
  const next = holes.find(({ startLsn }) => startLsn > to.lsn);
  return next?.isIntended === true ? "what retention kept" : "a hole";
}

function timeText(timeNs: TimeNs | undefined): string {
  return timeNs === undefined ? "-" : formatTimeUtc(timeNs);
}
