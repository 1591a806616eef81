import { lstat } from "node:fs/promises";
import { join } from "node:path";
import { codecOf } from "../codec/table.ts";
import { DamagedError, RefusedError, WrongClusterError } from "../errors.ts";
import type { BackupName } from "../layout/backup-name.ts";
import { parseBackupName } from "../layout/backup-name.ts";
import { tarFolder } from "../layout/keys.ts";
import type { Sentinel } from "../layout/sentinel.ts";
import { formatLsn, lsn } from "../postgres/lsn.ts";
import { parsePgControl, type PgControl } from "../postgres/pg-control.ts";
import type { Storage } from "../storage/storage.ts";
import { type BackupDocuments, fileStates, readBackupDocuments } from "./backup-documents.ts";
import {
  type CatchUpCounts,
  type CatchUpLinks,
  type CatchUpOptions,
  CatchUpTree,
  noStandby,
  readOptional,
  resolveStandby,
  takeStandby,
} from "./catch-up-place.ts";
import { planLinks, removeSurplus, requireStopped } from "./catch-up-tree.ts";
import { inspectDestination, inspectLocations } from "./restore-destination.ts";
import { finishDestination } from "./restore-finish.ts";
import { CONTROL_PATH, type RestoreMarker } from "./restore-marker.ts";
import { extractParts, requireComplete } from "./restore-parts.ts";
import { LABEL_PATH, planRestore, type RestoreStep, TABLESPACE_MAP_PATH } from "./restore-plan.ts";
import { requireControlFile } from "./restored-control.ts";

export interface CatchUpFetchOptions extends CatchUpOptions {
  readonly downloadConcurrency: number;
  readonly codecJobs: number;
}

export interface CatchUpReport extends CatchUpCounts {
  readonly destination: string;
  readonly writtenBytes: number;
}

/**
 * Brings the directory of a stopped standby up to a catch-up backup. Until it resolves no server
 * can start on it; killed, it goes on when it is run again. See CATCHUP.md. `storage` has the
 * catch-up backups where backups are.
 */
export async function fetchCatchUp(
  storage: Storage,
  backup: BackupName,
  destination: string,
  options: CatchUpFetchOptions,
): Promise<CatchUpReport> {
  const { signal } = options;
  const zstd = codecOf("zstd");
  const documents = await readBackupDocuments(storage, backup, { zstd, signal });
  const partKeys: string[] = [];
  for await (const { key } of storage.list(tarFolder(backup), { signal })) partKeys.push(key);
  const [step] = planRestore([{ documents, partKeys }]).steps;
  if (step === undefined) throw new RangeError("a plan has at least one step");
  const place = await resolveStandby(destination);
  const state = await inspect(place, documents);
  if (state === "finishing") {
    await finishDestination(place);
    return { destination: place, writtenBytes: 0, changedBytes: 0, removedCount: 0 };
  }
  await requireFiles(place, step, documents);
  const links = await planLinks(place, documents.sentinel.spec, state);
  await inspectLocations(links.added, state);
  const parts = { step, documents, place, links };
  return await new CatchUp(storage, parts, options).run(state);
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
    throw noStandby(place, "catchup-fetch");
  }
  const control = parsePgControl(bytes);
  await requireStopped(place, control);
  requireBehind(place, control, sentinel, name);
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
  const refuse = (what: string, wayOut = "Restore it by backup-fetch"): never => {
    throw new RefusedError(`${place} ${what}`, {
      hint: `${wayOut}, or take another catch-up backup. Nothing was changed.`,
    });
  };
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
      "It needs nothing of this backup: start it",
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

interface Parts {
  readonly step: RestoreStep;
  readonly documents: BackupDocuments;
  readonly place: string;
  readonly links: CatchUpLinks;
}

/** One run, from the marker to the last rename. */
class CatchUp {
  readonly #storage: Storage;
  readonly #parts: Parts;
  readonly #options: CatchUpFetchOptions;
  readonly #place: CatchUpTree;
  #writtenBytes = 0;

  constructor(storage: Storage, parts: Parts, options: CatchUpFetchOptions) {
    this.#storage = storage;
    this.#parts = parts;
    this.#options = options;
    this.#place = new CatchUpTree(parts.place, parts.links, options);
  }

  async run(found: RestoreMarker | undefined): Promise<CatchUpReport> {
    const { step, documents, place, links } = this.#parts;
    const { log, signal } = this.#options;
    const { specials } = await this.#extract(step.specialParts);
    const control = specials.get(CONTROL_PATH);
    if (control === undefined) throw this.#missing("pg_control");
    requireControlFile(step.backup, documents.sentinel, control.bytes);
    await takeStandby(place, step.backup, links.added, { signal, found });
    const result = await this.#extract(step.parts);
    requireComplete(step, result, log);
    const removedCount = await this.#removeSurplus();
    const label = specials.get(LABEL_PATH) ?? result.specials.get(LABEL_PATH);
    if (label === undefined) throw this.#missing("backup_label");
    const map = specials.get(TABLESPACE_MAP_PATH) ?? result.specials.get(TABLESPACE_MAP_PATH);
    await this.#place.finish(control, { label, map });
    const { changedBytes } = this.#place.tree;
    for (const { location } of links.all) log.debug("tablespace", { location });
    return { destination: place, writtenBytes: this.#writtenBytes, changedBytes, removedCount };
  }

  async #extract(parts: RestoreStep["parts"]): ReturnType<typeof extractParts> {
    const { downloadConcurrency, codecJobs, log, signal, onProgress } = this.#options;
    const jobs = Math.max(1, Math.min(downloadConcurrency, parts.length));
    const context = {
      storage: this.#storage,
      tree: this.#place.tree,
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

  async #removeSurplus(): Promise<number> {
    const { documents, place } = this.#parts;
    const known = new Set([...fileStates(documents)].map(([path]) => path));
    if (known.size === 0) return 0;
    const own = new Set([...known].map((path) => path.split("/").slice(0, 3).join("/")));
    const count = await removeSurplus(this.#place.tree, known, own);
    this.#options.log.debug("removed what the cluster does not have", { place, files: count });
    return count;
  }

  #missing(what: string): DamagedError {
    return new DamagedError(`no part of backup ${this.#parts.step.backup} holds ${what}`, {
      hint: "Take another catch-up backup.",
    });
  }
}
