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
/** Of the machine's memory, for what was asked for. */
const MEMORY_SHARE = 1 / 4;

/** How many parts are wanted. */
export interface PartsWish {
  readonly count: number;
  /** Present: somebody asked for that many, on a machine with so much memory. */
  readonly memoryBytes?: number | undefined;
}

/**
 * How many parts a restore may read at the same time, so that its memory stays bounded: 3 to 6
 * unless more were asked for, then as many as a quarter of the machine's memory holds. `pathCount`
 * is that of all files of the chain: where there are many, it is making them that takes the time.
 */
export function partsAtOnce(pathCount: number, { count, memoryBytes }: PartsWish): number {
  const budgetBytes = Math.max(BUDGET_BYTES, (memoryBytes ?? 0) * MEMORY_SHARE);
  const fitting = Math.floor((budgetBytes - PATH_BYTES * pathCount) / PART_BYTES);
  const most = memoryBytes === undefined ? Math.min(fitting, MAX_PARTS) : fitting;
  return Math.min(count, Math.max(most, MIN_PARTS));
}
