import { readFile } from "node:fs/promises";
import { join } from "node:path";
import type { Codec } from "../codec/codec.ts";
import { FormatError, ObjectNotFoundError, RefusedError, systemErrorCode } from "../errors.ts";
import type { HashAlgorithm } from "../io/hash.ts";
import type { Log } from "../io/log.ts";
import { localFileError } from "../io/system-error.ts";
import type { BackupName } from "../layout/backup-name.ts";
import { parsePartKey, tarFolder } from "../layout/keys.ts";
import { parseTimelineHistory, type TimelineHistory } from "../postgres/timeline-history.ts";
import { formatHistoryName } from "../postgres/wal-file.ts";
import type { Storage } from "../storage/storage.ts";
import { readManifestLines } from "./backup-documents.ts";
import {
  type BaseFault,
  type BaseRequest,
  type BaseServer,
  chooseBase,
  type ChosenBase,
  harmless,
} from "./increment-choice.ts";
import { BaseFiles } from "./known-files.ts";
import { listBackups } from "./catalogue.ts";

/** A base with all that an increment has to know of it. */
export interface LoadedBase {
  readonly choice: ChosenBase;
  readonly files: BaseFiles;
  /** Of the server's timeline, which the base lies on. */
  readonly history: TimelineHistory;
  /** By oid the transaction that wrote its row in pg_database. */
  readonly databases: ReadonlyMap<number, number>;
}

/** What has to be in the base as it will be in the new backup. */
export interface NewBackup {
  /** Data checksums of the cluster. */
  readonly hasChecksums: boolean;
  /** Of files, in our manifest. */
  readonly hash: HashAlgorithm;
}

export interface FindBaseOptions {
  readonly storage: Storage;
  /** Decompresses our manifests. */
  readonly zstd: Codec;
  readonly log: Log;
  readonly signal: AbortSignal;
}

/**
 * Finds the base of a new backup; undefined when it is to be a full one, and the log says why.
 * Rejects with RefusedError when a base was named that can't be used.
 */
export async function findBase(
  request: BaseRequest,
  server: BaseServer & NewBackup,
  options: FindBaseOptions,
): Promise<LoadedBase | undefined> {
  const { storage, log, signal } = options;
  const isAsked = request.fullReason === undefined && request.maxSteps > 0;
  const entries = isAsked ? await listBackups(storage, { hasMetadata: true, signal }) : [];
  const faults = new Map<BackupName, BaseFault>();
  for (;;) {
    const candidates = entries.map((entry) => ({ ...entry, fault: faults.get(entry.name) }));
    const choice = chooseBase(candidates, request, server);
    if (choice.kind === "refused") {
      throw new RefusedError(
        `an increment can't be based on what was asked for: ${choice.reason}`,
        {
          hint: choice.isDamage ? DAMAGED_HINT : CHOICE_HINT,
        },
      );
    }
    if (choice.kind === "increment") {
      const loaded = await loadBase(choice, server, options);
      if (!isFault(loaded)) {
        tellPassedOver(choice, log);
        return loaded;
      }
      faults.set(choice.name, loaded);
      continue;
    }
    tellPassedOver(choice, log);
    if (isAsked) log.info(`Doing full backup: ${choice.reason}`);
    else if (request.from !== undefined) {
      const text = "Doing full backup, not an increment on what was asked for";
      const isOff = request.fullReason === undefined;
      const fields = isOff ? { hint: "with --type incr it is an increment" } : {};
      log.warning(`${text}: ${choice.reason}`, fields);
    }
    return undefined;
  }
}

const CHOICE_HINT =
  "backup-list --detail shows what there is. Without the name the newest fitting one is used.";
const DAMAGED_HINT =
  "It can't be restored either: `walnut verify` tells all that is wrong. Take a full backup: " +
  "backup-push --full.";

/** The rest of them is told in one line: after a failover there may be hundreds. */
const TOLD_COUNT = 5;

/** What is damaged must not be found out at the restore only. */
function tellPassedOver({ passedOver }: Pick<ChosenBase, "passedOver">, log: Log): void {
  let untoldCount = 0;
  for (const [index, { name, reason, isDamage }] of passedOver.entries()) {
    const fields = { backup: name, reason };
    const text = "a backup can't be the base of an increment";
    if (isDamage) log.warning(`${text}, and can't be restored`, fields);
    else if (index < TOLD_COUNT) log.info(text, fields);
    else untoldCount += 1;
  }
  if (untoldCount > 0) log.info("nor can older ones", { backups: untoldCount });
}

function isFault(loaded: LoadedBase | BaseFault): loaded is BaseFault {
  return "reason" in loaded;
}

/** Why the base can't be used after all, or what it holds. */
async function loadBase(
  choice: ChosenBase,
  server: NewBackup & Pick<BaseServer, "systemId" | "history">,
  options: FindBaseOptions,
): Promise<LoadedBase | BaseFault> {
  const files = await BaseFiles.create(server.hash);
  const databases = new Map<number, number>();
  const parts = new Map<string, number>();
  try {
    for await (const line of readManifestLines(options.storage, choice.name, options)) {
      if (line.kind === "header") {
        const { hasChecksums } = line;
        const isSame = line.backup === choice.name && line.systemId === server.systemId;
        if (!isSame) return harmless(`has the manifest of backup ${line.backup}`);
        if (hasChecksums === undefined) {
          return harmless("does not tell whether there were data checksums");
        }
        if (hasChecksums !== server.hasChecksums) {
          return harmless("was made before data checksums changed");
        }
        if (line.hash !== server.hash) return harmless(`has hashes by ${line.hash}`);
      }
      if (line.kind === "part") parts.set(line.name, line.sizeBytes);
      if (line.kind === "database") databases.set(line.oid, line.xmin);
      files.addLine(line);
    }
  } catch (error) {
    if (error instanceof ObjectNotFoundError) return harmless("was not made by walnut");
    if (error instanceof FormatError) return harmless(`has a damaged manifest: ${error.message}`);
    throw error;
  }
  const missing = await findMissing(choice, parts, options);
  if (missing !== undefined) return { reason: missing, isDamage: true };
  return { choice, files, databases, history: server.history };
}

/** The first object that a chain lacks; its older members are looked at from outside only. */
async function findMissing(
  { chain, name }: ChosenBase,
  parts: ReadonlyMap<string, number>,
  { storage, signal }: FindBaseOptions,
): Promise<string | undefined> {
  for (const member of chain) {
    const found = new Map<string, number>();
    const kinds = new Set<string>();
    for await (const { key, sizeBytes } of storage.list(tarFolder(member), { signal })) {
      const part = parsePartKey(key);
      if (part === undefined) continue;
      found.set(part.name, sizeBytes);
      kinds.add(part.kind);
    }
    if (!kinds.has("control") || !kinds.has("label")) return `lacks parts of backup ${member}`;
    if (member !== name) continue;
    for (const [part, sizeBytes] of parts) {
      // An encrypted object is a little larger than what our manifest tells of.
      if ((found.get(part) ?? -1) < sizeBytes) return `lacks its part ${part}, or that is cut off`;
    }
  }
  return undefined;
}

/**
 * The history of a server's timeline, from its pg_wal. Where there is no file, nothing is known of
 * the timelines before it.
 *
 * @source writeTimeLineHistory, src/backend/access/transam/timeline.c
 */
export async function readLocalHistory(
  walDirectory: string,
  timeline: number,
): Promise<TimelineHistory> {
  if (timeline === 1) return { timeline, ancestors: [] };
  const path = join(walDirectory, formatHistoryName(timeline));
  try {
    return parseTimelineHistory(await readFile(path, "utf8"), timeline);
  } catch (error) {
    if (systemErrorCode(error) === "ENOENT") return { timeline, ancestors: [] };
    if (error instanceof FormatError) throw error;
    throw localFileError("read", path, error);
  }
}
