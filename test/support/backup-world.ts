import { spawnSync } from "node:child_process";
import { chmod, mkdir, readdir, rename, writeFile } from "node:fs/promises";
import { join } from "node:path";
import { type PushedBackup, pushBackup, type PushSettings } from "../../src/backup/push.ts";
import { pushRemoteBackup } from "../../src/backup/remote-push.ts";
import { codecOf } from "../../src/codec/table.ts";
import type { ConnectionSettings } from "../../src/connection/target.ts";
import { type Clock, systemClock } from "../../src/io/clock.ts";
import { silentLog } from "../../src/io/log.ts";
import { readAll } from "../../src/io/bytes.ts";
import { type Sentinel, parseSentinel } from "../../src/layout/sentinel.ts";
import { sentinelKey } from "../../src/layout/keys.ts";
import { formatTablespaceMap } from "../../src/postgres/tablespace-map.ts";
import { DirectoryStorage } from "../../src/storage/directory.ts";
import type { Storage } from "../../src/storage/storage.ts";
import { type Cluster, type ClusterOptions, startCluster } from "./postgres.ts";
import { chownTree } from "./server-user.ts";

/** A running server that archives into a directory store, and backups of it within this process. */
export interface BackupWorld extends AsyncDisposable {
  readonly cluster: Cluster;
  /** Root of the store; segments are copied into it by `cp`, uncompressed. */
  readonly repository: string;
  readonly storage: Storage;
  /** What was logged, a line an event: "warning: text name=value". */
  readonly logged: string[];
  /** As the superuser, straight to the server, unless told. */
  connection(changes?: Partial<ConnectionSettings>): ConnectionSettings;
  push(change?: PushChange): Promise<PushedBackup>;
  /** The same over the replication protocol. */
  pushRemote(change?: PushChange): Promise<PushedBackup>;
  sentinel(name: string): Promise<Sentinel>;
  keys(prefix?: string): Promise<string[]>;
  /** Changes archive_command and waits until the server knows. */
  setArchiveCommand(command: string): Promise<void>;
  /** Unpacks a backup of method none with system tar into a new directory of the server's user. */
  unpack(name: string, directoryName: string): Promise<string>;
}

export interface PushChange extends Partial<PushSettings> {
  readonly storage?: Storage;
  readonly signal?: AbortSignal;
  readonly clock?: Clock;
  readonly onProgress?: (state: { readonly doneBytes: number }) => void;
}

/** Makes all of it; 1 MiB segments and checksums. */
export async function startBackupWorld(options: ClusterOptions): Promise<BackupWorld> {
  const cluster = await startCluster({
    segmentMiB: 1,
    ...options,
    settings: { archive_mode: "on", archive_command: "", ...options.settings },
  });
  const repository = await cluster.makeDirectory("repository");
  await mkdir(join(repository, "wal_005"));
  await chownTree(repository, cluster.user);
  const world = new World(cluster, repository);
  if (options.settings?.["archive_mode"] !== "off") {
    await world.setArchiveCommand(world.archiveCommand);
  }
  return world;
}

/** Backups of a server that is there already and archives into `repository`. */
export function backupWorldOf(cluster: Cluster, repository: string): BackupWorld {
  return new World(cluster, repository);
}

class World implements BackupWorld {
  readonly cluster: Cluster;
  readonly repository: string;
  readonly storage: Storage;
  readonly logged: string[] = [];

  constructor(cluster: Cluster, repository: string) {
    this.cluster = cluster;
    this.repository = repository;
    this.storage = new DirectoryStorage(repository, systemClock);
  }

  get archiveCommand(): string {
    return `cp "%p" "${this.repository}/wal_005/%f"`;
  }

  async push(change: PushChange = {}): Promise<PushedBackup> {
    const { settings, world } = this.#worldOf(change);
    return await pushBackup(settings, world);
  }

  async pushRemote(change: PushChange = {}): Promise<PushedBackup> {
    const { settings, world } = this.#worldOf(change);
    return await pushRemoteBackup(settings, world);
  }

  #worldOf({ storage, signal, clock, onProgress, ...settings }: PushChange) {
    const world = {
      storage: storage ?? this.storage,
      log: this.#log(),
      clock: clock ?? systemClock,
      onProgress: onProgress ?? (() => {}),
      signal: signal ?? AbortSignal.timeout(600_000),
    };
    return { settings: { ...this.#settings(), ...settings }, world };
  }

  async sentinel(name: string): Promise<Sentinel> {
    const signal = AbortSignal.timeout(600_000);
    const bytes = await readAll(this.storage.get(sentinelKey(name), { signal }));
    return parseSentinel(name, bytes.toString());
  }

  async keys(prefix = ""): Promise<string[]> {
    const signal = AbortSignal.timeout(600_000);
    const keys: string[] = [];
    for await (const { key } of this.storage.list(prefix, { signal })) keys.push(key);
    return keys;
  }

  async setArchiveCommand(command: string): Promise<void> {
    const literal = command.replaceAll("'", "''");
    await this.cluster.query(`ALTER SYSTEM SET archive_command = '${literal}'`);
    await this.cluster.query("SELECT pg_reload_conf()");
    await this.cluster.waitFor(`SELECT current_setting('archive_command') = '${literal}'`);
  }

  async unpack(name: string, directoryName: string): Promise<string> {
    const directory = await this.cluster.makeDirectory(directoryName);
    const folder = join(this.repository, "basebackups_005", name, "tar_partitions");
    for (const part of await readdir(folder)) {
      const words = ["--extract", "--no-same-owner", "-C", directory, "-f", join(folder, part)];
      const result = spawnSync("tar", words, { encoding: "utf8" });
      if (result.status !== 0) throw new Error(`tar of ${part}: ${result.stderr}`);
    }
    await this.#moveTablespaces(directory);
    await chownTree(directory, this.cluster.user);
    return directory;
  }

  /** The original's places are in use: each gets one of its own beside the directory. */
  async #moveTablespaces(directory: string): Promise<void> {
    const names = await readdir(join(directory, "pg_tblspc")).catch(() => []);
    const locations = [];
    for (const oid of names) {
      const path = `${directory} ${oid}`;
      await rename(join(directory, "pg_tblspc", oid), path);
      await chmod(path, 0o700);
      await chownTree(path, this.cluster.user);
      locations.push({ oid: Number(oid), path });
    }
    const map = formatTablespaceMap(locations, this.cluster.major);
    await writeFile(join(directory, "tablespace_map"), map);
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.cluster[Symbol.asyncDispose]();
  }

  connection(changes: Partial<ConnectionSettings> = {}): ConnectionSettings {
    return {
      host: "127.0.0.1",
      port: this.cluster.port,
      user: "postgres",
      database: "postgres",
      applicationName: "walnut-test",
      ...changes,
    };
  }

  #settings(): PushSettings {
    return {
      dataDirectory: this.cluster.dataDirectory,
      connection: this.connection(),
      codec: codecOf("none"),
      zstd: codecOf("zstd"),
      codecJobs: 2,
      partConcurrency: 1,
      thresholdBytes: 1024 ** 3,
      hash: "xxh64",
      hasFilesMetadata: true,
      hasDatabaseNames: true,
      isPermanent: false,
      increments: { maxSteps: 0, origin: "latest" },
      isPageVerified: false,
      isEveryCorruptBlockListed: false,
      archiveCheckTimeoutMs: 30_000,
      stopTimeoutMs: 30_000,
      aliveCheckIntervalMs: 1000,
      spoolDirectory: join(this.cluster.directory, "spool"),
    };
  }

  #log() {
    const line =
      (level: string) =>
      (text: string, fields: object = {}) => {
        const values = Object.entries(fields).map(([name, value]) => ` ${name}=${String(value)}`);
        this.logged.push(`${level}: ${text}${values.join("")}`);
      };
    return { ...silentLog, info: line("info"), warning: line("warning"), error: line("error") };
  }
}
