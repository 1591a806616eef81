import { mkdir, readdir, readFile, rename, rm, writeFile } from "node:fs/promises";
import { join } from "node:path";
import { FormatError, systemErrorCode } from "../errors.ts";
import type { Clock } from "../io/clock.ts";
import type { Log } from "../io/log.ts";
import {
  type ChangeMap,
  formatChangeMap,
  mapSegment,
  parseChangeMap,
} from "../layout/change-map.ts";
import { DELTA_GROUP_SEGMENTS } from "../layout/wal-delta.ts";
import { formatSegmentName, parseWalFileName, segmentNumberOf } from "../postgres/wal-file.ts";
import type { CallOptions } from "../storage/storage.ts";
import { walkChanges } from "./change-fold.ts";
import { inspectLocalWal, readLocalWal } from "./local-wal.ts";
import { reasonOf } from "./outage.ts";

export interface ChangeNotesOptions {
  /** In the spool of the data directory; made when it is missing. */
  readonly directory: string;
  /** Called when the notes of a group are complete, so that somebody calls `storeGroups`. */
  readonly onGroup: () => void;
  readonly clock: Clock;
  readonly log: Log;
}

/** Four groups; what is older was given up by a store that was away for long. */
const NOTES_MAX = 4 * DELTA_GROUP_SEGMENTS;
/** A record's rest is kept in the notes; one that is longer is not worth its place there. */
const REST_BYTES_MAX = 4 * 1024 * 1024;
/** How long an acknowledged push may wait for its notes: for their CPU, not for a sick disk. */
const PATIENCE_MS = 5000;
const TEMPORARY = ".tmp";

/** Notes what segments change while they are pushed; DELTA.md tells the whole story. */
export class ChangeNotes {
  readonly #options: ChangeNotesOptions;

  constructor(options: ChangeNotesOptions) {
    this.#options = options;
  }

  /**
   * Runs `push` and gives what it gives. What the file changes is noted once that has resolved;
   * whatever goes wrong with it is told in the log and nowhere else.
   */
  async around<T>(
    wal: { readonly path: string; readonly name: string },
    push: () => Promise<T>,
    { signal }: CallOptions,
  ): Promise<T> {
    if (parseWalFileName(wal.name)?.kind !== "segment") return await push();
    const over = new AbortController();
    const either = AbortSignal.any([signal, over.signal]);
    const noting = this.#read(wal, { signal: either });
    try {
      const result = await push();
      const keeping = noting.then((map) => (map === undefined ? undefined : this.#keep(map)));
      await Promise.race([this.#quietly(wal.name, keeping), this.#patience(either)]);
      return result;
    } finally {
      over.abort();
    }
  }

  async #read(
    wal: { readonly path: string; readonly name: string },
    options: CallOptions,
  ): Promise<ChangeMap | undefined> {
    let reason: string;
    try {
      const local = await inspectLocalWal(wal, options);
      const content = readLocalWal(local, options);
      const walked = await walkChanges(wal.name, content, { restBytesMax: REST_BYTES_MAX });
      if (typeof walked === "string") reason = walked;
      else if (walked.walk.end === "invalid") reason = walked.walk.reason;
      else return walked.map;
    } catch (error) {
      reason = reasonOf(error);
    }
    if (!options.signal.aborted) this.#tell(wal.name, reason);
    return undefined;
  }

  async #keep(map: ChangeMap): Promise<void> {
    const { directory, onGroup } = this.#options;
    await writeNotes(directory, map);
    const names = await listNotes(directory);
    await removeOldest(directory, names);
    const there = new Set(names);
    if (groupSegments(map).every((name) => there.has(name))) onGroup();
  }

  async #quietly(name: string, work: Promise<void>): Promise<void> {
    try {
      await work;
    } catch (error) {
      this.#tell(name, reasonOf(error));
    }
  }

  async #patience(signal: AbortSignal): Promise<void> {
    await this.#options.clock.sleep(PATIENCE_MS, { signal }).catch(() => {});
  }

  #tell(wal: string, reason: string): void {
    this.#options.log.info("changes of a WAL segment are not noted", { wal, reason });
  }
}

/** The 16 segments of the group to which the map's first one belongs. */
export function groupSegments({ timeline, startLsn, segmentBytes }: ChangeMap): readonly string[] {
  const number = segmentNumberOf(startLsn, segmentBytes);
  const first = number - (number % BigInt(DELTA_GROUP_SEGMENTS));
  return Array.from({ length: DELTA_GROUP_SEGMENTS }, (_, index) =>
    formatSegmentName(timeline, first + BigInt(index), segmentBytes),
  );
}

/** The segments of which there are notes, by name. */
export async function listNotes(directory: string): Promise<readonly string[]> {
  let entries: readonly string[];
  try {
    entries = await readdir(directory);
  } catch (error) {
    if (systemErrorCode(error) === "ENOENT") return [];
    throw error;
  }
  return entries.filter((name) => parseWalFileName(name)?.kind === "segment").toSorted();
}

/** Undefined when they are not there, or torn: then they are removed. */
export async function readNotes(directory: string, name: string): Promise<ChangeMap | undefined> {
  try {
    const map = parseChangeMap(await readFile(join(directory, name)));
    if (mapSegment(map) === name && map.segmentCount === 1) return map;
  } catch (error) {
    if (systemErrorCode(error) === "ENOENT") return undefined;
    if (!(error instanceof FormatError)) throw error;
  }
  await removeNotes(directory, name);
  return undefined;
}

export async function removeNotes(directory: string, name: string): Promise<void> {
  await rm(join(directory, name), { force: true });
}

async function writeNotes(directory: string, map: ChangeMap): Promise<void> {
  const path = join(directory, mapSegment(map));
  await mkdir(directory, { recursive: true, mode: 0o700 });
  // One name a segment: the next push of it writes over what a killed one left.
  await writeFile(`${path}${TEMPORARY}`, formatChangeMap(map), { mode: 0o600 });
  await rename(`${path}${TEMPORARY}`, path);
}

async function removeOldest(directory: string, names: readonly string[]): Promise<void> {
  for (const name of names.slice(0, Math.max(names.length - NOTES_MAX, 0))) {
    await removeNotes(directory, name);
  }
}
