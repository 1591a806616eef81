import { join } from "node:path";
import { DamagedError, FormatError } from "../errors.ts";
import { counted, readAll } from "../io/bytes.ts";
import { parsePgControl } from "../postgres/pg-control.ts";
import type { CatchUpLink } from "./catch-up-link.ts";
import {
  type CatchUpEntry,
  type CatchUpStart,
  type CatchUpSummary,
  formatSummary,
  isControlEntry,
  parseStart,
  parseSummary,
  requireSameSummary,
} from "./catch-up-messages.ts";
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
import { CatchUpState, removeState } from "./catch-up-state.ts";
import { EntryReader } from "./catch-up-stream.ts";
import { planLinks, removeSurplus, requireStopped } from "./catch-up-tree.ts";
import { requireSpace } from "./free-space.ts";
import { BaseFiles } from "./known-files.ts";
import type { SpecialFile } from "./part-extract.ts";
import { inspectDestination, inspectLocations } from "./restore-destination.ts";
import { finishDestination } from "./restore-finish.ts";
import { CONTROL_PATH, RESTORE_MARKER_PATH, type RestoreMarker } from "./restore-marker.ts";
import { isSpecialPath, LABEL_PATH, TABLESPACE_MAP_PATH } from "./restore-plan.ts";
import type { RestoreTree } from "./restore-tree.ts";

export interface CatchUpReceived extends CatchUpCounts {
  readonly receivedBytes: number;
}

/** Stands in the marker in place of a backup's name. */
const MARKER_NAME = "catchup-receive";
/** pg_control and the labels are held in memory until the end; none is ever near this size. */
const MAX_SPECIAL_BYTES = 16 * 1024 * 1024;

/** A standby's directory before anything is changed in it. */
export interface CatchUpPlace {
  /** Links resolved. */
  readonly directory: string;
  /** What it was when it was last whole. */
  readonly control: Buffer;
  /** Of a run that was killed. */
  readonly found: RestoreMarker | undefined;
}

/**
 * Looks at the directory, before anybody is asked to connect; changes nothing, but for the last
 * step of a run that was killed right before it. Then it gives undefined: all is there. Throws
 * RefusedError for what is no directory of a stopped standby.
 */
export async function inspectCatchUpPlace(destination: string): Promise<CatchUpPlace | undefined> {
  const directory = await resolveStandby(destination);
  const control = await readOptional(join(directory, CONTROL_PATH));
  if (control !== undefined) {
    await requireStopped(directory, parsePgControl(control));
    return { directory, control, found: undefined };
  }
  const hasMarker = (await readOptional(join(directory, RESTORE_MARKER_PATH))) !== undefined;
  const state = hasMarker ? await inspectDestination(directory) : undefined;
  if (state?.kind === "finishing") {
    await finishDestination(directory);
    await removeState(directory);
    return undefined;
  }
  if (state?.kind === "ours" && state.marker.backup === MARKER_NAME) {
    const { control: before } = await CatchUpState.read(directory);
    return { directory, control: before, found: state.marker };
  }
  throw noStandby(directory, MARKER_NAME);
}

/**
 * Brings the directory up to the primary at the other end of the link. Until it resolves no server
 * can start on it; killed, it goes on when it is run again. See CATCHUP.md.
 */
export async function receiveCatchUp(
  link: CatchUpLink,
  place: CatchUpPlace,
  options: CatchUpOptions,
): Promise<CatchUpReceived> {
  try {
    const receiving = new Receiving(link, place, options);
    return await receiving.run();
  } catch (error) {
    await link.giveUp(error);
    throw error;
  }
}

class Receiving {
  readonly #link: CatchUpLink;
  readonly #place: CatchUpPlace;
  readonly #options: CatchUpOptions;
  readonly #specials = new Map<string, SpecialFile>();
  readonly #tablespaceDirectories = new Set<string>();
  #receivedBytes = 0;

  constructor(link: CatchUpLink, place: CatchUpPlace, options: CatchUpOptions) {
    this.#link = link;
    this.#place = place;
    this.#options = options;
  }

  async run(): Promise<CatchUpReceived> {
    const { directory, control, found } = this.#place;
    const { signal } = this.#options;
    const state =
      found === undefined
        ? await CatchUpState.write(directory, control, signal)
        : await CatchUpState.read(directory);
    await this.#link.send("position", control);
    for await (const lines of state.lines()) await this.#link.send("files", lines);
    await this.#link.send("files-end", new Uint8Array(0));

    const links = await this.#prepare(parseStart(await this.#link.expect("start")));
    const place = new CatchUpTree(directory, links, this.#options);
    const { tree } = place;
    const { summary, removedCount } = await this.#receive(tree);
    const labels = { label: this.#special(LABEL_PATH), map: this.#special(TABLESPACE_MAP_PATH) };
    await place.finish(this.#special(CONTROL_PATH), labels);
    await removeState(directory);
    await this.#link.send("done", formatSummary(summary));
    const { changedBytes } = tree;
    return { receivedBytes: this.#receivedBytes, changedBytes, removedCount };
  }

  /** From here on no server starts in the directory. */
  async #prepare(start: CatchUpStart): Promise<CatchUpLinks> {
    const { directory, found } = this.#place;
    const { signal } = this.#options;
    const tablespaces = start.tablespaces.map(({ oid, location }) => {
      return { name: oid, location, link: `pg_tblspc/${oid}` };
    });
    const links = await planLinks(directory, { basePrefix: "", tablespaces }, found);
    await inspectLocations(links.added, found);
    await requireSpace([
      { directory, sizeBytes: start.growthBytes },
      ...links.all.map(({ oid, location }) => {
        const growth = start.tablespaces.find((one) => one.oid === oid)?.growthBytes ?? 0;
        return { directory: location, sizeBytes: growth };
      }),
    ]);
    await takeStandby(directory, MARKER_NAME, links.added, { signal, found });
    return links;
  }

  async #receive(
    tree: RestoreTree,
  ): Promise<{ readonly summary: CatchUpSummary; readonly removedCount: number }> {
    const reader = await EntryReader.create(this.#link);
    // In 50 bytes a file: there may be millions.
    const known = await BaseFiles.create("xxh64");
    for (;;) {
      const next = await reader.next();
      if ("type" in next) {
        const summary = reader.finish();
        requireSameSummary(summary, parseSummary(next.payload));
        const paths = { has: (path: string) => known.knows(path) };
        const removedCount = await removeSurplus(tree, paths, this.#tablespaceDirectories);
        return { summary, removedCount };
      }
      this.#options.signal.throwIfAborted();
      known.add(next.path, { sizeBytes: 0 });
      await this.#take(next, reader, tree);
    }
  }

  async #take(entry: CatchUpEntry, reader: EntryReader, tree: RestoreTree): Promise<void> {
    const { path, kind } = entry;
    this.#tablespaceDirectories.add(tablespaceDirectoryOf(path));
    if (kind === "same") return;
    if (kind === "directory") {
      tree.addDirectory(path, entry.mode);
      return;
    }
    const { mode, sizeBytes } = entry;
    if (isSpecialPath(path) || isControlEntry(entry)) {
      if (sizeBytes > MAX_SPECIAL_BYTES) throw new FormatError(`${path} has ${sizeBytes} bytes`);
      this.#specials.set(path, { bytes: await readAll(reader.data()), mode });
      return;
    }
    const content = counted(reader.data(), (count) => {
      this.#receivedBytes += count;
      this.#options.onProgress(this.#receivedBytes);
    });
    if (kind === "file") await tree.writeFile(path, mode, { content }, () => {});
    else await tree.addPages(path, mode, { content, sizeBytes }, undefined);
  }

  #special(path: string): SpecialFile {
    const special = this.#specials.get(path);
    if (special !== undefined) return special;
    throw new DamagedError(`the other end has not sent ${path}`);
  }
}

/** "pg_tblspc/16384/PG_17_202406281" of a path in it, or "". */
function tablespaceDirectoryOf(path: string): string {
  return path.startsWith("pg_tblspc/") ? path.split("/").slice(0, 3).join("/") : "";
}
