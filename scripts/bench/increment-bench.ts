import { chmodSync, chownSync, mkdirSync, rmSync, statSync } from "node:fs";
import { join } from "node:path";
import type { BenchCluster } from "./bench-cluster.ts";
import { compare, formatTable } from "./figures.ts";
import { type Peer, walnutPeer } from "./peers.ts";
import { measure } from "./process.ts";

const CHAIN_LENGTH = 5;

/**
 * With one page in a hundred changed before each: an increment by the WAL and by a scan of pages,
 * a full backup with and without page checksums; and the restore of a chain beside that of a full
 * backup.
 */
export async function incrementTables(
  cluster: BenchCluster,
  binary: string,
  rounds: number,
): Promise<string[]> {
  const walnut = walnutPeer(cluster, binary, { name: "walnut-increments" });
  cluster.setArchiveCommand(walnut.archiveCommand);
  const push = (...words: string[]) =>
    measure([...walnut.words, "backup-push", cluster.dataDirectory, ...words], walnut.options);
  const incremental = ["--type", "incr"];
  const change = async (): Promise<void> => changeOnePercent(cluster);
  await push("--full");
  const backup = await compare(
    [
      { name: "full", prepare: change, run: () => push("--full") },
      { name: "full, page checksums", prepare: change, run: () => push("--full", "--verify") },
      {
        name: "increment, page scan",
        prepare: change,
        run: () => push(...incremental, "--changes", "page-scan"),
      },
      {
        name: "increment, WAL",
        prepare: change,
        run: () => push(...incremental, "--changes", "wal"),
      },
    ],
    rounds,
  );
  return [
    formatTable("Increment with 1 % of pages changed", backup),
    formatTable(
      `Restore of full + ${CHAIN_LENGTH} increments`,
      await restores(cluster, walnut, rounds),
    ),
  ];
}

async function restores(cluster: BenchCluster, walnut: Peer, rounds: number) {
  const target = join(cluster.home, "restored");
  const emptyTarget = async (): Promise<void> => {
    rmSync(target, { recursive: true, force: true });
    mkdirSync(target);
    const { uid, gid } = statSync(cluster.dataDirectory);
    chownSync(target, uid, gid);
    chmodSync(target, 0o700);
  };
  const push = (...words: string[]) =>
    measure([...walnut.words, "backup-push", cluster.dataDirectory, ...words], walnut.options);
  await push("--full", "--add-user-data", '"full"');
  for (let step = 0; step < CHAIN_LENGTH; step += 1) {
    changeOnePercent(cluster);
    await push("--type", "incr");
  }
  const fetch = (...words: string[]) =>
    measure([...walnut.words, "backup-fetch", target, ...words], walnut.options);
  const rows = await compare(
    [
      {
        name: "full",
        prepare: emptyTarget,
        run: () => fetch("--target-user-data", '"full"'),
      },
      { name: `full + ${CHAIN_LENGTH}`, prepare: emptyTarget, run: () => fetch("LATEST") },
    ],
    rounds,
  );
  rmSync(target, { recursive: true, force: true });
  return rows;
}

/** Neighbouring rows, so that pages are changed, not rows in all of them. */
function changeOnePercent(cluster: BenchCluster): void {
  cluster.sql(
    `update pgbench_accounts set abalance = abalance + 1
      where aid <= (select max(aid) / 100 from pgbench_accounts)`,
  );
  cluster.sql("checkpoint");
}
