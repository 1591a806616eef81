import { DamagedError } from "../errors.ts";
import type { Log } from "../io/log.ts";
import type { Storage } from "../storage/storage.ts";
import type { StreamedEntry } from "./entry-packer.ts";
import { Handoff } from "./handoff.ts";
import type { MergeFacts } from "./merge-facts.ts";
import type { MergePages } from "./merge-pages.ts";
import type { MergePlan } from "./merge-plan.ts";
import { type MergedFile, MergeTarget } from "./merge-target.ts";
import type { PageGaps } from "./page-gaps.ts";
import { PathSet } from "./path-set.ts";
import type { ExtractTarget } from "./part-extract.ts";
import { extractParts, requireComplete, type StepResult } from "./restore-parts.ts";
import type { RestoreStep } from "./restore-plan.ts";

/** Parts with increments that are fetched at the same time; one where paths take the memory. */
const PAGE_JOBS = 2;
const MANY_PATHS = 500_000;

/** What packing a file again leaves to the collector, beside reading it; see noteMade. */
const THINGS_PER_FILE = 32;

/** What both passes over a chain share. */
export interface MergeInput {
  readonly plan: MergePlan;
  readonly storage: Storage;
  readonly codecJobs: number;
  readonly tablespaces: ReadonlySet<string>;
  /** What is missing of files that have increments; filled by the first pass. */
  readonly gaps: Map<string, PageGaps>;
  /** Told the content of increments that came. */
  readonly onProgress: (sizeBytes: number) => void;
  readonly log: Log;
  readonly signal: AbortSignal;
}

/** The first pass: collects the pages of all increments, the newest backup's first. */
export async function collectPages(input: MergeInput, pages: MergePages): Promise<void> {
  const { plan, gaps, onProgress, log } = input;
  for (const [index, { pages: step }] of plan.steps.entries()) {
    const found = await extract(input, step, { tree: pages.target(index), onProgress });
    requireComplete(step, found, log);
    for (const [path, missing] of found.gaps) gaps.set(path, missing);
  }
}

/**
 * The second pass: the files of the merged backup, then its directories and links. Resolves when
 * `take`, which gets them, has ended.
 */
export async function passEntries(
  input: MergeInput,
  sources: Sources,
  take: (entries: AsyncIterator<StreamedEntry, undefined>) => Promise<void>,
): Promise<void> {
  const handoff = new Handoff<StreamedEntry>();
  const stop = new AbortController();
  const signal = AbortSignal.any([input.signal, stop.signal]);
  const fail = (error: unknown): never => {
    handoff.fail(error);
    stop.abort(error);
    throw error;
  };
  const giving = giveAll({ ...input, signal }, sources, handoff).then(() => handoff.end(), fail);
  const taking = take(handoff).catch(fail);
  // What is wrong with a part is known best where it is read.
  const [given, taken] = await Promise.allSettled([giving, taking]);
  for (const side of [given, taken]) if (side.status === "rejected") throw side.reason;
}

export interface Sources {
  readonly pages: MergePages;
  readonly facts: MergeFacts;
}

async function giveAll(
  input: MergeInput,
  { pages, facts }: Sources,
  handoff: Handoff<StreamedEntry>,
): Promise<void> {
  const { plan, tablespaces, log } = input;
  const { manifest } = plan.newest;
  const given = new PathSet(plan.specialStep.paths);
  const directories = new Map([...pages.directories, ...(manifest?.directories ?? [])]);
  const links = new Map(manifest?.links ?? []);
  const tree = new MergeTarget({
    pages,
    tablespaces,
    onFile: async (file) => {
      given.table.noteMade(THINGS_PER_FILE);
      given.add(file.path);
      await handoff.give(entryOf(file, facts));
    },
    onDirectory: (path, mode) => void directories.set(path, mode),
  });
  for (const { files: step } of plan.steps.toReversed()) {
    const found = await extract(input, step, { tree, onProgress: () => {} });
    requireComplete(step, found, log);
    for (const [path, target] of found.links) links.set(path, target);
    refuseLinks(step, found, log);
  }
  for (const path of pages.files.keys()) {
    if (given.has(path)) continue;
    throw new DamagedError(`increments are for ${path}, which no base holds whole`, {
      hint: "The chain is broken: merge or restore a backup from before this one.",
    });
  }
  const owner = { uid: 0, gid: 0 };
  for (const [path, mode] of [...directories].toSorted(([one], [other]) =>
    one < other ? -1 : 1,
  )) {
    const { mtimeNs } = facts.of(path);
    await handoff.give({ kind: "directory", name: `/${path}`, mode, mtimeNs, ...owner });
  }
  for (const [path, target] of links) {
    const { mtimeNs } = facts.of(path);
    await handoff.give({ kind: "link", name: `/${path}`, target, mode: 0o777, mtimeNs, ...owner });
  }
}

function entryOf({ path, ...file }: MergedFile, facts: MergeFacts): StreamedEntry {
  return { kind: "file", name: `/${path}`, path, ...file, ...facts.of(path), uid: 0, gid: 0 };
}

function refuseLinks(step: RestoreStep, { hardLinks, uselessLinks }: StepResult, log: Log): void {
  const [hardLink] = hardLinks.keys();
  if (hardLink !== undefined) {
    throw new DamagedError(`${hardLink} of backup ${step.backup} is a hard link`, {
      hint: "No backup of PostgreSQL holds any. Take a full backup: backup-push --full.",
    });
  }
  if (uselessLinks.length === 0) return;
  log.warning("WAL-G does not store where symbolic links lead: these are left out", {
    links: uselessLinks.join(" "),
  });
}

/** pg_control and the labels of the newest backup, by path. */
export async function extractSpecials(
  input: MergeInput,
  pages: MergePages,
): Promise<StepResult["specials"]> {
  const { specialStep } = input.plan;
  const step = { ...specialStep, parts: specialStep.specialParts };
  const tree = new MergeTarget({
    pages,
    tablespaces: input.tablespaces,
    onFile: async ({ path }) => await Promise.reject(new Error(`${path} is not held back`)),
    onDirectory: () => {},
  });
  return (await extract(input, step, { tree, onProgress: () => {} })).specials;
}

async function extract(
  { plan, storage, codecJobs, gaps, log, signal }: MergeInput,
  step: RestoreStep,
  {
    tree,
    onProgress,
  }: {
    readonly tree: ExtractTarget;
    readonly onProgress: (sizeBytes: number) => void;
  },
): Promise<StepResult> {
  const isFirstPass = step.increments.size > 0;
  const jobs = isFirstPass && step.paths.count < MANY_PATHS ? PAGE_JOBS : 1;
  const unchanged = step.isNewest ? undefined : plan.newest.manifest?.unchanged;
  const modes = { get: (path: string) => unchanged?.get(path)?.mode };
  const context = { storage, tree, codecJobs, kept: new Set<string>(), gaps, modes, onProgress };
  // What is on its way to the merged backup can't be taken back.
  return await extractParts(step, step.parts, context, {
    jobs,
    attempts: isFirstPass ? 3 : 1,
    log,
    signal,
  });
}
