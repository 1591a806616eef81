import { execFileSync } from "node:child_process";
import { chownSync, mkdirSync, statSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import type { BenchCluster } from "./bench-cluster.ts";
import { measure, plainEnvironment, type ProcessOptions } from "./process.ts";
import type { SlowStore } from "./slow-store.ts";

/** One tool's repository and how to call it, set up for zstd level 1 and two workers. */
export interface Peer {
  readonly words: readonly string[];
  readonly options: ProcessOptions;
  readonly repository: string;
  /** For postgresql.conf. */
  readonly archiveCommand: string;
}

type Owner = Pick<BenchCluster, "home" | "dataDirectory">;

function ownedDirectory(cluster: Owner, name: string): string {
  const path = join(cluster.home, name);
  mkdirSync(path, { recursive: true });
  const { uid, gid } = statSync(cluster.dataDirectory);
  chownSync(path, uid, gid);
  return path;
}

export interface WalnutPeerOptions {
  readonly name?: string;
  readonly store?: SlowStore;
  /** More settings. */
  readonly more?: Readonly<Record<string, string>>;
}

/** Its repository is a directory of this name, or a prefix of that name in the store. */
export function walnutPeer(
  cluster: Owner & Pick<BenchCluster, "port" | "user">,
  binary: string,
  { name = "walnut", store, more = {} }: WalnutPeerOptions = {},
): Peer {
  const repository = ownedDirectory(cluster, name);
  const config = join(cluster.home, `${name}.json`);
  const place =
    store === undefined
      ? { WALG_FILE_PREFIX: repository }
      : {
          WALG_S3_PREFIX: `s3://${store.bucket}/${name}`,
          WALG_S3_CA_CERT_FILE: store.authorityFile,
          AWS_ENDPOINT: `https://127.0.0.1:${store.port}`,
          AWS_S3_FORCE_PATH_STYLE: "true",
          AWS_REGION: "us-east-1",
          AWS_ACCESS_KEY_ID: store.accessKeyId,
          AWS_SECRET_ACCESS_KEY: store.secretAccessKey,
        };
  const settings = {
    ...place,
    WALG_COMPRESSION_METHOD: "zstd",
    WALG_ZSTD_LEVEL: "1",
    WALNUT_CODEC_JOBS: "2",
    WALNUT_CACHE_DIR: ownedDirectory(cluster, `${name}-cache`),
    PGHOST: cluster.home,
    PGPORT: cluster.port,
    PGUSER: cluster.user,
    PGDATABASE: "postgres",
    ...more,
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

export async function pgBackRestPeer(cluster: BenchCluster, store?: SlowStore): Promise<Peer> {
  const repository = ownedDirectory(cluster, "pgbackrest");
  const config = join(cluster.home, store === undefined ? "pgbackrest.conf" : "pgbackrest-s3.conf");
  const place =
    store === undefined
      ? [`repo1-path=${repository}`]
      : [
          "repo1-type=s3",
          "repo1-path=/pgbackrest",
          "repo1-s3-endpoint=127.0.0.1",
          `repo1-storage-port=${store.port}`,
          // It looks for host names only, and 127.0.0.1 has none.
          "repo1-storage-verify-tls=n",
          `repo1-s3-bucket=${store.bucket}`,
          "repo1-s3-region=us-east-1",
          "repo1-s3-uri-style=path",
          `repo1-s3-key=${store.accessKeyId}`,
          `repo1-s3-key-secret=${store.secretAccessKey}`,
        ];
  writeFileSync(
    config,
    [
      "[global]",
      ...place,
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

/**
 * What `walnut setup` prints for a data directory, which belongs to the cluster's user or to us.
 */
export function setupLines(
  { user }: { readonly user: string | undefined },
  walnut: Peer,
  dataDirectory: string,
): { readonly archiveCommand: string; readonly restoreCommand: string } {
  const identity =
    user === undefined ? [] : ["setpriv", `--reuid=${user}`, `--regid=${user}`, "--clear-groups"];
  const [program, ...words] = [...identity, ...walnut.words, "setup", dataDirectory];
  const env = plainEnvironment(dataDirectory);
  const text = execFileSync(program, words, { encoding: "utf8", cwd: dataDirectory, env });
  const lineOf = (name: string): string => {
    const command = new RegExp(`^${name} = '(.*)'$`, "m").exec(text)?.[1];
    if (command === undefined) throw new Error(`setup printed ${text}`);
    return command.replaceAll("''", "'");
  };
  return { archiveCommand: lineOf("archive_command"), restoreCommand: lineOf("restore_command") };
}

/** The same repository and settings, with two processes that push ahead. */
export async function pgBackRestAsyncPeer(cluster: BenchCluster, store?: SlowStore): Promise<Peer> {
  const peer = await pgBackRestPeer(cluster, store);
  const archiveCommand = `${peer.words.join(" ")} --archive-async archive-push %p`;
  return { ...peer, archiveCommand };
}
