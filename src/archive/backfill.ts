import { copyFile, mkdtemp, readdir, rm, stat } from "node:fs/promises";
import { join } from "node:path";
import {
  ConflictError,
  FormatError,
  LocalFileError,
  RefusedError,
  systemErrorCode,
} from "../errors.ts";
import { readAll } from "../io/bytes.ts";
import { makeDirectories } from "../io/handed-over.ts";
import { localFileError } from "../io/system-error.ts";
import { gapKey, parseWalKey, walKey } from "../layout/keys.ts";
import type { PgControl } from "../postgres/pg-control.ts";
import {
  isAncestor,
  parseTimelineHistory,
  type TimelineHistory,
} from "../postgres/timeline-history.ts";
import { formatHistoryName, parseWalFileName } from "../postgres/wal-file.ts";
import { WalWalker } from "../postgres/wal-record.ts";
import type { Storage } from "../storage/storage.ts";
import { type BackfillStep, planBackfill } from "./backfill-plan.ts";
import { listGapRecords } from "./stored-gaps.ts";
import { listLocalHistories, requireLocalControl } from "./local-control.ts";
import { isUnused } from "./left-timeline.ts";
import { HISTORY_BYTES_MAX, inspectLocalWal, readLocalWal } from "./local-wal.ts";
import { pushWal, type PushOptions } from "./push.ts";
import { listStoredWal, readStoredWal } from "./stored-wal.ts";

export interface BackfillOptions extends PushOptions {
  /** PGDATA, absolute. */
  readonly dataDirectory: string;
  /** Only say what would be done. */
  readonly isDryRun: boolean;
  /** Whether to compare what the archive has. */
  readonly isComparing: boolean;
}

/** What became of one file. */
export interface BackfillResult extends BackfillStep {
  readonly outcome:
    | "archived"
    | "already archived"
    | "leftover replaced"
    | "nothing to archive"
    | "planned"
    | "to compare"
    | "skipped"
    | "not complete"
    /** A file for WAL to come, the last of its timeline: there is nothing to bring yet. */
    | "unused"
    | "gone"
    | "different";
}

/**
 * Brings what a server has of its history and the archive lacks; FAILOVER.md tells why a promoted
 * standby needs it. Each file is copied first and pushed from the copy, because the server may
 * recycle it at any time; the copy counts only if its records prove that it is the whole segment.
 *
 * Gives what became of each file, one after the other. Throws what pushWal throws, but not
 * ConflictError: that file's outcome is "different".
 */
export async function* backfill(
  storage: Storage,
  options: BackfillOptions,
): AsyncGenerator<BackfillResult, void, undefined> {
  const walDirectory = join(options.dataDirectory, "pg_wal");
  const control = await requireLocalControl(options.dataDirectory);
  const local = await listDirectory(walDirectory);
  const steps = planBackfill({
    history: await ownHistory(storage, { control, walDirectory }, options),
    segmentBytes: control.walSegmentBytes,
    local,
    stored: await listStored(storage, local, options),
  });
  const gaps = await listGapRecords(storage, options);
  await makeDirectories(options.cacheDirectory, 0o700);
  const scratch = await mkdtemp(join(options.cacheDirectory, "backfill-"));
  try {
    let ahead: BackfillResult[] = [];
    for (const step of steps) {
      options.signal.throwIfAborted();
      const outcome = await take(storage, { step, control, walDirectory, scratch }, options);
      if (gaps.has(step.name) && isStored(outcome)) {
        await storage.delete([gapKey(step.name)], options);
      }
      if (outcome === "unused") {
        ahead.push({ ...step, outcome });
        continue;
      }
      // What lies before a segment with content was to have some, too.
      for (const hollow of ahead) yield { ...hollow, outcome: "not complete" };
      ahead = [];
      yield { ...step, outcome };
    }
    yield* ahead;
  } finally {
    await rm(scratch, { recursive: true, force: true });
  }
}

interface Task {
  readonly step: BackfillStep;
  readonly control: PgControl;
  readonly walDirectory: string;
  readonly scratch: string;
}

async function take(
  storage: Storage,
  { step, control, walDirectory, scratch }: Task,
  options: BackfillOptions,
): Promise<BackfillResult["outcome"]> {
  const { name, action } = step;
  if (action === "skip" || (action === "compare" && !options.isComparing)) return "skipped";
  const copy = join(scratch, name);
  try {
    if (action === "push" && (await isAhead(step, { control, walDirectory }))) return "unused";
    const state = await copyWhole({ name, copy, path: join(walDirectory, name) }, options);
    if (state !== "whole") return state;
    if (options.isDryRun) return action === "compare" ? "to compare" : "planned";
    return await pushWal(storage, { path: copy, name }, options);
  } catch (error) {
    if (error instanceof ConflictError) return "different";
    throw error;
  } finally {
    await rm(copy, { force: true });
  }
}

/** A server keeps many of these: each is known by its first bytes. */
async function isAhead(
  { name }: BackfillStep,
  { control, walDirectory }: Pick<Task, "control" | "walDirectory">,
): Promise<boolean> {
  if (parseWalFileName(name)?.kind !== "segment") return false;
  try {
    return await isUnused({ path: join(walDirectory, name), name }, control);
  } catch (error) {
    // Gone, or not to be read: copying it says which.
    if (error instanceof LocalFileError) return false;
    throw error;
  }
}

/** Copies a file that may be renamed and written over meanwhile. */
async function copyWhole(
  { name, path, copy }: { readonly name: string; readonly path: string; readonly copy: string },
  options: BackfillOptions,
): Promise<"whole" | "not complete" | "gone"> {
  try {
    const before = await stat(path, { bigint: true });
    await copyFile(path, copy);
    const after = await stat(path, { bigint: true });
    if (before.ino !== after.ino) return "gone";
  } catch (error) {
    if (systemErrorCode(error) === "ENOENT") return "gone";
    throw localFileError("copy", path, error);
  }
  try {
    const local = await inspectLocalWal({ path: copy, name }, options);
    if (local.kind !== "segment") return "whole";
    const walker = new WalWalker(name);
    for await (const chunk of readLocalWal(local, options)) walker.push(chunk);
    return walker.finish().end === "invalid" ? "not complete" : "whole";
  } catch (error) {
    if (error instanceof FormatError) return "not complete";
    throw error;
  }
}

/** The server's newest timeline and the way to it; pg_control may lag behind a promotion. */
async function ownHistory(
  storage: Storage,
  { control, walDirectory }: { readonly control: PgControl; readonly walDirectory: string },
  options: BackfillOptions,
): Promise<TimelineHistory> {
  const { timeline } = control;
  const local = await listLocalHistories(walDirectory);
  const newest = local.find((history) => isAncestor(history, timeline));
  if (newest !== undefined) return newest;
  if (timeline === 1) return { timeline, ancestors: [] };
  const name = formatHistoryName(timeline);
  const [stored] = await listStoredWal(storage, name, options);
  if (stored === undefined) {
    throw new RefusedError(`${name} is neither in ${walDirectory} nor in ${storage.name}`, {
      hint: "Without it nobody can tell which WAL belongs together. Copy it from another server.",
    });
  }
  const content = readStoredWal(storage, stored, options);
  const text = (await readAll(content, HISTORY_BYTES_MAX)).toString("utf8");
  return parseTimelineHistory(text, timeline);
}

async function listDirectory(path: string): Promise<readonly string[]> {
  try {
    return await readdir(path);
  } catch (error) {
    throw localFileError("list", path, error);
  }
}

/** Those of the names that the archive holds. */
async function listStored(
  storage: Storage,
  local: readonly string[],
  { signal }: { readonly signal: AbortSignal },
): Promise<ReadonlySet<string>> {
  const wanted = new Set(local.filter((name) => parseWalFileName(name) !== undefined));
  const oldest = new Map<string, string>();
  for (const name of [...wanted].toSorted().toReversed()) oldest.set(name.slice(0, 8), name);
  const stored = new Set<string>();
  for (const [timeline, name] of oldest) {
    // "/" sorts before all digits: the first name itself is listed.
    const startAfter = walKey(`${name.slice(0, -1)}/`, "");
    for await (const { key, sizeBytes } of storage.list(walKey(timeline, ""), {
      signal,
      startAfter,
    })) {
      const found = parseWalKey(key)?.name;
      // An empty object is what is left of a cut-off upload.
      if (found !== undefined && wanted.has(found) && sizeBytes > 0) stored.add(found);
    }
  }
  return stored;
}

function isStored(outcome: BackfillResult["outcome"]): boolean {
  return (
    outcome === "archived" || outcome === "already archived" || outcome === "leftover replaced"
  );
}
