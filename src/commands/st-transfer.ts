import { ALL_STORAGES } from "../config/failover-settings.ts";
import { StorageError, UsageError } from "../errors.ts";
import { duration, integer } from "../config/value-types.ts";
import { backupFolder, parseSentinelKey, BACKUPS_FOLDER, WAL_FOLDER } from "../layout/keys.ts";
import { cleanPath, listBelow } from "../storage/folder.ts";
import { copyObject } from "../storage/object-copy.ts";
import type { ObjectKey, Storage } from "../storage/storage.ts";
import { transferObjects, type TransferOptions } from "../storage/transfer.ts";
import type { Context, Words } from "./command.ts";
import { openSides } from "./context.ts";
import type { StorageTool } from "./st.ts";
import { storageNames, withStorage } from "./storage-choice.ts";
import { requirePositionals } from "./words.ts";

const COPY_JOBS = 8;

/** `st copy`: objects between two configurations, as they are stored unless asked otherwise. */
export const copyTool: StorageTool = async (words, context, program) => {
  requirePositionals(words, []);
  const [from, to] = [words.value("from"), words.value("to")];
  if (from === undefined || to === undefined) {
    throw new UsageError("st copy needs --from and --to", { hint: "Both are config files." });
  }
  const source = await openSide(await program.configureFile(from), context, words.has("decrypt"));
  await using _source = source;
  const target = await openSide(await program.configureFile(to), context, words.has("encrypt"));
  await using _target = target;
  const { signal, log } = context;
  const prefix = cleanPath(words.value("prefix") ?? "");
  let count = 0;
  const { boundedParallel } = await import("../io/ordered.ts");
  await boundedParallel(
    listBelow(source, prefix, { signal }),
    COPY_JOBS,
    async ({ key }, options) => {
      await copyObject(source, target, key, { existing: "overwrite", ...options });
      count += 1;
    },
    { signal },
  );
  log.info("objects were copied", { count, from: source.name, to: target.name });
};

async function openSide(
  config: Context["config"],
  context: Context,
  isDecoded: boolean,
): Promise<Storage> {
  // What needs no key must not fail for one that can't be used.
  const { encryption: _, ...plain } = config;
  const sides = await openSides({ ...context, config: isDecoded ? config : plain });
  return isDecoded ? sides.readable : sides.stored;
}

/** `st transfer files|backups|pg-wals`: moves objects from one storage to another. */
export const transferTool: StorageTool = async (words, context) => {
  const [kind, prefix, ...surplus] = words.positionals;
  if (surplus[0] !== undefined) throw new UsageError(`surplus argument ${surplus[0]}`);
  const names = { source: words.value("source"), target: words.value("target") ?? "default" };
  if (names.source === undefined) {
    throw new UsageError("flag --source is missing", {
      hint: "Write st transfer files <prefix>, backups or pg-wals, with --source <storage>.",
    });
  }
  if (names.source === names.target) {
    throw new UsageError(`source and target are the same: ${names.source}`);
  }
  if (names.target === ALL_STORAGES) throw new UsageError("objects are moved to one storage");
  const sources =
    names.source === ALL_STORAGES
      ? storageNames(context.config).filter((name) => name !== names.target)
      : [names.source];
  for (const name of sources) {
    await transferFrom(
      name,
      names.target,
      { kind, prefix, words, signal: context.signal },
      context,
    );
  }
};

async function transferFrom(
  sourceName: string,
  targetName: string,
  choice: Choice,
  context: Context,
): Promise<void> {
  const { words } = choice;
  await using source = await openNamed(sourceName, context);
  await using target = await openNamed(targetName, context);
  const waves = await chooseWaves(source, choice);
  const counts = await transferObjects(source, target, waves, transferOptions(words, context));
  const { transferred, skipped, failures } = counts;
  for (const { key, reason } of failures) context.log.error("not transferred", { key, reason });
  if (failures.length > 0) {
    throw new StorageError(`${failures.length} objects could not be transferred`, {
      isRetryable: false,
      hint: "They are still at the source. Run the command again.",
    });
  }
  const from = sourceName;
  context.log.info("objects were transferred", { transferred, skipped, from, to: targetName });
}

async function openNamed(name: string, context: Context): Promise<Storage> {
  const config = withStorage(context.config, name);
  if (context.config.failover !== undefined)
    return (await openSides({ ...context, config })).stored;
  return await (context.openStored ?? context.openStorage)();
}

interface Choice {
  readonly kind: string | undefined;
  readonly prefix: string | undefined;
  readonly words: Words;
  readonly signal: AbortSignal;
}

/** What is moved, in waves: a sentinel after everything that it promises. */
export async function chooseWaves(
  source: Storage,
  { kind, prefix, words, signal }: Choice,
): Promise<readonly (readonly ObjectKey[])[]> {
  const maxFiles = numberOf(words, "max-files") ?? Infinity;
  if (kind === "backups") return await backupWaves(source, words, signal);
  if (kind !== "files" && kind !== "pg-wals") {
    throw new UsageError("transfer is transfer files, transfer backups or transfer pg-wals");
  }
  if (kind === "files" && prefix === undefined) throw new UsageError("the prefix is missing");
  const keys: ObjectKey[] = [];
  const path = kind === "pg-wals" ? cleanPath(WAL_FOLDER) : cleanPath(prefix ?? "");
  for await (const { key } of listBelow(source, path, { signal })) {
    if (keys.length >= maxFiles) break;
    keys.push(key);
  }
  return [keys];
}

async function backupWaves(
  source: Storage,
  words: Words,
  signal: AbortSignal,
): Promise<readonly (readonly ObjectKey[])[]> {
  const maxBackups = numberOf(words, "max-backups") ?? Infinity;
  const keys: ObjectKey[] = [];
  for await (const { key } of source.list(BACKUPS_FOLDER, { signal })) keys.push(key);
  const sentinels = keys.filter((key) => parseSentinelKey(key) !== undefined);
  const waves: (readonly ObjectKey[])[] = [];
  // Bases sort before what is based on them: by the segment in which they start.
  for (const sentinel of sentinels.slice(0, maxBackups)) {
    const folder = backupFolder(parseSentinelKey(sentinel) ?? "");
    waves.push(
      keys.filter((key) => key.startsWith(folder)),
      [sentinel],
    );
  }
  return waves;
}

function transferOptions(words: Words, { clock, signal }: Context): TransferOptions {
  const interval = words.value("appearance-checks-interval") ?? "1s";
  return {
    isOverwriting: words.has("overwrite"),
    isPreserving: words.has("preserve"),
    isFailingFast: words.has("fail-fast"),
    jobs: numberOf(words, "concurrency") ?? 10,
    appearanceChecks: numberOf(words, "appearance-checks") ?? 3,
    appearanceIntervalMs: duration({ minMs: 0 }).parse(interval),
    clock,
    signal,
  };
}

function numberOf(words: Words, flag: string): number | undefined {
  const text = words.value(flag);
  return text === undefined ? undefined : integer(1).parse(text);
}
