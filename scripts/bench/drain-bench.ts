import { spawn } from "node:child_process";
import { once } from "node:events";
import { existsSync, mkdirSync, readdirSync, readFileSync, rmSync } from "node:fs";
import { join } from "node:path";
import type { BenchCluster } from "./bench-cluster.ts";
import { compare, formatTable } from "./figures.ts";
import { type Peer, pgBackRestAsyncPeer, pgBackRestPeer, setupLines, walnutPeer } from "./peers.ts";
import { endProcesses, type Measurement } from "./process.ts";
import { settle } from "./settle.ts";
import { LATENCY_MS, type SlowStore } from "./slow-store.ts";

const TIMEOUT_MS = 600_000;
/** Each look reads the whole directory: seldom enough to cost nobody's time. */
const POLL_MS = 100;

/**
 * PostgreSQL's archiver with a backlog: from the moment that it may go on until all is archived.
 */
export async function drainTable(
  cluster: BenchCluster,
  binary: string,
  options: {
    readonly rounds: number;
    readonly segmentCount: number;
    /** Instead of a directory. */
    readonly store?: SlowStore;
  },
): Promise<string> {
  const { rounds, segmentCount, store } = options;
  const name = store === undefined ? "walnut-drain" : "walnut-drain-s3";
  const walnut = walnutPeer(cluster, binary, { name, ...(store === undefined ? {} : { store }) });
  const command = setupLines(cluster, walnut, cluster.dataDirectory).archiveCommand;
  const pgBackRest = await pgBackRestAsyncPeer(cluster, store);
  const pgBackRestSync = await pgBackRestPeer(cluster, store);

  const prepare = async () => {
    // Those that push ahead go on for minutes after the last call: beside the next contender,
    // and into the next round of their own.
    cluster.setArchiveCommand("false");
    await endProcesses(["wal-drain", cluster.dataDirectory]);
    prepareBacklog(cluster, segmentCount);
  };
  const rows = await compare(
    [
      {
        name: "walnut, setup's line",
        prepare,
        run: () => drained(cluster, command),
      },
      {
        name: "pgBackRest archive-async",
        prepare,
        run: () => drained(cluster, pgBackRest.archiveCommand),
      },
      {
        name: "pgBackRest archive-push",
        prepare,
        run: () => drained(cluster, pgBackRestSync.archiveCommand),
      },
      {
        name: "two zstd -1 -T1 and sync, no PostgreSQL",
        prepare,
        run: () => plainLimit(cluster, walnut),
      },
    ],
    rounds,
  );
  const where = store === undefined ? "a directory" : `S3, ${LATENCY_MS} ms away`;
  return formatTable(`Drain of ${segmentCount} ready segments to ${where} (zstd 1), each`, rows);
}

function statusDirectory({ dataDirectory }: BenchCluster): string {
  return join(dataDirectory, "pg_wal", "archive_status");
}

function readySegments(cluster: BenchCluster): string[] {
  return readdirSync(statusDirectory(cluster))
    .filter((name) => /^[0-9A-F]{24}\.ready$/.test(name))
    .map((name) => name.slice(0, 24));
}

/** Full page images of pgbench's tables, nothing of it archived. */
function prepareBacklog(cluster: BenchCluster, segmentCount: number): void {
  while (readySegments(cluster).length < segmentCount) {
    cluster.sql("checkpoint");
    cluster.sql("update pgbench_accounts set abalance = abalance + 1 where aid % 15 = 0");
  }
  cluster.sql("select pg_switch_wal()");
  cluster.sql("checkpoint");
  settle(join(cluster.dataDirectory, "pg_wal"));
}

async function drained(cluster: BenchCluster, command: string): Promise<Measurement> {
  const cpuBefore = cpuMs();
  const count = readySegments(cluster).length;
  const startedAt = performance.now();
  cluster.setArchiveCommand(command);
  while (readySegments(cluster).length > 0) {
    if (performance.now() - startedAt > TIMEOUT_MS) throw new Error("the drain takes too long");
    await new Promise((resolve) => setTimeout(resolve, POLL_MS));
  }
  const wallMs = (performance.now() - startedAt) / count;
  // The whole machine's: the archiver's children are nobody's that we could ask.
  return { wallMs, cpuMs: (cpuMs() - cpuBefore) / count, peakMiB: Number.NaN };
}

async function plainLimit(cluster: BenchCluster, { repository }: Peer): Promise<Measurement> {
  const out = join(repository, "plain");
  mkdirSync(out, { recursive: true });
  const names = readySegments(cluster);
  const script = names
    .map((name) => join(cluster.dataDirectory, "pg_wal", name))
    .filter((path) => existsSync(path));
  const cpuBefore = cpuMs();
  const startedAt = performance.now();
  const child = spawn(
    "xargs",
    [
      "-P2",
      "-I{}",
      "sh",
      "-c",
      `f=${out}/$(basename {}).zst; zstd -1 -q -T1 -f -o $f {} && sync $f`,
    ],
    { stdio: ["pipe", "inherit", "inherit"] },
  );
  child.stdin.end(script.join("\n"));
  await once(child, "close");
  const wallMs = (performance.now() - startedAt) / names.length;
  rmSync(out, { recursive: true, force: true });
  return { wallMs, cpuMs: (cpuMs() - cpuBefore) / names.length, peakMiB: Number.NaN };
}

/** Time that all processes of the machine have used, in ticks of 10 ms. */
function cpuMs(): number {
  const [line = ""] = readFileSync("/proc/stat", "utf8").split("\n");
  const [user = 0, nice = 0, system = 0, , , irq = 0, softIrq = 0] = line
    .trim()
    .split(/\s+/)
    .slice(1)
    .map(Number);
  return (user + nice + system + irq + softIrq) * 10;
}
