import { DamagedError, LocalFileError, RefusedError, systemErrorCode } from "../errors.ts";
import { bytesSource } from "../io/bytes.ts";
import { createHasher } from "../io/hash.ts";
import type { BackupName } from "../layout/backup-name.ts";
import type { Storage } from "../storage/storage.ts";
import type { BackupDocuments } from "./backup-documents.ts";
import { freeBytes, requireSpace } from "./free-space.ts";
import type { PageGaps } from "./page-gaps.ts";
import { partCodec, type SpecialFile } from "./part-extract.ts";
import { BackgroundFlush } from "./background-flush.ts";
import { readChain } from "./restore-chain.ts";
import {
  clearDestination,
  type DestinationState,
  inspectDestination,
  inspectLocations,
  notEmpty,
  removeLocationMarker,
  removeMarker,
  removeStaleMarker,
  resolveDestination,
  takeDestination,
} from "./restore-destination.ts";
import { inspectExisting, ownLocations, removeControlFile } from "./restore-existing.ts";
import {
  completeDirectories,
  finishDestination,
  fsyncTree,
  type HeldBackLinks,
  makeLinks,
  putControlFile,
  setDirectoryModes,
} from "./restore-finish.ts";
import { CONTROL_PATH } from "./restore-marker.ts";
import type { RestoreOptions, RestoreReport } from "./restore-options.ts";
import type { Paths } from "./path-set.ts";
import { partsAtOnce } from "./parts-at-once.ts";
import { extractParts, requireComplete } from "./restore-parts.ts";
import {
  isSpecialPath,
  LABEL_PATH,
  planRestore,
  type PlannedPart,
  type RestorePlan,
  type RestoreStep,
  TABLESPACE_MAP_PATH,
} from "./restore-plan.ts";
import { surveyDestination } from "./restore-survey.ts";
import { RestoreTree } from "./restore-tree.ts";
import { spaceNeeds } from "./space-needs.ts";
import { requireControlFile } from "./restored-control.ts";
import { planTablespaces, rewriteTablespaceMap, type TablespacePlan } from "./tablespace-plan.ts";

export type { RestoreOptions, RestoreReport } from "./restore-options.ts";

/** Permission bits by path. */
type Modes = Pick<ReadonlyMap<string, number>, "get">;

const NO_MODES: Modes = new Map();

/**
 * Restores `backup` into `destination`, which must be empty, absent, or the half-done work of a
 * restore that was killed; then it goes on. When it resolves, everything is durable and checked,
 * and a server can be started; until then it can't. See RESTORE.md.
 */
export async function fetchBackup(
  storage: Storage,
  backup: BackupName,
  destination: string,
  options: RestoreOptions,
): Promise<RestoreReport> {
  const chain = await readChain(storage, backup, options);
  const plan = planRestore(chain, { mask: options.mask });
  for (const step of plan.steps) for (const part of step.parts) partCodec(part);
  const [newest] = chain;
  if (newest === undefined) throw new RangeError("a chain has at least one backup");
  const place = await resolveDestination(destination);
  const tablespaces = planTablespaces(newest.documents.sentinel.spec, place, options.tablespaces);
  const restore = new Restore(storage, plan, newest.documents, {
    ...options,
    place,
    locations: tablespaces,
  });
  return await restore.run();
}

interface Surroundings extends RestoreOptions {
  /** The destination, absolute. */
  readonly place: string;
  readonly locations: readonly TablespacePlan[];
}

/** What a destination is before anything is changed, and not only renamed. */
type RestoreState =
  | Exclude<DestinationState, { readonly kind: "finishing" }>
  | { readonly kind: "existing" };

const EXISTING: RestoreState = { kind: "existing" };

/** One run of a restore, from the first look at the destination to the last rename. */
class Restore {
  readonly #storage: Storage;
  readonly #plan: RestorePlan;
  readonly #newest: BackupDocuments;
  readonly #options: Surroundings;
  readonly #flush: BackgroundFlush | undefined;
  readonly #tree: RestoreTree;
  readonly #specials = new Map<string, SpecialFile>();
  /** Files begun from newer backups that need pages of older ones. */
  readonly #gaps = new Map<string, PageGaps>();
  readonly #modes: Modes;
  #kept: Paths = new Set();
  #keptBytes = 0;
  #writtenBytes = 0;

  constructor(storage: Storage, plan: RestorePlan, newest: BackupDocuments, options: Surroundings) {
    this.#storage = storage;
    this.#plan = plan;
    this.#newest = newest;
    this.#options = options;
    this.#flush = options.fsync ? new BackgroundFlush(options.signal) : undefined;
    const isCompared = options.delta !== undefined;
    this.#tree = new RestoreTree(options.place, options.locations, {
      flush: this.#flush,
      isCompared,
      paths: this.#newestStep().paths,
    });
    this.#modes = { get: (path) => newest.manifest?.unchanged.get(path)?.mode };
  }

  async run(): Promise<RestoreReport> {
    const { place, locations } = this.#options;
    const isExisting = await this.#isExisting();
    const state = isExisting ? EXISTING : await inspectDestination(place);
    if (state.kind !== "finishing") {
      const isDelta = this.#options.delta !== undefined;
      const own = isDelta ? await ownLocations(place, locations) : new Set<string>();
      const others = locations.filter(({ location }) => !own.has(location));
      await inspectLocations(others, state.kind === "ours" ? state.marker : undefined);
    }
    await this.#fetchSpecials();
    if (state.kind === "finishing") {
      this.#requireSameControl(state.control);
      await finishDestination(place);
    } else {
      await this.#restore(state);
    }
    for (const { location } of locations) await removeLocationMarker(location);
    return {
      backup: this.#plan.backup,
      destination: place,
      tablespaces: locations,
      keptBytes: this.#keptBytes,
      writtenBytes: this.#writtenBytes,
      changedBytes: this.#options.delta === undefined ? undefined : this.#tree.changedBytes,
      isStartable: this.#plan.isStartable,
    };
  }

  /** Whether a server's data directory is there, which we may rewrite. */
  async #isExisting(): Promise<boolean> {
    const { place, delta } = this.#options;
    if (delta === undefined) return false;
    if (this.#plan.expected === undefined || !this.#plan.isStartable) {
      throw new RefusedError("a delta restore needs a backup that walnut made, and all of it", {
        hint: "Restore into an empty directory. Nothing was changed.",
      });
    }
    return await inspectExisting(place, this.#newest.sentinel, delta);
  }

  /** A restore that only lacked its last step can be finished if it was one of this backup. */
  #requireSameControl(control: Buffer): void {
    const wanted = this.#specials.get(CONTROL_PATH);
    if (wanted === undefined || !wanted.bytes.equals(control)) throw notEmpty(this.#options.place);
  }

  /** pg_control and labels come first, so that a backup without them is refused at once. */
  async #fetchSpecials(): Promise<void> {
    const step = this.#newestStep();
    const { specials } = await this.#extractParts(step, step.specialParts);
    for (const [path, special] of specials) this.#specials.set(path, special);
    const control = specials.get(CONTROL_PATH);
    if (control !== undefined) {
      requireControlFile(this.#plan.backup, this.#newest.sentinel, control.bytes);
    }
  }

  #newestStep(): RestoreStep {
    const step = this.#plan.steps.at(-1);
    if (step === undefined) throw new RangeError("a plan has at least one step");
    return step;
  }

  async #restore(state: RestoreState): Promise<void> {
    try {
      await this.#prepare(state);
      await this.#finish(await this.#extract());
    } catch (error) {
      throw await this.#explained(error);
    }
  }

  /** Makes the destination ours, with nothing in it but what need not be fetched again. */
  async #prepare(state: RestoreState): Promise<void> {
    const { place, locations, signal, log, delta } = this.#options;
    const found = state.kind === "ours" ? state.marker : undefined;
    if (state.kind === "empty") await requireSpace(spaceNeeds(this.#plan, this.#tree, this.#kept));
    if (state.kind === "existing") await removeStaleMarker(place);
    await takeDestination(place, this.#plan.backup, locations, { signal, found });
    if (state.kind === "empty") return;
    if (state.kind === "existing") await removeControlFile(place);
    const expected = this.#plan.expected;
    if (expected === undefined) {
      log.info("clearing what an interrupted restore left", { destination: place });
      await clearDestination(place, locations);
    } else {
      const isFirst = state.kind === "existing";
      log.info(isFirst ? "comparing what is there" : "going on with an interrupted restore", {
        destination: place,
      });
      this.#kept = await surveyDestination(place, locations, expected, {
        paths: this.#newestStep().paths,
        signal,
        jobs: this.#options.downloadConcurrency,
        isServers: delta !== undefined,
        makeHasher: () => createHasher(expected.hash),
        onProgress: (bytes) => this.#progress(bytes, "kept"),
      });
    }
    for (const path of this.#kept) this.#tree.keep(path);
    // What is compared is there already, and nobody knows how much of it will grow.
    if (delta === undefined) await requireSpace(spaceNeeds(this.#plan, this.#tree, this.#kept));
  }

  async #extract(): Promise<HeldBackLinks> {
    const links = { symbolic: new Map<string, string>(), hard: new Map<string, string>() };
    for (const step of this.#plan.steps.toReversed()) {
      const result = await this.#extractParts(step, this.#missingParts(step));
      requireComplete(step, result, this.#options.log);
      for (const [path, gaps] of result.gaps) this.#gaps.set(path, gaps);
      for (const [path, special] of result.specials) this.#addSpecial(path, special);
      for (const [path, target] of result.links) links.symbolic.set(path, target);
      for (const [path, other] of result.hardLinks) links.hard.set(path, other);
      this.#warnOfLinks(result.uselessLinks);
    }
    this.#requireNoGaps();
    const { manifest } = this.#newest;
    for (const [path, mode] of manifest?.directories ?? []) this.#tree.addDirectory(path, mode);
    for (const [path, target] of manifest?.links ?? []) {
      if (this.#newestStep().isWanted(path)) links.symbolic.set(path, target);
    }
    return links;
  }

  #requireNoGaps(): void {
    for (const [path, { missingCount }] of this.#gaps) {
      if (missingCount === 0) continue;
      throw new DamagedError(`increments are for ${path}, which no base holds whole`, {
        hint: "The chain is broken: restore a backup from before this one.",
      });
    }
  }

  /** What comes in a part of its own counts; the same name elsewhere is a stale file. */
  #addSpecial(path: string, special: SpecialFile): void {
    const hasLabelPart = this.#newestStep().specialParts.some(({ kind }) => kind === "label");
    const isStale = path === CONTROL_PATH ? this.#specials.has(path) : hasLabelPart;
    if (!isStale) this.#specials.set(path, special);
  }

  #warnOfLinks(paths: readonly string[]): void {
    if (paths.length === 0) return;
    this.#options.log.warning(
      "WAL-G does not store where symbolic links lead: these are left out, make them yourself",
      { links: paths.join(" ") },
    );
  }

  /** All parts of a step but those whose files are all there. */
  #missingParts(step: RestoreStep): readonly PlannedPart[] {
    const { parts, manifest } = step;
    if (manifest === undefined || this.#kept.size === 0) return parts;
    const needed = new Set<string>();
    const { files } = manifest;
    for (const id of files.ids()) {
      const path = files.table.pathOf(id);
      if (!step.isWanted(path) || this.#kept.has(path) || isSpecialPath(path)) continue;
      needed.add(files.partOfId(id));
    }
    return parts.filter(({ name }) => needed.has(name));
  }

  async #extractParts(
    step: RestoreStep,
    parts: readonly PlannedPart[],
  ): ReturnType<typeof extractParts> {
    const { downloadConcurrency: count, memoryBytes, codecJobs, log, signal } = this.#options;
    const most = partsAtOnce(step.paths.count, { count, memoryBytes });
    if (memoryBytes !== undefined && most < Math.min(count, parts.length)) {
      log.info("fewer parts are read at once than were asked for: more might not fit into memory", {
        asked: count,
        parts: most,
        files: step.paths.count,
        memory: `${Math.floor(memoryBytes / 1024 ** 2)} MiB`,
      });
    }
    const jobs = Math.max(1, Math.min(most, parts.length));
    const context = {
      storage: this.#storage,
      tree: this.#tree,
      codecJobs: Math.max(1, Math.ceil(codecJobs / jobs)),
      kept: this.#kept,
      gaps: this.#gaps,
      modes: step.isNewest ? NO_MODES : this.#modes,
      onProgress: (bytes: number) => this.#progress(bytes, "written"),
    };
    return await extractParts(step, parts, context, { jobs, log, signal });
  }

  #progress(bytes: number, kind: "kept" | "written"): void {
    if (kind === "kept") this.#keptBytes += bytes;
    else this.#writtenBytes += bytes;
    this.#options.onProgress(this.#keptBytes + this.#writtenBytes, this.#plan.sizeBytes);
  }

  async #finish(links: HeldBackLinks): Promise<void> {
    const { place, signal, log, fsync } = this.#options;
    completeDirectories(this.#tree, links);
    await this.#putLabels();
    await makeLinks(this.#tree, links, { backup: this.#plan.backup, log });
    await setDirectoryModes(this.#tree);
    await this.#flush?.drain();
    if (fsync) await fsyncTree(this.#tree, signal);
    const control = this.#specials.get(CONTROL_PATH);
    if (!this.#plan.isStartable) await removeMarker(place);
    else if (control === undefined) throw this.#missing("pg_control");
    else await putControlFile(place, control, signal);
  }

  async #putLabels(): Promise<void> {
    const label = this.#specials.get(LABEL_PATH);
    if (label !== undefined) await this.#putFile(LABEL_PATH, label.bytes, label.mode);
    else if (this.#plan.isLabelRequired) throw this.#missing("backup_label");
    const { tablespaces, locations } = this.#options;
    const map = this.#specials.get(TABLESPACE_MAP_PATH);
    if (map === undefined || tablespaces.spec !== undefined) return;
    const text = rewriteTablespaceMap(map.bytes.toString(), locations);
    await this.#putFile(TABLESPACE_MAP_PATH, Buffer.from(text), map.mode);
  }

  async #putFile(path: string, bytes: Buffer, mode: number): Promise<void> {
    await this.#tree.writeFile(path, mode, { content: bytesSource(bytes).open() }, () => {});
  }

  #missing(what: string): DamagedError {
    return new DamagedError(`no part of backup ${this.#plan.backup} holds ${what}`, {
      hint: "Without it the data can't be made consistent: restore another backup.",
    });
  }

  /** Says how much is missing where the disk was full. */
  async #explained(error: unknown): Promise<unknown> {
    if (!(error instanceof LocalFileError)) return error;
    const code = systemErrorCode(error.cause);
    if (code !== "ENOSPC" && code !== "EDQUOT") return error;
    const { place } = this.#options;
    const totalBytes = this.#plan.sizeBytes;
    const doneBytes = this.#keptBytes + this.#writtenBytes;
    const needed =
      totalBytes === undefined ? "" : `, ${totalBytes - doneBytes} bytes still to come`;
    return new LocalFileError(`${error.message}${needed}, ${await freeBytes(place)} bytes free`, {
      hint: "Make room and run the same command again: it goes on where it stopped.",
      cause: error,
    });
  }
}
