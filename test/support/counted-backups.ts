import assert from "node:assert/strict";
import { join } from "node:path";
import { type Cluster, initCluster, type RestoredCluster, restoreCluster } from "./postgres.ts";
import { type Installation, install } from "./repository.ts";

const MAJOR = 18;

/** A real server with a table `seen` that tells which backup a restored one comes from. */
export interface CountedBackups extends AsyncDisposable {
  readonly cluster: Cluster;
  readonly walnut: Installation;
  /** How many rows each backup that was taken has at least, by its name. */
  readonly rows: ReadonlyMap<string, number>;
  /** Adds a row and takes a backup; answers with its name. */
  readonly take: (...flags: readonly string[]) => Promise<string>;
  /** Adds row 100, and waits until it is in the archive. */
  readonly end: () => Promise<void>;
  /** Names of all backups, newest last, with the storage that holds each. */
  readonly listed: () => Promise<ReadonlyMap<string, string>>;
  /** Restores a backup and replays, to its own end or to the archive's. */
  readonly restore: (name: string, target: "immediate" | "end") => Promise<RestoredCluster>;
}

/** `settingsOf` gives the repository's settings, of directories of the cluster. */
export async function startCountedBackups(
  settingsOf: (cluster: Cluster) => Promise<Readonly<Record<string, string>>>,
): Promise<CountedBackups> {
  const cluster = await initCluster({
    major: MAJOR,
    segmentMiB: 1,
    settings: { archive_mode: "on", summarize_wal: "on" },
  });
  try {
    const walnut = await install(cluster, await settingsOf(cluster));
    await cluster.configure({ archive_command: walnut.archiveCommand });
    await cluster.start();
    await cluster.query("create table seen (number int primary key, body text)");
    return countedBackups(cluster, walnut);
  } catch (error) {
    await cluster[Symbol.asyncDispose]();
    throw error;
  }
}

function countedBackups(cluster: Cluster, walnut: Installation): CountedBackups {
  const rows = new Map<string, number>();
  const listed = async (): Promise<ReadonlyMap<string, string>> => {
    const { stdout } = await walnut.mustRun("backup-list");
    const lines = stdout.trimEnd().split("\n").slice(1);
    const fields = lines.map((line) => line.split(/ +/));
    return new Map(fields.map(([name = "", , , storage = ""]) => [name, storage]));
  };
  return {
    cluster,
    walnut,
    rows,
    listed,
    async take(...flags) {
      const number = rows.size + 1;
      await cluster.query(`insert into seen values (${number}, repeat('x', 200000))`);
      await walnut.mustRun("backup-push", cluster.dataDirectory, ...flags);
      const name = [...(await listed()).keys()].find((one) => !rows.has(one));
      assert.ok(name !== undefined);
      rows.set(name, number);
      return name;
    },
    async end() {
      await cluster.query("insert into seen values (100, 'the end')");
      await cluster.switchWal();
      await cluster.waitForArchiver();
    },
    async restore(name, target) {
      const directory = join(cluster.directory, `restored ${name}`);
      await walnut.mustRun("backup-fetch", directory, name);
      const server = await restoreCluster(directory, {
        major: MAJOR,
        signal: "recovery",
        restoreCommand: walnut.restoreCommand,
        settings:
          target === "immediate"
            ? { recovery_target: "immediate", recovery_target_action: "promote" }
            : {},
      });
      assert.equal(server.outcome, "promoted", server.log());
      return server;
    },
    [Symbol.asyncDispose]: () => cluster[Symbol.asyncDispose](),
  };
}
