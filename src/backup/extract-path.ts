import { posix } from "node:path";
import { FormatError } from "../errors.ts";
import { RESTORE_MARKER_PATH, TABLESPACE_MARKER_NAME } from "./restore-marker.ts";

/** A name as backups have it, with which nothing is wrong but, perhaps, whose it is. */
const USUAL_NAME = /^\/?[^/.\0][^/\0]*(?:\/[^/.\0][^/\0]*)*$/;

/**
 * Path below the data directory that a tar entry is for: "base/5/1259", or "" for the directory
 * itself. Slashes at the beginning are harmless and taken off, as PostgreSQL backups of WAL-G have
 * them. Throws FormatError for every name that could lead elsewhere.
 */
export function parseEntryName(name: string): string {
  const path = USUAL_NAME.test(name) ? name.slice(name.startsWith("/") ? 1 : 0) : cleanPath(name);
  if (path === RESTORE_MARKER_PATH) throw new FormatError("its name is that of our own marker");
  return path;
}

function cleanPath(name: string): string {
  if (name === "") throw new FormatError("it has an empty name");
  if (name.includes("\0")) throw new FormatError("its name holds a NUL");
  const components = name.split("/").filter((component) => component !== "" && component !== ".");
  if (components.includes("..")) throw new FormatError('its name holds ".."');
  return components.join("/");
}

/** Whether the file is the marker that a killed restore left in a tablespace: never restored. */
export function isTablespaceMarker(path: string): boolean {
  return /^pg_tblspc\/[^/]+\/[^/]+$/.test(path) && posix.basename(path) === TABLESPACE_MARKER_NAME;
}

/**
 * What to do with a symbolic link in a backup: make it; or leave it out because WAL-G stores a
 * link's own name where its target should be, so that nobody knows where it led.
 *
 * `listedTarget` is what our manifest says about this link. With it the link may lead anywhere: it
 * is the database administrator's own. Without it, only to a place below the data directory; throws
 * FormatError otherwise.
 */
export function judgeLink(
  path: string,
  target: string,
  listedTarget: string | undefined,
): "make" | "useless" {
  if (target === "") throw new FormatError("it is a symbolic link without target");
  if (target.includes("\0")) throw new FormatError("the target of the symbolic link holds a NUL");
  if (listedTarget !== undefined) {
    if (listedTarget === target) return "make";
    throw new FormatError(`it is a symbolic link to ${target}, the manifest says ${listedTarget}`);
  }
  if (target === posix.basename(path)) return "useless";
  const resolved = posix.normalize(posix.join(posix.dirname(path), target));
  if (posix.isAbsolute(target) || resolved === ".." || resolved.startsWith("../")) {
    throw new FormatError(`it is a symbolic link that leaves the data directory: ${target}`);
  }
  return "make";
}

/** The first of `paths` that lies at or below one of `links`; undefined if none does. */
export function findPathThroughLink(
  paths: Iterable<string>,
  links: ReadonlySet<string>,
): string | undefined {
  for (const path of paths) {
    for (let at = path.indexOf("/"); at !== -1; at = path.indexOf("/", at + 1)) {
      if (links.has(path.slice(0, at))) return path;
    }
  }
  return undefined;
}
