import type { SpaceNeed } from "./free-space.ts";
import type { Paths } from "./path-set.ts";
import type { RestorePlan } from "./restore-plan.ts";
import type { RestoreTree } from "./restore-tree.ts";

const TABLESPACE_FILE = /^pg_tblspc\/([^/]+)\//;

/**
 * What a restore is going to write, by directory: exact with our manifest; without it the whole
 * size, if that is known and goes to one place.
 */
export function spaceNeeds(
  { steps, sizeBytes }: RestorePlan,
  { destination, tablespaces }: RestoreTree,
  kept: Paths,
): readonly SpaceNeed[] {
  const newest = steps.at(-1);
  const manifest = newest?.manifest;
  if (newest === undefined || manifest === undefined) {
    const isKnown = sizeBytes !== undefined && tablespaces.length === 0;
    return isKnown ? [{ directory: destination, sizeBytes }] : [];
  }
  if (kept.size === 0 && tablespaces.length === 0 && sizeBytes !== undefined) {
    return [{ directory: destination, sizeBytes }];
  }
  const { table } = manifest.files;
  const needs = new Map<string, number>([[destination, 0]]);
  for (const files of [manifest.files, manifest.unchanged]) {
    for (const id of files.ids()) {
      const path = table.pathOf(id);
      if (kept.has(path) || !newest.isWanted(path)) continue;
      const [, oid] = TABLESPACE_FILE.exec(path) ?? [];
      const location = tablespaces.find((tablespace) => tablespace.oid === oid)?.location;
      const directory = location ?? destination;
      needs.set(directory, (needs.get(directory) ?? 0) + files.sizeOfId(id));
    }
  }
  return [...needs].map(([directory, sizeBytes]) => ({ directory, sizeBytes }));
}
