import type { ManifestIndex } from "./backup-documents.ts";
import type { SpaceNeed } from "./free-space.ts";
import type { Paths } from "./path-set.ts";
import type { RestorePlan } from "./restore-plan.ts";
import type { RestoreTree } from "./restore-tree.ts";

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
  const needs = new Map<string, number>([[destination, 0]]);
  for (const [path, fileBytes] of fileSizes(manifest)) {
    if (kept.has(path) || !newest.isWanted(path)) continue;
    const [, oid] = /^pg_tblspc\/([^/]+)\//.exec(path) ?? [];
    const location = tablespaces.find((tablespace) => tablespace.oid === oid)?.location;
    const directory = location ?? destination;
    needs.set(directory, (needs.get(directory) ?? 0) + fileBytes);
  }
  return [...needs].map(([directory, sizeBytes]) => ({ directory, sizeBytes }));
}

function* fileSizes({
  files,
  unchanged,
}: ManifestIndex): Generator<readonly [path: string, sizeBytes: number], void, undefined> {
  for (const { path, sizeBytes } of files.brief()) yield [path, sizeBytes];
  for (const [path, { sizeBytes }] of unchanged) yield [path, sizeBytes];
}
