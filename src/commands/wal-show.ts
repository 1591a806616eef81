import { type CatalogueEntry, listBackups } from "../backup/catalogue.ts";
import { type Catalogue, lostHistories, readCatalogue } from "../catalogue/catalogue.ts";
import { walView } from "../catalogue/wal-view.ts";
import { type ShownTimeline, showTimelines } from "../catalogue/wal-show.ts";
import type { Log } from "../io/log.ts";
import { formatJson } from "../layout/json.ts";
import { type JsonObject, jsonObject } from "../layout/json-value.ts";
import { formatLsn, lsn } from "../postgres/lsn.ts";
import { backupJson } from "./backup-list.ts";
import { warnOfCollisions } from "./collision-warnings.ts";
import type { Command } from "./command.ts";
import { formatBoxTable } from "./table.ts";
import { requirePositionals } from "./words.ts";

interface WalShowArguments {
  readonly isJson: boolean;
  readonly hasBackups: boolean;
}

/** `walnut wal-show` */
export const walShow: Command<WalShowArguments> = {
  name: "wal-show",
  usage: "wal-show [--without-backups] [--detailed-json]",
  summary: "Show the timelines in the archive, their segments and what is missing.",
  details:
    "Only names are looked at; `walnut verify` reads the content, and `walnut timeline` says what " +
    "can be restored.\n\n" +
    "LOST_SEGMENTS does not change the exit code, as in WAL-G: retention leaves such holes between " +
    "backups on purpose. `walnut verify` fails (26) for those that it did not leave.",
  flags: [
    { name: "without-backups", text: "Do not read the backups." },
    { name: "detailed-json", text: "One JSON array, with the names of missing segments." },
  ],
  needsConfig: true,

  parse(words) {
    requirePositionals(words, []);
    return { isJson: words.has("detailed-json"), hasBackups: !words.has("without-backups") };
  },

  async run({ isJson, hasBackups }, context) {
    const { log, signal } = context;
    await using storage = await context.openStorage();
    const catalogue = await readCatalogue(storage, { signal });
    warnOfHistories(catalogue, log);
    await warnOfCollisions(storage, catalogue.ownKeys, { log, signal });
    const shown = showTimelines(walView(catalogue), hasBackups ? catalogue.backups : []);
    if (!isJson) return await context.write(toTable(shown, hasBackups));
    const entries = hasBackups ? await listBackups(storage, { hasMetadata: true, signal }) : [];
    await context.write(formatJson(shown.map((timeline) => toJson(timeline, entries))));
  },
};

/** Without a readable history nobody knows where a timeline came from. */
export function warnOfHistories(
  catalogue: Pick<Catalogue, "backups" | "histories" | "wal">,
  log: Log,
): void {
  for (const { key, problem } of catalogue.histories) {
    if (problem !== undefined) log.warning("a timeline history can't be read", { key, problem });
  }
  for (const timeline of lostHistories(catalogue)) {
    log.warning("the history of a timeline is lost: no restore from before comes to it", {
      timeline,
      hint: "`walnut backfill` on the server that has the file brings it.",
    });
  }
}

function statusOf({ missing }: ShownTimeline): string {
  return missing.length === 0 ? "OK" : "LOST_SEGMENTS";
}

function toTable(timelines: readonly ShownTimeline[], hasBackups: boolean): string {
  const columns = [
    { heading: "TLI", isNumber: true },
    { heading: "PARENT TLI", isNumber: true },
    { heading: "SWITCHPOINT LSN", isNumber: true },
    { heading: "START SEGMENT" },
    { heading: "END SEGMENT" },
    { heading: "SEGMENT RANGE", isNumber: true },
    { heading: "SEGMENTS COUNT", isNumber: true },
    { heading: "STATUS" },
    ...(hasBackups ? [{ heading: "BACKUPS COUNT", isNumber: true }] : []),
  ];
  return formatBoxTable(
    columns,
    timelines.map((shown) => [
      String(shown.timeline),
      String(shown.parentTimeline),
      formatLsn(lsn(shown.switchLsn)),
      shown.startSegment,
      shown.endSegment,
      String(shown.rangeCount),
      String(shown.segmentCount),
      statusOf(shown),
      ...(hasBackups ? [String(shown.backups.length)] : []),
    ]),
  );
}

/** The newest backup comes first, as in WAL-G. */
function toJson(shown: ShownTimeline, entries: readonly CatalogueEntry[]): JsonObject {
  const backups = entries
    .filter(({ name }) => shown.backups.includes(name))
    .toReversed()
    .map((backup) => backupJson(backup, true));
  return jsonObject([
    ["id", BigInt(shown.timeline)],
    ["parent_id", BigInt(shown.parentTimeline)],
    ["switch_point_lsn", shown.switchLsn],
    ["start_segment", shown.startSegment],
    ["end_segment", shown.endSegment],
    ["segments_count", BigInt(shown.segmentCount)],
    ["missing_segments", shown.missing],
    ["backups", backups.length === 0 ? undefined : backups],
    ["segment_range_size", BigInt(shown.rangeCount)],
    ["status", statusOf(shown)],
  ]);
}
