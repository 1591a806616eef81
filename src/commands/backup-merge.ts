import { backupChoice, findBackup } from "../backup/catalogue.ts";
import { mergeBackup, type MergeSettings, requireMergePossible } from "../backup/merge.ts";
import { type MergePlan, planMerge } from "../backup/merge-plan.ts";
import { readChain } from "../backup/restore-chain.ts";
import { codecOf } from "../codec/table.ts";
import type { Config } from "../config/config.ts";
import { describeHolder } from "../io/process-identity.ts";
import { formatJson } from "../layout/json.ts";
import { jsonObject, type JsonValue } from "../layout/json-value.ts";
import type { Storage } from "../storage/storage.ts";
import { inBackupStorage } from "./backup-storage.ts";
import type { Command, Context } from "./command.ts";
import { formatBytes, formatSeconds } from "./progress.ts";
import { parseUserData } from "./user-data.ts";
import { onePath } from "./words.ts";

interface MergeArguments {
  readonly name: string;
  readonly isPermanent: boolean;
  readonly userData: JsonValue | undefined;
  readonly isDryRun: boolean;
  readonly isJson: boolean;
}

/** `walnut backup-merge` */
export const backupMerge: Command<MergeArguments> = {
  name: "backup-merge",
  usage: "backup-merge <name|LATEST>",
  summary: "Make a full backup of an increment and its bases.",
  details:
    "Works in the repository alone: no database is asked. The full backup is what one of the " +
    "increment's moment would have been, is named base_<segment> by the segment in which the " +
    "increment starts, and needs no other backup. The chain stays as it is; expire or delete may " +
    "remove it afterwards. Each file is checked on its way, and a chain with damage is refused.\n\n" +
    "The changed pages wait in WALNUT_CACHE_DIR meanwhile; nothing else takes room on the local " +
    "disk. Killed at any moment it leaves no visible backup: run it again.",
  flags: [
    { name: "permanent", short: "p", text: "Keep the merged backup." },
    {
      name: "add-user-data",
      value: "<json>",
      text: "Your own words about the merged backup, any JSON.",
    },
    { name: "dry-run", short: "n", text: "Tell what would be done, and change nothing." },
    { name: "json", text: "Tell it as JSON on standard output." },
  ],
  needsConfig: true,

  parse: (words) => ({
    name: onePath(words, "the backup"),
    isPermanent: words.has("permanent"),
    userData: parseUserData(words.value("add-user-data")),
    isDryRun: words.has("dry-run"),
    isJson: words.has("json"),
  }),

  async run(args, context) {
    try {
      await inBackupStorage(context, async (storage) => await run(args, storage, context));
    } finally {
      context.progress.end();
    }
  },
};

async function run(args: MergeArguments, storage: Storage, context: Context): Promise<void> {
  const { config, log, clock, signal } = context;
  const startMs = clock.monotonicMs();
  const backup = await findBackup(storage, backupChoice(args.name), { signal });
  const plan = planMerge(await readChain(storage, backup, { signal }));
  const settings = mergeSettings(args, config);
  if (args.isDryRun) {
    await requireMergePossible(plan, settings, { storage, clock, signal });
    await tellPlan(plan, args, context);
    return;
  }
  const onProgress = (state: { readonly doneBytes: number; readonly totalBytes?: number }) =>
    context.progress.update({ activity: "merging", ...state });
  const merged = await mergeBackup(plan, settings, { storage, log, clock, onProgress, signal });
  log.info("merged backup written", {
    backup: merged.name,
    storage: storage.name,
    files: merged.fileCount,
    patched: merged.patchedCount,
    size: formatBytes(merged.contentBytes),
    stored: formatBytes(merged.storedBytes),
    time: formatSeconds((clock.monotonicMs() - startMs) / 1000),
  });
  if (!args.isJson) return;
  const { contentBytes: size, storedBytes: stored, fileCount: files } = merged;
  await context.write(jsonText(plan, { size, stored, files }));
}

function mergeSettings(args: MergeArguments, config: Config): MergeSettings {
  return {
    codec: codecOf(config.compressionMethod),
    zstd: codecOf("zstd"),
    level: config.compressionLevel,
    codecJobs: config.codecJobs,
    thresholdBytes: config.tarSizeThresholdBytes,
    hash: config.manifestHash,
    isPermanent: args.isPermanent,
    userData: args.userData ?? parseUserData(config.sentinelUserData),
    holder: describeHolder(),
    abandonedAfterMs: config.removal.abandonedAfterMs,
    spoolDirectory: config.cacheDirectory,
  };
}

async function tellPlan(
  plan: MergePlan,
  { isJson }: MergeArguments,
  { log, write }: Context,
): Promise<void> {
  const { name, sizeBytes, fetchedBytes, spoolBytes, patchedCount } = plan;
  if (isJson) {
    const sizes = { size: sizeBytes, fetched: fetchedBytes, spooled: spoolBytes };
    await write(jsonText(plan, sizes));
    return;
  }
  log.info("Dry run: a chain would be merged", {
    backup: name,
    chain: plan.steps.map(({ backup }) => backup).join(" "),
    size: shown(sizeBytes),
    fetched: shown(fetchedBytes),
    spooled: shown(spoolBytes),
    patched: patchedCount,
  });
}

function shown(bytes: number | undefined): string {
  return bytes === undefined ? "unknown" : formatBytes(bytes);
}

/** Sizes in bytes; what is not known is left out. */
function jsonText(
  { name, steps, patchedCount }: MergePlan,
  counts: Readonly<Record<string, number | undefined>>,
): string {
  const object = jsonObject([
    ["backup_name", name],
    ["chain", steps.map(({ backup }) => backup)],
    ["patched_files", BigInt(patchedCount)],
    ...Object.entries(counts).map(
      ([member, count]) => [member, count === undefined ? undefined : BigInt(count)] as const,
    ),
  ]);
  return `${formatJson(object)}\n`;
}
