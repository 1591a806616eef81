import { resolve } from "node:path";
import { backfill, type BackfillResult } from "../archive/backfill.ts";
import { readCatalogue } from "../catalogue/catalogue.ts";
import { walView } from "../catalogue/wal-view.ts";
import { planWindows } from "../catalogue/wal-windows.ts";
import { codecOf } from "../codec/table.ts";
import { ConflictError } from "../errors.ts";
import { formatSegmentName } from "../postgres/wal-file.ts";
import type { Storage } from "../storage/storage.ts";
import { requireDirectory } from "./data-directory.ts";
import type { Command, Context } from "./command.ts";
import { requirePositionals } from "./words.ts";

interface Arguments {
  readonly dataDirectory: string | undefined;
  readonly isDryRun: boolean;
  readonly isComparing: boolean;
}

/** `walnut backfill`, on a promoted standby. */
export const backfillCommand: Command<Arguments> = {
  name: "backfill",
  usage: "backfill [<data directory>] [--dry-run] [--no-compare]",
  summary: "Archive what pg_wal has of this server's history and the archive lacks.",
  details:
    "Run it on a standby that was promoted: what the old primary streamed but never archived is " +
    "marked as done there, and PostgreSQL itself never archives it. Of a timeline that was left only " +
    "what lies before the fork is brought, of the server's own timeline every complete segment. It " +
    "may be run while the server runs, and again: what is there is compared. At the end it warns of " +
    "WAL that the archive lacks still.\n\n" +
    "Standard output has a line for each file: its name, what became of it, and why. Files that wait " +
    "for WAL to come are only counted, as unused.",
  flags: [
    { name: "dry-run", text: "Say what is missing and would be archived, and write nothing." },
    { name: "no-compare", text: "Believe that what is in the archive is right: read less." },
  ],
  needsConfig: true,

  parse(words) {
    const [dataDirectory] = requirePositionals(words, ["the data directory"], 1);
    return {
      dataDirectory,
      isDryRun: words.has("dry-run"),
      isComparing: !words.has("no-compare"),
    };
  },

  async run({ dataDirectory, isDryRun, isComparing }, context) {
    const { config, log, signal, workingDirectory } = context;
    const place = requireDirectory(dataDirectory ?? config.dataDirectory);
    await using storage = await context.openStorage("archive");
    const results = backfill(storage, {
      dataDirectory: resolve(workingDirectory, place),
      isDryRun,
      isComparing,
      codec: codecOf(config.compressionMethod),
      level: config.compressionLevel,
      codecJobs: config.codecJobs,
      cacheDirectory: config.cacheDirectory,
      timeoutMs: config.walTimeoutMs,
      serverName: config.archiveQueue.serverName,
      log,
      signal,
    });
    await report(results, context);
    if (!isDryRun) await warnOfHoles(storage, context);
  },
};

/** What is in pg_wal was all that this server can bring. */
async function warnOfHoles(
  storage: Storage,
  { log, signal }: Pick<Context, "log" | "signal">,
): Promise<void> {
  const catalogue = await readCatalogue(storage, { signal });
  const view = walView(catalogue);
  const plans = planWindows(view, catalogue.backups);
  const holes = plans.flatMap((plan) => plan.holes.filter(({ isIntended }) => !isIntended));
  const [hole] = holes;
  if (hole === undefined) return;
  const [first, last] = [hole.first, hole.last].map((number) =>
    formatSegmentName(hole.timeline, BigInt(number), view.segmentBytes),
  );
  log.warning("the archive still lacks WAL, and pg_wal here does not have it", {
    first,
    last,
    holes: holes.length,
    hint:
      "Run `walnut backfill <data directory>` on the old primary and on every standby that may have " +
      "it. Else take a base backup now if none begins behind it: backup-push.",
  });
}

async function report(
  results: AsyncIterable<BackfillResult>,
  { log, write }: Pick<Context, "log" | "write">,
): Promise<void> {
  const counts = new Map<BackfillResult["outcome"], number>();
  const different: string[] = [];
  for await (const { name, outcome, reason } of results) {
    // There may be thousands, on a server that had much to write.
    if (outcome !== "unused") {
      await write(`${name} ${outcome.replaceAll(" ", "-")} (${reason})\n`);
    }
    counts.set(outcome, (counts.get(outcome) ?? 0) + 1);
    if (outcome === "different") different.push(name);
  }
  log.info("backfill is done", Object.fromEntries(counts));
  const [first] = different;
  if (first === undefined) return;
  throw new ConflictError(
    `${different.length} files are archived with other content, the first is ${first}`,
    {
      hint:
        "Everything else was brought. What this server has is kept in walnut_005/quarantine. Find " +
        "out which server's history is the right one.",
    },
  );
}
