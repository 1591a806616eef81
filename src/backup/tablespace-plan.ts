import { posix } from "node:path";
import { DamagedError, FormatError, RefusedError, UsageError } from "../errors.ts";
import { parseJson } from "../layout/json.ts";
import { parseTablespaceSpec, type TablespaceSpec } from "../layout/tablespace-spec.ts";

/** Where the files of one tablespace go. */
export interface TablespacePlan {
  /** Its oid as text. */
  readonly oid: string;
  /** The link in the destination: "pg_tblspc/16385". */
  readonly link: string;
  /** Where the tablespace was when the backup was made. */
  readonly recordedLocation: string;
  /** Absolute: where it will be. */
  readonly location: string;
}

/** `--tablespace-mapping OLD=NEW`. */
export interface TablespaceMapping {
  /** Recorded location, or oid. */
  readonly from: string;
  /** Absolute. */
  readonly to: string;
}

export interface TablespaceChoices {
  readonly mappings: readonly TablespaceMapping[];
  /** The content of a --restore-spec file: goes before the recorded locations. */
  readonly spec?: TablespaceSpec | undefined;
}

/** Reads `OLD=NEW`; "\=" is an equals sign in a path, as for pg_basebackup. Throws UsageError. */
export function parseTablespaceMapping(text: string): TablespaceMapping {
  const match = /^((?:[^\\=]|\\.)+)=((?:[^\\=]|\\.)+)$/s.exec(text);
  const [from = "", to = ""] = (match?.slice(1) ?? []).map((side) => side.replaceAll("\\=", "="));
  if (from === "" || !posix.isAbsolute(to)) {
    throw new UsageError(`tablespace mapping ${JSON.stringify(text)} is not OLD=NEW`, {
      hint: "OLD is the recorded location or the oid of a tablespace, NEW an absolute path.",
    });
  }
  return { from: trimmed(from), to: trimmed(to) };
}

/** Reads a --restore-spec file: the JSON of a sentinel's `Spec`. Throws RefusedError. */
export function parseRestoreSpec(path: string, text: string): TablespaceSpec {
  try {
    return parseTablespaceSpec(parseJson(text));
  } catch (error) {
    if (!(error instanceof FormatError)) throw error;
    throw new RefusedError(`restore spec ${path} can't be read: ${error.message}`, {
      hint: "It holds the Spec member of a sentinel, with the locations changed.",
      cause: error,
    });
  }
}

/**
 * Decides where each tablespace goes. Links are always made below the destination, wherever the
 * recorded data directory was. Throws RefusedError for choices that fit no tablespace, locations
 * that are not absolute, and locations within each other or the destination.
 */
export function planTablespaces(
  recorded: TablespaceSpec | undefined,
  destination: string,
  { mappings, spec }: TablespaceChoices,
): readonly TablespacePlan[] {
  const unused = new Set(mappings);
  const old = new Map((recorded?.tablespaces ?? []).map(({ link, location }) => [link, location]));
  const plans = ((spec ?? recorded)?.tablespaces ?? []).map(({ link, location }) => {
    const oid = oidOf(link);
    const recordedLocation = trimmed(old.get(link) ?? location);
    const mapping = mappings.find(({ from }) => from === oid || from === recordedLocation);
    if (mapping !== undefined) unused.delete(mapping);
    return { oid, link, recordedLocation, location: mapping?.to ?? trimmed(location) };
  });
  for (const { from } of unused) throw unknownTablespace(from, plans);
  for (const link of old.keys()) {
    if (plans.some((plan) => plan.link === link)) continue;
    throw new RefusedError(`restore spec names no location for tablespace ${link}`, {
      hint: `The backup has it at ${old.get(link) ?? ""}; every tablespace needs a location.`,
    });
  }
  requireApart(plans, destination);
  return plans;
}

function oidOf(link: string): string {
  const match = /^\/?pg_tblspc\/([1-9]\d{0,9})$/.exec(link);
  if (match?.[1] !== undefined) return match[1];
  throw new DamagedError(`tablespace spec has the link ${JSON.stringify(link)}`, {
    hint: "A link is pg_tblspc/ and the tablespace's oid; --restore-spec can give right ones.",
  });
}

function trimmed(path: string): string {
  return path === "/" ? path : path.replace(/\/+$/, "");
}

function unknownTablespace(from: string, plans: readonly TablespacePlan[]): RefusedError {
  const known = plans.map(({ oid, recordedLocation }) => `${oid} at ${recordedLocation}`);
  return new RefusedError(`no tablespace of the backup is ${from}`, {
    hint: known.length === 0 ? "It has none." : `It has ${known.join(", ")}.`,
  });
}

function requireApart(plans: readonly TablespacePlan[], destination: string): void {
  const seen = new Map([[destination, "the data directory"]]);
  for (const { oid, location } of plans) {
    const what = `tablespace ${oid}`;
    if (!posix.isAbsolute(location) || posix.normalize(location) !== location || location === "/") {
      throw new RefusedError(`location ${location} of ${what} is not a plain absolute path`, {
        hint: mappingHint(oid),
      });
    }
    for (const [other, otherWhat] of seen) {
      if (!isWithin(location, other) && !isWithin(other, location)) continue;
      throw new RefusedError(`${location} of ${what} and ${other} of ${otherWhat} overlap`, {
        hint: mappingHint(oid),
      });
    }
    seen.set(location, what);
  }
}

/** How to put a tablespace elsewhere. */
export function mappingHint(oid: string): string {
  return `Give another place: --tablespace-mapping ${oid}=/path/to/an/empty/directory.`;
}

function isWithin(path: string, directory: string): boolean {
  return path === directory || path.startsWith(`${directory}/`);
}

/**
 * The tablespace_map to leave in the destination: recovery makes the links anew from it, so it must
 * name the places where the tablespaces are now, never those of the server that was backed up.
 * Throws DamagedError if it names a tablespace that the backup's sentinel does not.
 *
 * @source read_tablespace_map, src/backend/access/transam/xlogrecovery.c
 */
export function rewriteTablespaceMap(text: string, plans: readonly TablespacePlan[]): string {
  if (text === "") return "";
  const lines = text.split(/(?<=(?:^|[^\\])(?:\\\\)*)\n/).filter((line) => line !== "");
  const rewritten = lines.map((line) => {
    const match = /^([1-9]\d{0,9}) (.+)$/s.exec(line);
    const plan = plans.find(({ oid }) => oid === match?.[1]);
    if (match !== null && plan !== undefined) return `${plan.oid} ${escapeMapPath(plan.location)}`;
    throw new DamagedError(
      `tablespace_map has the line ${JSON.stringify(line)}, the sentinel no such tablespace`,
      { hint: "Name the tablespaces by --restore-spec; tablespace_map is left out then." },
    );
  });
  return `${rewritten.join("\n")}\n`;
}

/** @source do_pg_backup_start, src/backend/access/transam/xlog.c: newlines and backslashes */
function escapeMapPath(path: string): string {
  return path.replace(/[\n\r\\]/g, "\\$&");
}
