import { chownSync, mkdirSync, statSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import type { BenchCluster } from "./bench-cluster.ts";
import { measure, type ProcessOptions } from "./process.ts";

/** One tool's repository and how to call it, set up for zstd level 1 and two workers. */
export interface Peer {
  readonly words: readonly string[];
  readonly options: ProcessOptions;
  readonly repository: string;
  /** For postgresql.conf. */
  readonly archiveCommand: string;
}

function ownedDirectory(cluster: BenchCluster, name: string): string {
  const path = join(cluster.home, name);
  mkdirSync(path, { recursive: true });
  const { uid, gid } = statSync(cluster.dataDirectory);
  chownSync(path, uid, gid);
  return path;
}

export function walnutPeer(cluster: BenchCluster, binary: string, name = "walnut"): Peer {
  const repository = ownedDirectory(cluster, name);
  const config = join(cluster.home, `${name}.json`);
  const settings = {
    WALG_FILE_PREFIX: repository,
    WALG_COMPRESSION_METHOD: "zstd",
    WALG_ZSTD_LEVEL: "1",
    WALNUT_CODEC_JOBS: "2",
    WALNUT_CACHE_DIR: ownedDirectory(cluster, `${name}-cache`),
    PGHOST: cluster.home,
    PGPORT: cluster.port,
    PGUSER: cluster.user,
    PGDATABASE: "postgres",
  };
  writeFileSync(config, JSON.stringify(settings));
  const words = [binary, "--config", config];
  return {
    words,
    repository,
    options: { cwd: cluster.dataDirectory, user: cluster.user },
    archiveCommand: `${words.join(" ")} wal-push %p`,
  };
}

export async function pgBackRestPeer(cluster: BenchCluster): Promise<Peer> {
  const repository = ownedDirectory(cluster, "pgbackrest");
  const config = join(cluster.home, "pgbackrest.conf");
  writeFileSync(
    config,
    [
      "[global]",
      `repo1-path=${repository}`,
      `log-path=${ownedDirectory(cluster, "pgbackrest-log")}`,
      `spool-path=${ownedDirectory(cluster, "pgbackrest-spool")}`,
      `lock-path=${ownedDirectory(cluster, "pgbackrest-lock")}`,
      "compress-type=zst",
      "compress-level=1",
      "process-max=2",
      "start-fast=y",
      "log-level-console=off",
      "log-level-file=off",
      "repo1-retention-full=99",
      "[main]",
      `pg1-path=${cluster.dataDirectory}`,
      `pg1-port=${cluster.port}`,
      `pg1-socket-path=${cluster.home}`,
      "",
    ].join("\n"),
  );
  const words = ["pgbackrest", `--config=${config}`, "--stanza=main"];
  const options = { cwd: cluster.dataDirectory, user: cluster.user };
  await measure([...words, "stanza-create"], options);
  return { words, options, repository, archiveCommand: `${words.join(" ")} archive-push %p` };
}

/** The same repository and settings, with two processes that push ahead. */
export async function pgBackRestAsyncPeer(cluster: BenchCluster): Promise<Peer> {
  const peer = await pgBackRestPeer(cluster);
  const archiveCommand = `${peer.words.join(" ")} --archive-async archive-push %p`;
  return { ...peer, archiveCommand };
}
