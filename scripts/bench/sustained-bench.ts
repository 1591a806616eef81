import { spawn, spawnSync } from "node:child_process";
import { once } from "node:events";
import { readdirSync, readFileSync } from "node:fs";
import { join } from "node:path";
import type { BenchCluster } from "./bench-cluster.ts";
import { setupLines, walnutPeer } from "./peers.ts";

const SAMPLE_MS = 1000;
const PGBENCH = "/usr/lib/postgresql/15/bin/pgbench";

interface Sample {
  readonly readyCount: number;
  /** Undefined while no drainer runs. */
  readonly drainerMiB: number | undefined;
}

/** pgbench at full speed with archiving on: how far the archive lags, what the drainer holds. */
export async function sustainedTable(
  cluster: BenchCluster,
  binary: string,
  { minutes }: { readonly minutes: number },
): Promise<string> {
  const walnut = walnutPeer(cluster, binary, { name: "walnut-sustained" });
  // More WAL than the disk's fsync allows otherwise, and much of it full page images.
  cluster.sql("alter system set synchronous_commit = off");
  cluster.sql("alter system set checkpoint_timeout = '30s'");
  cluster.setArchiveCommand(setupLines(cluster, walnut, cluster.dataDirectory).archiveCommand);
  const seconds = String(Math.round(minutes * 60));
  const words = ["-n", "-T", seconds, "-c", "4", "-h", cluster.home, "-p", cluster.port];
  const load = spawn(PGBENCH, [...words, "-U", cluster.user, "postgres"], { stdio: "ignore" });
  const ended = once(load, "exit").then(() => true);
  const samples: Sample[] = [];
  while (!(await Promise.race([ended, pause()]))) samples.push(sample(cluster));
  const archivedCount = readdirSync(join(walnut.repository, "wal_005")).length;

  const third = Math.floor(samples.length / 3);
  const rows = [0, 1, 2].map((part) => {
    const of = samples.slice(part * third, (part + 1) * third);
    const memory = of.flatMap(({ drainerMiB }) => drainerMiB ?? []);
    return `| ${part + 1} | ${spread(of.map(({ readyCount }) => readyCount))} | ${spread(memory)} |`;
  });
  return [
    `### pgbench for ${minutes} minutes with archiving on (zstd 1, a directory)`,
    "",
    `${archivedCount} segments were archived meanwhile. By thirds of the time, a sample each second.`,
    "",
    "| third | segments ready | memory of the drainer, MiB |",
    "| --- | --- | --- |",
    ...rows,
    "",
  ].join("\n");
}

async function pause(): Promise<boolean> {
  await new Promise((resolve) => setTimeout(resolve, SAMPLE_MS));
  return false;
}

function sample({ dataDirectory }: BenchCluster): Sample {
  const marks = readdirSync(join(dataDirectory, "pg_wal", "archive_status"));
  const readyCount = marks.filter((name) => name.endsWith(".ready")).length;
  const { stdout } = spawnSync("pgrep", ["-f", `wal-drain ${dataDirectory}`], { encoding: "utf8" });
  const sizes = stdout.split("\n").filter(Boolean).map(residentMiB);
  return { readyCount, drainerMiB: sizes.length === 0 ? undefined : Math.max(...sizes) };
}

function residentMiB(pid: string): number {
  try {
    const status = readFileSync(`/proc/${pid}/status`, "utf8");
    return Number(/^VmRSS:\s+(\d+) kB$/m.exec(status)?.[1] ?? 0) / 1024;
  } catch {
    return 0;
  }
}

function spread(values: readonly number[]): string {
  if (values.length === 0) return "none ran";
  const sorted = values.toSorted((one, other) => one - other);
  const at = (index: number) => (sorted[index] ?? Number.NaN).toFixed(0);
  return [0, Math.floor((sorted.length - 1) / 2), sorted.length - 1].map(at).join(" / ");
}
