import { randomBytes } from "node:crypto";
import type { Log } from "../io/log.ts";
import { BACKUPS_FOLDER, WAL_FOLDER } from "../layout/keys.ts";
import { timeNsOf } from "../layout/time.ts";
import { type DeleteRequest, selectForDelete } from "../retention/delete-selection.ts";
import { findUnfinishedPuts, removeUnfinishedPuts } from "../retention/garbage.ts";
import { removedKeys } from "../retention/removal.ts";
import {
  applyRetention,
  prepareRetention,
  type PreparedRetention,
  type RetentionOptions,
} from "../retention/retention.ts";
import type { ObjectKey, Storage, UnfinishedPut } from "../storage/storage.ts";
import type { Command, Context } from "./command.ts";
import { usedStorages } from "./storage-choice.ts";
import { DELETE_FLAGS, parseDeleteRequest } from "./delete-words.ts";

interface DeleteArguments {
  readonly request: DeleteRequest;
  readonly isConfirmed: boolean;
  readonly isByTime: boolean;
}

/** `walnut delete` */
export const deleteCommand: Command<DeleteArguments> = {
  name: "delete",
  usage:
    "delete retain [FULL|FIND_FULL] <count> | before [FIND_FULL] <name or time> | " +
    "target [FIND_FULL] <name> | everything [FORCE] | garbage [ARCHIVES|BACKUPS]",
  summary: "Remove backups and WAL; without --confirm only show what.",
  details:
    "retain keeps the newest backups, before keeps a backup and all after it, target removes one " +
    "with the increments on it, everything removes all, garbage what no backup needs. Whatever is " +
    "asked for: bases of kept increments, permanent backups, what a running backup needs and the " +
    "WAL of all of them stay, and the plan is checked before anything is removed. For a policy " +
    "that is stated once and carried out daily, see `walnut expire`.",
  flags: DELETE_FLAGS,
  needsConfig: true,

  parse(words) {
    return {
      request: parseDeleteRequest(words),
      isConfirmed: words.has("confirm"),
      isByTime: words.has("use-sentinel-time"),
    };
  },

  async run({ request, isConfirmed, isByTime }, context) {
    const { log, clock, config } = context;
    await using storage = await context.openStorage();
    const options = { ...context, ...config.removal, minimumFulls: 0 };
    const storages = usedStorages(config);
    announce(request, storages, log);
    const rules = { nowNs: timeNsOf(clock.now()), isByTime };
    const prepared = await prepareRetention(
      storage,
      (survey) => selectForDelete(survey, request, rules),
      options,
    );
    if (prepared === undefined) return sayNothingToMeasure(request, log);
    sayTarget(prepared, request, log);
    sayKept(prepared, log);
    log.info("Evaluating objects for deletion...");
    const markedCount = markKeys(prepared, request, { storages, log });
    const puts = await listPuts(storage, request, options);
    for (const { key, id } of puts) markPut({ key, id }, { storages, log });

    const count = markedCount + puts.length;
    if (count === 0) log.info("No objects matched the deletion criteria.");
    else if (!isConfirmed) sayDryRun(count, log);
    else await remove(storage, { prepared, puts, options }, context);
  },
};

function announce(request: DeleteRequest, storages: readonly string[], log: Log): void {
  log.info(`Backup to delete will be searched in storages: [${storages.join(" ")}]`);
  log.info("retrieving permanent objects");
  if (request.kind !== "everything" && request.kind !== "target") log.info("Start delete");
  if (request.kind === "garbage") log.info(GARBAGE_LINES[request.scope]);
}

const GARBAGE_LINES = {
  all: "Running in default mode. Will remove outdated WAL files and leftover backup files.",
  archives: "Archive-only mode selected. Will remove only outdated WAL files.",
  backups: "Backups-only mode selected. Will remove only leftover backup files.",
} as const;

function sayNothingToMeasure({ kind }: DeleteRequest, log: Log): void {
  if (kind !== "garbage") {
    log.info("No backup found for deletion");
    return;
  }
  log.info("Couldn't find any non-permanent backups in storage.");
  log.info("Not doing anything.");
}

/** Which backup a count, a time or the beginning of a name came to. */
function sayTarget({ selection }: PreparedRetention, { kind }: DeleteRequest, log: Log): void {
  if (kind !== "retain" && kind !== "before") return;
  const [name] = selection.kept.keys();
  if (name !== undefined) log.info("what is older than this backup is to go", { name });
}

/** What stays although the words alone would have removed it. */
function sayKept({ plan, selection, holds }: PreparedRetention, log: Log): void {
  const permanent = plan.backups.filter(({ backup }) => backup.isPermanent);
  if (permanent.length > 0) {
    const names = permanent.map(({ backup }) => backup.name).join(" ");
    log.info(`Found permanent objects: backups=[${names}]`);
  }
  if (!selection.scope.hasBackups) return;
  for (const { backup, isKept, reasons } of plan.backups) {
    if (!isKept || selection.kept.has(backup.name)) continue;
    log.info("a backup is kept", { name: backup.name, why: reasons.join("; ") });
  }
  for (const { unfinished, isKept, mayBeRunning, reason } of plan.unfinished) {
    if (isKept && (mayBeRunning || holds.pins.has(unfinished.name))) {
      log.info("a folder without sentinel is kept", { name: unfinished.name, why: reason });
    }
  }
  sayHeld("the store holds WAL that would go", holds.heldWal, log);
  sayHeld("the store holds objects that would go", holds.heldKeys, log);
}

/** Objects that are named at most; `walnut expire` shows a reason for each run of WAL. */
const HELD_NAMED = 10;

function sayHeld(text: string, held: ReadonlyMap<ObjectKey, string>, log: Log): void {
  if (held.size === 0) return;
  const named = [...held].slice(0, HELD_NAMED);
  const [[, why] = []] = named;
  log.warning(text, { count: held.size, why, objects: named.map(([key]) => key).join(" ") });
}

interface Marking {
  /** What is deleted is deleted in all of them. */
  readonly storages: readonly string[];
  readonly log: Log;
}

/** WAL-G shows the keys of `target` below the folder of backups. */
function markKeys(
  { plan }: PreparedRetention,
  { kind }: DeleteRequest,
  { storages, log }: Marking,
): number {
  let count = 0;
  for (const key of removedKeys(plan)) {
    const shown =
      kind === "target" && key.startsWith(BACKUPS_FOLDER) ? key.slice(BACKUPS_FOLDER.length) : key;
    log.info(`Object marked for deletion: ${shown}`, { storage: storages.join(",") });
    count += 1;
  }
  return count;
}

function markPut({ key, id }: Pick<UnfinishedPut, "key" | "id">, { storages, log }: Marking): void {
  const storage = storages.join(",");
  log.info(`Unfinished upload marked for deletion: ${key}`, { storage, id });
}

async function listPuts(
  storage: Storage,
  request: DeleteRequest,
  { abandonedAfterMs, clock, signal }: RetentionOptions,
): Promise<readonly UnfinishedPut[]> {
  const prefixes = putPrefixes(request);
  return await findUnfinishedPuts(storage, {
    prefixes,
    olderThanMs: abandonedAfterMs,
    clock,
    signal,
  });
}

function putPrefixes(request: DeleteRequest): readonly string[] {
  if (request.kind === "everything") return [""];
  if (request.kind !== "garbage") return [];
  if (request.scope === "archives") return [WAL_FOLDER];
  return request.scope === "backups" ? [BACKUPS_FOLDER] : [""];
}

function sayDryRun(count: number, log: Log): void {
  log.info(`Dry run: objects would be deleted count=${count}, Run with --confirm to execute`);
}

interface Removal {
  readonly prepared: PreparedRetention;
  readonly puts: readonly UnfinishedPut[];
  readonly options: RetentionOptions;
}

async function remove(
  storage: Storage,
  { prepared, puts, options }: Removal,
  { log, progress }: Context,
): Promise<void> {
  const runId = randomBytes(4).toString("hex");
  const count = await applyRetention(storage, prepared, {
    ...options,
    runId,
    onProgress: (removed) => log.debug("objects removed", { count: removed }),
  });
  await removeUnfinishedPuts(storage, puts, options);
  progress.end();
  log.info(`Objects deleted successfully: count=${count + puts.length}`);
}
