const MIB = 1024 * 1024;

/**
 * What a part that is read holds of it: a chunk as it is stored, three frames and their contents
 * (codec/zstd.ts), and what the collector has not seen yet.
 */
const PART_BYTES = 16 * MIB;
/** What tables and parts may take together beside the runtime itself, for 256 MiB in all. */
const BUDGET_BYTES = 160 * MIB;
/** In the tables of a chain: a path, its lines in two manifests, sets and slots. */
const PATH_BYTES = 130;
const MAX_PARTS = 6;
/** Fewer would wait for the store, and save little. */
const MIN_PARTS = 3;

/**
 * How many parts a restore may read at the same time, 3 to 6, so that its memory stays bounded
 * whatever is asked for. `pathCount` is that of all files of the chain: where there are many, it is
 * making them that takes the time.
 */
export function partsAtOnce(pathCount: number): number {
  const leftBytes = BUDGET_BYTES - PATH_BYTES * pathCount;
  return Math.min(Math.max(Math.floor(leftBytes / PART_BYTES), MIN_PARTS), MAX_PARTS);
}
