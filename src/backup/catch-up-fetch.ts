import { lstat, mkdir, readdir, readFile, readlink, realpath, rm, symlink } from "node:fs/promises";
import { dirname, join, resolve } from "node:path";
import { codecOf } from "../codec/table.ts";
import { DamagedError, RefusedError, systemErrorCode, WrongClusterError } from "../errors.ts";
import { bytesSource } from "../io/bytes.ts";
import type { Log } from "../io/log.ts";
import { localFileError } from "../io/system-error.ts";
import type { BackupName } from "../layout/backup-name.ts";
import { parseBackupName } from "../layout/backup-name.ts";
import { tarFolder } from "../layout/keys.ts";
import type { Sentinel } from "../layout/sentinel.ts";
import { formatLsn, lsn } from "../postgres/lsn.ts";
import { parsePgControl, type PgControl } from "../postgres/pg-control.ts";
import type { Storage } from "../storage/storage.ts";
import { BackgroundFlush } from "./background-flush.ts";
import { type BackupDocuments, fileStates, readBackupDocuments } from "./backup-documents.ts";
import type { SpecialFile } from "./part-extract.ts";
import { inspectDestination, removeStaleMarker, takeDestination } from "./restore-destination.ts";
import { removeControlFile } from "./restore-existing.ts";
import {
  finishDestination,
  fsyncTree,
  putControlFile,
  setDirectoryModes,
} from "./restore-finish.ts";
import { CONTROL_PATH, type RestoreMarker } from "./restore-marker.ts";
import { extractParts, requireComplete } from "./restore-parts.ts";
import {
  isSpecialPath,
  LABEL_PATH,
  planRestore,
  type RestoreStep,
  TABLESPACE_MAP_PATH,
} from "./restore-plan.ts";
import { RestoreTree } from "./restore-tree.ts";
import { requireControlFile } from "./restored-control.ts";
import { planTablespaces, rewriteTablespaceMap, type TablespacePlan } from "./tablespace-plan.ts";

export interface CatchUpOptions {
  readonly downloadConcurrency: number;
  readonly codecJobs: number;
  readonly fsync: boolean;
  readonly log: Log;
  readonly signal: AbortSignal;
  readonly onProgress: (doneBytes: number) => void;
}

export interface CatchUpReport {
  readonly destination: string;
  readonly writtenBytes: number;
  /** What of that differed from what was there. */
  readonly changedBytes: number;
  /** Files that the cluster does not have any more. */
  readonly removedCount: number;
}

/** Directories in which a file that the cluster does not have must not stay. */
const DATA_DIRECTORIES = ["base", "global", "pg_multixact", "pg_tblspc", "pg_twophase", "pg_xact"];

/**
 * Brings the directory of a stopped standby up to a catch-up backup. Until it resolves no server
 * can start on it; killed, it goes on when it is run again. See CATCHUP.md. `storage` has the
 * catch-up backups where backups are.
 */
export async function fetchCatchUp(
  storage: Storage,
  backup: BackupName,
  destination: string,
  options: CatchUpOptions,
): Promise<CatchUpReport> {
  const { signal } = options;
  const zstd = codecOf("zstd");
  const documents = await readBackupDocuments(storage, backup, { zstd, signal });
  const partKeys: string[] = [];
  for await (const { key } of storage.list(tarFolder(backup), { signal })) partKeys.push(key);
  const [step] = planRestore([{ documents, partKeys }]).steps;
  if (step === undefined) throw new RangeError("a plan has at least one step");
  const place = await realpath(destination).catch((error: unknown) => {
    throw localFileError("look at", destination, error);
  });
  const state = await inspect(place, documents);
  if (state === "finishing") {
    await finishDestination(place);
    return { destination: place, writtenBytes: 0, changedBytes: 0, removedCount: 0 };
  }
  await requireFiles(place, step, documents);
  const tablespaces = await planLinks(place, documents.sentinel);
  return await new CatchUp(storage, { step, documents, place, tablespaces }, options).run(state);
}

/** The marker of a run that was killed; undefined for a whole data directory. */
async function inspect(
  place: string,
  { name, sentinel }: BackupDocuments,
): Promise<RestoreMarker | "finishing" | undefined> {
  const bytes = await readOptional(join(place, CONTROL_PATH));
  if (bytes === undefined) {
    const state = await inspectDestination(place);
    if (state.kind === "finishing") return "finishing";
    if (state.kind === "ours" && state.marker.backup === name) return state.marker;
    throw new RefusedError(`${place} is no data directory of a standby`, {
      hint: "catchup-fetch needs the directory that is to be caught up. Nothing was changed.",
    });
  }
  if ((await readdir(place)).includes("postmaster.pid")) {
    throw new RefusedError(`a server may use ${place}: it holds postmaster.pid`, {
      hint: "Stop the standby first. Nothing was changed.",
    });
  }
  requireBehind(place, parsePgControl(bytes), sentinel, name);
  return undefined;
}

/** The directory must have all that the backup leaves out, and nothing that comes after it. */
function requireBehind(
  place: string,
  control: PgControl,
  sentinel: Sentinel,
  name: BackupName,
): void {
  if (control.systemId !== sentinel.systemId) {
    throw new WrongClusterError(
      `${place} belongs to cluster ${control.systemId}, the backup to ${sentinel.systemId}`,
      { hint: "Is it the right directory, and the right repository? Nothing was changed." },
    );
  }
  const refuse = (what: string): never => {
    throw new RefusedError(`${place} ${what}`, {
      hint: "Restore it by backup-fetch, or take another catch-up backup. Nothing was changed.",
    });
  };
  if (control.state !== "shut down in recovery" && control.state !== "shut down") {
    refuse(`was not shut down cleanly: it is ${control.state}`);
  }
  const timeline = Number.parseInt(parseBackupName(name).segment.slice(0, 8), 16);
  if (control.timeline !== timeline) {
    refuse(`is on timeline ${control.timeline}, the backup on ${timeline}`);
  }
  const fromLsn = lsn(sentinel.base?.startLsn ?? 0n);
  const { checkpointLsn, minRecoveryLsn } = control;
  if (checkpointLsn < fromLsn) {
    refuse(
      `has its last checkpoint at ${formatLsn(checkpointLsn)} (${checkpointLsn} as --from-lsn), ` +
        `the backup holds what changed since ${formatLsn(fromLsn)}`,
    );
  }
  const position = minRecoveryLsn > checkpointLsn ? minRecoveryLsn : checkpointLsn;
  const finishLsn = lsn(sentinel.finishLsn ?? 0n);
  if (position > finishLsn) {
    refuse(
      `has replayed up to ${formatLsn(position)}, the backup ended at ${formatLsn(finishLsn)}`,
    );
  }
}

/** Every file of which the backup has changes only must be there. */
async function requireFiles(
  place: string,
  step: RestoreStep,
  { manifest }: BackupDocuments,
): Promise<void> {
  for (const path of [...step.increments, ...(manifest?.unchanged.keys() ?? [])]) {
    const stats = await lstat(join(place, path)).catch(() => undefined);
    if (stats?.isFile() === true) continue;
    throw new RefusedError(`${place} lacks ${path}, of which the backup has only changes`, {
      hint:
        "The file was made from older pages since then, as by CREATE DATABASE ... STRATEGY file_copy: " +
        "restore by backup-fetch. Nothing was changed.",
    });
  }
}

/** Tablespaces stay where the standby has them; new ones come where the primary has them. */
async function planLinks(place: string, { spec }: Sentinel): Promise<readonly TablespacePlan[]> {
  const mappings = [];
  for (const { name, link } of spec?.tablespaces ?? []) {
    const to = await readlink(join(place, link)).catch(() => undefined);
    if (to !== undefined) mappings.push({ from: name, to: resolve(place, "pg_tblspc", to) });
  }
  return planTablespaces(spec, place, { mappings });
}

interface Parts {
  readonly step: RestoreStep;
  readonly documents: BackupDocuments;
  readonly place: string;
  readonly tablespaces: readonly TablespacePlan[];
}

/** One run, from the marker to the last rename. */
class CatchUp {
  readonly #storage: Storage;
  readonly #parts: Parts;
  readonly #options: CatchUpOptions;
  readonly #flush: BackgroundFlush | undefined;
  readonly #tree: RestoreTree;
  #writtenBytes = 0;

  constructor(storage: Storage, parts: Parts, options: CatchUpOptions) {
    this.#storage = storage;
    this.#parts = parts;
    this.#options = options;
    this.#flush = options.fsync ? new BackgroundFlush(options.signal) : undefined;
    this.#tree = new RestoreTree(parts.place, parts.tablespaces, {
      flush: this.#flush,
      isCompared: true,
      isOnTop: true,
    });
  }

  async run(found: RestoreMarker | undefined): Promise<CatchUpReport> {
    const { step, documents, place, tablespaces } = this.#parts;
    const { log, signal, fsync } = this.#options;
    const { specials } = await this.#extract(step.specialParts);
    const control = specials.get(CONTROL_PATH);
    if (control === undefined) throw this.#missing("pg_control");
    requireControlFile(step.backup, documents.sentinel, control.bytes);
    if (found === undefined) await removeStaleMarker(place);
    // Its markers in locations would have to be removed again: the one in the directory is enough.
    await takeDestination(place, step.backup, [], { signal, found });
    await removeControlFile(place);
    const result = await this.#extract(step.parts);
    requireComplete(step, result, log);
    const removedCount = await this.#removeSurplus();
    await this.#makeLinks();
    await this.#putLabels(new Map([...result.specials, ...specials]));
    await setDirectoryModes(this.#tree);
    await this.#flush?.drain();
    if (fsync) await fsyncTree(this.#tree, signal);
    await putControlFile(place, control, signal);
    const { changedBytes } = this.#tree;
    for (const { location } of tablespaces) log.debug("tablespace", { location });
    return { destination: place, writtenBytes: this.#writtenBytes, changedBytes, removedCount };
  }

  async #extract(parts: RestoreStep["parts"]): ReturnType<typeof extractParts> {
    const { downloadConcurrency, codecJobs, log, signal, onProgress } = this.#options;
    const jobs = Math.max(1, Math.min(downloadConcurrency, parts.length));
    const context = {
      storage: this.#storage,
      tree: this.#tree,
      codecJobs: Math.max(1, Math.ceil(codecJobs / jobs)),
      kept: new Set<string>(),
      gaps: new Map(),
      modes: new Map<string, number>(),
      onProgress: (bytes: number) => {
        this.#writtenBytes += bytes;
        onProgress(this.#writtenBytes);
      },
    };
    return await extractParts(this.#parts.step, parts, context, { jobs, log, signal });
  }

  /** Files of relations that were dropped, and segments behind the end of one that was cut. */
  async #removeSurplus(): Promise<number> {
    const { documents, place } = this.#parts;
    const known = new Set([...fileStates(documents)].map(([path]) => path));
    if (known.size === 0) return 0;
    // A tablespace's location may hold directories of other releases, which are other clusters'.
    const own = new Set([...known].map((path) => path.split("/").slice(0, 3).join("/")));
    const isOther = (path: string): boolean => {
      const isRelease = path.startsWith("pg_tblspc/") && path.split("/").length === 3;
      return isRelease && !own.has(path);
    };
    let count = 0;
    const weed = async (path: string): Promise<void> => {
      const directory = this.#tree.locate(path);
      const entries = await readdir(directory, { withFileTypes: true }).catch(() => []);
      for (const entry of entries) {
        const below = `${path}/${entry.name}`;
        if (isOther(below)) continue;
        if (entry.isDirectory() || (path === "pg_tblspc" && entry.isSymbolicLink())) {
          await weed(below);
        } else if (entry.isFile() && !known.has(below) && !isSpecialPath(below)) {
          if (below.startsWith("global/pg_control")) continue;
          await rm(join(directory, entry.name));
          count += 1;
        }
      }
    };
    for (const directory of DATA_DIRECTORIES) await weed(directory);
    this.#options.log.debug("removed what the cluster does not have", { place, files: count });
    return count;
  }

  async #makeLinks(): Promise<void> {
    const { place, tablespaces } = this.#parts;
    for (const { link, location } of tablespaces) {
      const path = join(place, link);
      const stats = await lstat(path).catch(() => undefined);
      if (stats !== undefined) continue;
      await mkdir(location, { recursive: true, mode: 0o700 });
      await mkdir(dirname(path), { recursive: true, mode: 0o700 });
      await symlink(location, path);
    }
  }

  async #putLabels(specials: ReadonlyMap<string, SpecialFile>): Promise<void> {
    const label = specials.get(LABEL_PATH);
    if (label === undefined) throw this.#missing("backup_label");
    await this.#putFile(LABEL_PATH, label.bytes, label.mode);
    const map = specials.get(TABLESPACE_MAP_PATH);
    if (map === undefined) return;
    const text = rewriteTablespaceMap(map.bytes.toString(), this.#parts.tablespaces);
    await this.#putFile(TABLESPACE_MAP_PATH, Buffer.from(text), map.mode);
  }

  async #putFile(path: string, bytes: Buffer, mode: number): Promise<void> {
    await this.#tree.writeFile(path, mode, { content: bytesSource(bytes).open() }, () => {});
  }

  #missing(what: string): DamagedError {
    return new DamagedError(`no part of backup ${this.#parts.step.backup} holds ${what}`, {
      hint: "Take another catch-up backup.",
    });
  }
}

async function readOptional(path: string): Promise<Buffer | undefined> {
  try {
    return await readFile(path);
  } catch (error) {
    if (systemErrorCode(error) === "ENOENT") return undefined;
    throw localFileError("read", path, error);
  }
}
