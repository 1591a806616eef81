import { execFileSync } from "node:child_process";
import { readdirSync, readFileSync, writeFileSync } from "node:fs";
import { join } from "node:path";

const DROP_CACHES = "/proc/sys/vm/drop_caches";

/**
 * Lets the disk finish and, for root, empties the page cache, so that nobody pays for what the one
 * before wrote; then reads the files of `warm`, which are to be there as if just written.
 */
export function settle(warm?: string): void {
  execFileSync("sync");
  if (process.getuid?.() === 0) writeFileSync(DROP_CACHES, "3\n");
  if (warm === undefined) return;
  for (const entry of readdirSync(warm, { withFileTypes: true })) {
    if (entry.isFile()) readFileSync(join(warm, entry.name));
  }
}
