import { DamagedError, ObjectNotFoundError, StorageError, WrongKeyError } from "../errors.ts";
import { createHasher } from "../io/hash.ts";
import type { Log } from "../io/log.ts";
import { boundedParallel } from "../io/ordered.ts";
import {
  type ExtractContext,
  extractPart,
  type PartHashers,
  type SpecialFile,
} from "./part-extract.ts";
import { attemptsFor, storageForAttempt } from "../storage/copies.ts";
import type { PageGaps } from "./page-gaps.ts";
import { type Paths, PathSet, PathValues } from "./path-set.ts";
import type { PlannedPart, RestoreStep } from "./restore-plan.ts";
import { isSpecialPath } from "./restore-plan.ts";

/**
 * A part that arrived damaged or broke off may have been so on its way only: the storage resumes a
 * cut download itself, this is for what it can't see.
 */
const PART_ATTEMPTS = 3;

/** What the parts of one backup gave. */
export interface StepResult {
  /** Paths of files that were written, patched, kept or held back. */
  readonly files: PathSet;
  readonly specials: Map<string, SpecialFile>;
  readonly links: Map<string, string>;
  readonly hardLinks: Map<string, string>;
  readonly uselessLinks: string[];
  /** All paths that an entry was for. */
  readonly delivered: PathSet;
  /** What is missing now of the files that got pages. */
  readonly gaps: Map<string, PageGaps>;
}

export interface StepOptions {
  /** Parts that are read at the same time. */
  readonly jobs: number;
  /** How often a part is tried that does not arrive whole; 3 unless told. */
  readonly attempts?: number;
  readonly log: Log;
  readonly signal: AbortSignal;
}

/** Fetches and extracts `parts`, several at once. The first that can't be read ends all. */
export async function extractParts(
  step: RestoreStep,
  parts: readonly PlannedPart[],
  context: Omit<ExtractContext, "owners">,
  { jobs, attempts = PART_ATTEMPTS, log, signal }: StepOptions,
): Promise<StepResult> {
  const result: StepResult = {
    files: new PathSet(step.paths, context.kept),
    specials: new Map(),
    links: new Map(),
    hardLinks: new Map(),
    uselessLinks: [],
    delivered: new PathSet(step.paths),
    gaps: new Map(),
  };
  const shared = { ...context, owners: new PathValues<string>(step.paths) };
  const free: PartHashers[] = [];
  await boundedParallel(
    parts,
    Math.max(1, Math.min(jobs, parts.length)),
    async (part, { signal }) => {
      const hashers = free.pop() ?? (await makeHashers(step));
      const rules = { attempts: attemptsFor(context.storage, attempts), log };
      const given = await withRetries(part, rules, async (number) => {
        const storage = storageForAttempt(context.storage, number);
        let partBytes = 0;
        const onProgress = (bytes: number): void => {
          partBytes += bytes;
          context.onProgress(bytes);
        };
        try {
          return await extractPart(step, part, hashers, { ...shared, storage, onProgress, signal });
        } catch (error) {
          context.onProgress(-partBytes);
          throw error;
        }
      });
      free.push(hashers);
      result.files.addAll(given.files);
      for (const [path, special] of given.specials) result.specials.set(path, special);
      for (const [path, target] of given.links) result.links.set(path, target);
      for (const [path, target] of given.hardLinks) result.hardLinks.set(path, target);
      result.uselessLinks.push(...given.uselessLinks);
      for (const [path, gaps] of given.gaps) result.gaps.set(path, gaps);
      result.delivered.addAll(given.directories);
    },
    { signal },
  );
  for (const paths of [result.files, result.links.keys(), result.hardLinks.keys()]) {
    result.delivered.addAll(paths);
  }
  result.delivered.addAll(result.uselessLinks);
  return result;
}

async function makeHashers({ manifest }: RestoreStep): Promise<PartHashers> {
  return {
    content: await createHasher(manifest?.header.hash ?? "xxh64"),
    stored: await createHasher("xxh64"),
  };
}

async function withRetries<T>(
  part: PlannedPart,
  { attempts, log }: { readonly attempts: number; readonly log: Log },
  attempt: (number: number) => Promise<T>,
): Promise<T> {
  let damage: Error | undefined;
  for (let number = 1; ; number += 1) {
    try {
      return await attempt(number);
    } catch (error) {
      if (!(error instanceof Error)) throw error;
      const isDamage = error instanceof DamagedError || error instanceof WrongKeyError;
      // One copy is damaged: what is wrong with the others says less.
      const isOfCopy = damage !== undefined && error instanceof ObjectNotFoundError;
      if (isDamage) damage ??= error;
      const isWorthIt =
        isDamage || isOfCopy || (error instanceof StorageError && error.isRetryable);
      if (!isWorthIt || number >= attempts) throw isOfCopy ? damage : error;
      log.warning("a part could not be read and is fetched again", {
        part: part.key,
        attempt: number,
        reason: error.message,
      });
    }
  }
}

/** By numbers where both are of one table: a million paths need not be made for it. */
function* undelivered(expected: Paths, delivered: PathSet): Generator<string, void, undefined> {
  if (expected instanceof PathSet && expected.table === delivered.table) {
    for (const id of expected.ids()) if (!delivered.hasId(id)) yield expected.table.pathOf(id);
  } else {
    for (const path of expected) if (!delivered.has(path)) yield path;
  }
}

/** Names in a warning. */
const SHOWN_FILES = 10;

/** Throws DamagedError for wanted files that no part gave; warns of what may be missing rightly. */
export function requireComplete(step: RestoreStep, result: StepResult, log: Log): void {
  const firstMissing: string[] = [];
  let count = 0;
  for (const path of undelivered(step.expected, result.delivered)) {
    if (isSpecialPath(path)) continue;
    count += 1;
    if (count <= SHOWN_FILES) firstMissing.push(path);
  }
  const [first] = firstMissing;
  if (first === undefined) return;
  if (step.isNewest && step.manifest === undefined) {
    log.warning("files are listed but no part holds them: removed while the backup ran", {
      backup: step.backup,
      count,
      files: firstMissing.join(" "),
    });
    return;
  }
  throw new DamagedError(
    `backup ${step.backup} promises ${count} files that no part of it holds: ${first}`,
    { hint: "Restore another backup." },
  );
}
