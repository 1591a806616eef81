import { lstat, mkdir, readdir, readlink, rm, symlink } from "node:fs/promises";
import { dirname, join, resolve } from "node:path";
import { RefusedError } from "../errors.ts";
import { bytesSource } from "../io/bytes.ts";
import { localFileError } from "../io/system-error.ts";
import type { TablespaceSpec } from "../layout/tablespace-spec.ts";
import type { PgControl } from "../postgres/pg-control.ts";
import type { SpecialFile } from "./part-extract.ts";
import type { RestoreMarker } from "./restore-marker.ts";
import { isSpecialPath, LABEL_PATH, TABLESPACE_MAP_PATH } from "./restore-plan.ts";
import type { RestoreTree } from "./restore-tree.ts";
import { planTablespaces, rewriteTablespaceMap, type TablespacePlan } from "./tablespace-plan.ts";

/** Directories in which a file that the cluster does not have must not stay. */
const DATA_DIRECTORIES = ["base", "global", "pg_multixact", "pg_tblspc", "pg_twophase", "pg_xact"];

/** Throws RefusedError when a server may use the directory, or its last one was not shut down. */
export async function requireStopped(place: string, control: PgControl): Promise<void> {
  const names = await readdir(place).catch((error: unknown) => {
    throw localFileError("list", place, error);
  });
  if (names.includes("postmaster.pid")) {
    throw new RefusedError(`a server may use ${place}: it holds postmaster.pid`, {
      hint: "Stop the standby first. Nothing was changed.",
    });
  }
  if (control.state === "shut down in recovery" || control.state === "shut down") return;
  throw new RefusedError(`${place} was not shut down cleanly: it is ${control.state}`, {
    hint: "Start the standby and stop it, or restore it by backup-fetch. Nothing was changed.",
  });
}

/**
 * Tablespaces stay where the standby has them; new ones, `added`, come where the primary has them.
 * `found` is the marker of a run that was killed.
 */
export async function planLinks(
  place: string,
  spec: TablespaceSpec | undefined,
  found: RestoreMarker | undefined,
): Promise<{ readonly all: readonly TablespacePlan[]; readonly added: readonly TablespacePlan[] }> {
  const mappings = [];
  for (const { name, link } of spec?.tablespaces ?? []) {
    const to = await readlink(join(place, link)).catch(() => undefined);
    if (to !== undefined) mappings.push({ from: name, to: resolve(place, "pg_tblspc", to) });
  }
  const all = planTablespaces(spec, place, { mappings });
  const old = new Set(mappings.map(({ from }) => from));
  const isAdded = ({ oid, location }: TablespacePlan): boolean =>
    !old.has(oid) || found?.locations.includes(location) === true;
  return { all, added: all.filter(isAdded) };
}

/**
 * Removes what the cluster does not have: files of relations that were dropped, and segments behind
 * the end of one that was cut. `known` has the paths that it has. Gives the number of files.
 */
export async function removeSurplus(
  tree: RestoreTree,
  known: { has(path: string): boolean },
  tablespaceDirectories: ReadonlySet<string>,
): Promise<number> {
  // A tablespace's location may hold directories of other releases, which are other clusters'.
  const isOther = (path: string): boolean => {
    const isRelease = path.startsWith("pg_tblspc/") && path.split("/").length === 3;
    return isRelease && !tablespaceDirectories.has(path);
  };
  let count = 0;
  const weed = async (path: string): Promise<void> => {
    const directory = tree.locate(path);
    const entries = await readdir(directory, { withFileTypes: true }).catch(() => []);
    for (const entry of entries) {
      const below = `${path}/${entry.name}`;
      if (isOther(below)) continue;
      if (entry.isDirectory() || (path === "pg_tblspc" && entry.isSymbolicLink())) {
        await weed(below);
      } else if (entry.isFile() && !known.has(below) && !isSpecialPath(below)) {
        if (below.startsWith("global/pg_control")) continue;
        await rm(join(directory, entry.name));
        count += 1;
      }
    }
  };
  for (const directory of DATA_DIRECTORIES) await weed(directory);
  return count;
}

/** Links of tablespaces that are new. */
export async function makeTablespaceLinks({ destination, tablespaces }: RestoreTree) {
  for (const { link, location } of tablespaces) {
    const path = join(destination, link);
    const stats = await lstat(path).catch(() => undefined);
    if (stats !== undefined) continue;
    await mkdir(location, { recursive: true, mode: 0o700 });
    await mkdir(dirname(path), { recursive: true, mode: 0o700 });
    await symlink(location, path);
  }
}

/** backup_label, and tablespace_map with the places where the tablespaces are here. */
export async function putLabels(
  tree: RestoreTree,
  label: SpecialFile,
  map: SpecialFile | undefined,
): Promise<void> {
  await putFile(tree, LABEL_PATH, label);
  if (map === undefined) return;
  const text = rewriteTablespaceMap(map.bytes.toString(), tree.tablespaces);
  await putFile(tree, TABLESPACE_MAP_PATH, { ...map, bytes: Buffer.from(text) });
}

async function putFile(tree: RestoreTree, path: string, file: SpecialFile): Promise<void> {
  await tree.writeFile(path, file.mode, { content: bytesSource(file.bytes).open() }, () => {});
}
