/** What both ways to catch a standby up do with its directory. */
import { readFile, realpath } from "node:fs/promises";
import { RefusedError, systemErrorCode } from "../errors.ts";
import type { Log } from "../io/log.ts";
import { localFileError } from "../io/system-error.ts";
import { BackgroundFlush } from "./background-flush.ts";
import { makeTablespaceLinks, putLabels } from "./catch-up-tree.ts";
import type { SpecialFile } from "./part-extract.ts";
import { removeLocationMarker, removeStaleMarker, takeDestination } from "./restore-destination.ts";
import { removeControlFile } from "./restore-existing.ts";
import { fsyncTree, putControlFile, setDirectoryModes } from "./restore-finish.ts";
import type { RestoreMarker } from "./restore-marker.ts";
import { RestoreTree } from "./restore-tree.ts";
import type { TablespacePlan } from "./tablespace-plan.ts";

export interface CatchUpOptions {
  readonly fsync: boolean;
  readonly log: Log;
  readonly signal: AbortSignal;
  /** Content that arrived. */
  readonly onProgress: (doneBytes: number) => void;
}

export interface CatchUpCounts {
  /** What of the content that came differed from what was there. */
  readonly changedBytes: number;
  /** Files that the cluster does not have any more. */
  readonly removedCount: number;
}

/** Where the tablespaces are. */
export interface CatchUpLinks {
  readonly all: readonly TablespacePlan[];
  /** Those that the standby does not have yet. */
  readonly added: readonly TablespacePlan[];
}

/** With links resolved. */
export async function resolveStandby(destination: string): Promise<string> {
  return await realpath(destination).catch((error: unknown) => {
    if (systemErrorCode(error) === "ENOENT") {
      throw new RefusedError(`${destination} does not exist on this host`, {
        hint: "Give the data directory of the stopped standby that is to be caught up.",
      });
    }
    throw localFileError("look at", destination, error);
  });
}

export async function readOptional(path: string): Promise<Buffer | undefined> {
  try {
    return await readFile(path);
  } catch (error) {
    if (systemErrorCode(error) === "ENOENT") return undefined;
    throw localFileError("read", path, error);
  }
}

export function noStandby(place: string, command: string): RefusedError {
  return new RefusedError(`${place} is no data directory of a standby`, {
    hint: `${command} needs the directory that is to be caught up. Nothing was changed.`,
  });
}

/** From here on no server starts in the directory. `found` is the marker of a killed run. */
export async function takeStandby(
  place: string,
  name: string,
  added: readonly TablespacePlan[],
  options: { readonly signal: AbortSignal; readonly found: RestoreMarker | undefined },
): Promise<void> {
  if (options.found === undefined) await removeStaleMarker(place);
  await takeDestination(place, name, added, options);
  await removeControlFile(place);
}

/** A standby's directory while it is written on. */
export class CatchUpTree {
  readonly tree: RestoreTree;
  readonly #links: CatchUpLinks;
  readonly #flush: BackgroundFlush | undefined;
  readonly #signal: AbortSignal;

  constructor(
    place: string,
    links: CatchUpLinks,
    options: Pick<CatchUpOptions, "fsync" | "signal">,
  ) {
    this.#links = links;
    this.#signal = options.signal;
    this.#flush = options.fsync ? new BackgroundFlush(options.signal) : undefined;
    const { all } = links;
    this.tree = new RestoreTree(place, all, {
      flush: this.#flush,
      isCompared: true,
      isOnTop: true,
    });
  }

  /** Everything durable, pg_control last: a server can start on it then. */
  async finish(
    control: SpecialFile,
    labels: { readonly label: SpecialFile; readonly map: SpecialFile | undefined },
  ): Promise<void> {
    await makeTablespaceLinks(this.tree);
    await putLabels(this.tree, labels.label, labels.map);
    await setDirectoryModes(this.tree);
    await this.#flush?.drain();
    if (this.#flush !== undefined) await fsyncTree(this.tree, this.#signal);
    await putControlFile(this.tree.destination, control, this.#signal);
    for (const { location } of this.#links.added) await removeLocationMarker(location);
  }
}
