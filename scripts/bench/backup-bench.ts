import { existsSync, mkdirSync, rmSync, chownSync, chmodSync, statSync } from "node:fs";
import { join } from "node:path";
import type { BenchCluster } from "./bench-cluster.ts";
import { compare, formatTable } from "./figures.ts";
import { pgBackRestPeer, walnutPeer } from "./peers.ts";
import { measure } from "./process.ts";

/** A full backup of the pgbench cluster and its restore: zstd 1, two workers, directory stores. */
export async function backupTables(
  cluster: BenchCluster,
  binary: string,
  rounds: number,
): Promise<string[]> {
  const walnut = walnutPeer(cluster, binary);
  const pgBackRestStanza = join(cluster.home, "pgbackrest", "archive");
  const pgBackRest = await pgBackRestPeer(cluster);
  if (!existsSync(pgBackRestStanza)) throw new Error("pgBackRest made no stanza");
  const tarball = join(walnut.repository, "plain.tar.zst");
  const pack = `tar -c -C ${cluster.dataDirectory} . | zstd -1 -T2 -q -f -o ${tarball} && sync ${tarball}`;

  const backup = await compare(
    [
      {
        name: "walnut backup-push",
        prepare: async () => cluster.setArchiveCommand(walnut.archiveCommand),
        run: () => measure([...walnut.words, "backup-push", cluster.dataDirectory], walnut.options),
      },
      {
        name: "pgBackRest backup",
        prepare: async () => cluster.setArchiveCommand(pgBackRest.archiveCommand),
        run: () => measure([...pgBackRest.words, "--type=full", "backup"], pgBackRest.options),
      },
      {
        name: "tar, zstd -T2, sync",
        // tar says 1 for a file that changed while it was read.
        run: () => measure(["bash", "-c", `set +e; ${pack}; true`], walnut.options),
      },
    ],
    rounds,
  );

  const target = join(cluster.home, "restored");
  const emptyTarget = async () => {
    rmSync(target, { recursive: true, force: true });
    mkdirSync(target);
    const { uid, gid } = statSync(cluster.dataDirectory);
    chownSync(target, uid, gid);
    chmodSync(target, 0o700);
  };
  const unpack = `zstd -d -c ${tarball} | tar -x -C ${target} && sync -f ${target}`;
  const restore = await compare(
    [
      {
        name: "walnut backup-fetch",
        prepare: emptyTarget,
        run: () => measure([...walnut.words, "backup-fetch", target, "LATEST"], walnut.options),
      },
      {
        name: "pgBackRest restore",
        prepare: emptyTarget,
        run: () =>
          measure([...pgBackRest.words, `--pg1-path=${target}`, "restore"], pgBackRest.options),
      },
      {
        name: "zstd -d, tar, sync",
        prepare: emptyTarget,
        run: () => measure(["sh", "-c", unpack], walnut.options),
      },
    ],
    rounds,
  );
  rmSync(target, { recursive: true, force: true });
  return [
    formatTable("Full backup (zstd 1, two workers)", backup),
    formatTable("Restore of it", restore),
  ];
}
