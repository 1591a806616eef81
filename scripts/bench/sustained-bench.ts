import { spawn } from "node:child_process";
import { once } from "node:events";
import { readdirSync, readFileSync, statSync } from "node:fs";
import { join } from "node:path";
import type { BenchCluster } from "./bench-cluster.ts";
import { walnutPeer } from "./peers.ts";

const SAMPLE_MS = 1000;
const PGBENCH = "/usr/lib/postgresql/15/bin/pgbench";

interface Sample {
  readonly readyCount: number;
  readonly daemonMiB: number;
}

/** pgbench at full speed, archived by the daemon: how far the archive lags, what that one holds. */
export async function sustainedTable(
  cluster: BenchCluster,
  binary: string,
  { minutes }: { readonly minutes: number },
): Promise<string> {
  const walnut = walnutPeer(cluster, binary, { name: "walnut-sustained" });
  // More WAL than the disk's fsync allows otherwise, and much of it full page images.
  cluster.sql("alter system set synchronous_commit = off");
  cluster.sql("alter system set checkpoint_timeout = '30s'");
  const socket = join(cluster.home, "walnut.sock");
  const [program = "", ...words] = walnut.words;
  const { uid, gid } = statSync(cluster.dataDirectory);
  const daemon = spawn(program, [...words, "daemon", socket], {
    cwd: cluster.home,
    env: { PATH: process.env["PATH"], HOME: cluster.home, PGDATA: cluster.dataDirectory },
    uid,
    gid,
    stdio: "ignore",
  });
  cluster.setArchiveCommand(`${program} client ${socket} wal-push %f`);
  const seconds = String(Math.round(minutes * 60));
  const loadWords = ["-n", "-T", seconds, "-c", "4", "-h", cluster.home, "-p", cluster.port];
  const load = spawn(PGBENCH, [...loadWords, "-U", cluster.user, "postgres"], { stdio: "ignore" });
  const ended = once(load, "exit").then(() => true);
  const samples: Sample[] = [];
  while (!(await Promise.race([ended, pause()]))) samples.push(sample(cluster, daemon.pid));
  daemon.kill();
  await once(daemon, "exit");
  const archivedCount = readdirSync(join(walnut.repository, "wal_005")).length;

  const third = Math.floor(samples.length / 3);
  const rows = [0, 1, 2].map((part) => {
    const of = samples.slice(part * third, (part + 1) * third);
    const ready = spread(of.map(({ readyCount }) => readyCount));
    return `| ${part + 1} | ${ready} | ${spread(of.map(({ daemonMiB }) => daemonMiB))} |`;
  });
  return [
    `### pgbench for ${minutes} minutes with archiving on through the daemon (zstd 1, a directory)`,
    "",
    `${archivedCount} segments were archived meanwhile. By thirds of the time, a sample each second.`,
    "",
    "| third | segments ready | memory of the daemon, MiB |",
    "| --- | --- | --- |",
    ...rows,
    "",
  ].join("\n");
}

async function pause(): Promise<boolean> {
  await new Promise((resolve) => setTimeout(resolve, SAMPLE_MS));
  return false;
}

function sample({ dataDirectory }: BenchCluster, daemonPid: number | undefined): Sample {
  const marks = readdirSync(join(dataDirectory, "pg_wal", "archive_status"));
  const readyCount = marks.filter((name) => name.endsWith(".ready")).length;
  const status = readFileSync(`/proc/${daemonPid}/status`, "utf8");
  return { readyCount, daemonMiB: Number(/^VmRSS:\s+(\d+) kB$/m.exec(status)?.[1]) / 1024 };
}

function spread(values: readonly number[]): string {
  const sorted = values.toSorted((one, other) => one - other);
  const at = (index: number) => (sorted[index] ?? Number.NaN).toFixed(0);
  return [0, Math.floor((sorted.length - 1) / 2), sorted.length - 1].map(at).join(" / ");
}
