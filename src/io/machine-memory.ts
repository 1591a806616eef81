import { readFile } from "node:fs/promises";
import { totalmem } from "node:os";
import { join } from "node:path";

const CGROUPS = "/sys/fs/cgroup";
const UNIFIED = /^0::(\/.*)$/m;

/** Memory of this machine, or what its control group (a container, a systemd unit) may have of it. */
export async function machineMemoryBytes(): Promise<number> {
  const group = UNIFIED.exec(await textOf("/proc/self/cgroup"))?.[1];
  const limits = await Promise.all([
    ...(group === undefined ? [] : [textOf(join(CGROUPS, group, "memory.max"))]),
    textOf(join(CGROUPS, "memory.max")),
    textOf(join(CGROUPS, "memory", "memory.limit_in_bytes")),
  ]);
  return leastLimit(totalmem(), limits);
}

/** What is no number, "max" or nothing, is no limit. */
export function leastLimit(totalBytes: number, limits: readonly string[]): number {
  const numbers = limits.filter((text) => /^\d+\s*$/.test(text)).map(Number);
  return Math.min(totalBytes, ...numbers);
}

async function textOf(path: string): Promise<string> {
  return await readFile(path, "utf8").catch(() => "");
}
