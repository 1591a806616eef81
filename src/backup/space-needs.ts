import type { SpaceNeed } from "./free-space.ts";
import type { RestorePlan } from "./restore-plan.ts";
import type { RestoreTree } from "./restore-tree.ts";

/**
 * What a restore is going to write, by directory: exact with our manifest; without it the whole
 * size, if that is known and goes to one place.
 */
export function spaceNeeds(
  { steps, sizeBytes }: RestorePlan,
  { destination, tablespaces }: RestoreTree,
  kept: ReadonlySet<string>,
): readonly SpaceNeed[] {
  const newest = steps.at(-1);
  const manifest = newest?.manifest;
  if (newest === undefined || manifest === undefined) {
    const isKnown = sizeBytes !== undefined && tablespaces.length === 0;
    return isKnown ? [{ directory: destination, sizeBytes }] : [];
  }
  const needs = new Map<string, number>([[destination, 0]]);
  const sizes = [
    ...[...manifest.files].map(([path, file]) => [path, file.fullBytes ?? file.sizeBytes] as const),
    ...[...manifest.unchanged].map(([path, file]) => [path, file.sizeBytes] as const),
  ];
  for (const [path, fileBytes] of sizes) {
    if (kept.has(path) || !newest.isWanted(path)) continue;
    const [, oid] = /^pg_tblspc\/([^/]+)\//.exec(path) ?? [];
    const location = tablespaces.find((tablespace) => tablespace.oid === oid)?.location;
    const directory = location ?? destination;
    needs.set(directory, (needs.get(directory) ?? 0) + fileBytes);
  }
  return [...needs].map(([directory, sizeBytes]) => ({ directory, sizeBytes }));
}
