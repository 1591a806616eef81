import { chmodSync, chownSync, mkdirSync, rmSync, statSync } from "node:fs";
import { dirname, join } from "node:path";
import { serverProgram } from "../../test/support/postgres-programs.ts";
import { type BenchCluster, type BenchClusterOptions, startBenchCluster } from "./bench-cluster.ts";
import { compare, type Contender, formatTable } from "./figures.ts";
import { type Peer, pgBackRestPeer, walnutPeer } from "./peers.ts";
import { measure } from "./process.ts";

const CHAIN_LENGTH = 5;
/** WAL summaries came with 17; Debian's pgBackRest does not know it. */
const SUMMARY_RELEASE = 17;

/**
 * With one page in a hundred changed before each: increments by the WAL and by a scan of pages, a
 * full backup, and an increment of pgBackRest.
 */
export async function changeTable(
  cluster: BenchCluster,
  binary: string,
  rounds: number,
): Promise<string> {
  const walnut = incrementPeer(cluster, binary);
  const pgBackRest = await pgBackRestPeer(cluster);
  const change = pageChange(cluster);
  const rival = (type: string) =>
    measure([...pgBackRest.words, `--type=${type}`, "backup"], pgBackRest.options);
  cluster.setArchiveCommand(pgBackRest.archiveCommand);
  await rival("full");
  const increments = await compare(
    [
      ...contenders(cluster, walnut, { change, way: "wal", name: "increment, WAL" }),
      {
        name: "pgBackRest, increment",
        async prepare() {
          cluster.setArchiveCommand(pgBackRest.archiveCommand);
          await rival("incr");
          change();
        },
        run: () => rival("incr"),
      },
    ],
    rounds,
  );
  return formatTable("Increment with 1 % of pages changed", increments);
}

/**
 * A full backup with and without page checksums; the restore of a chain beside that of its full
 * backup.
 */
export async function chainTables(
  cluster: BenchCluster,
  binary: string,
  rounds: number,
): Promise<string[]> {
  const walnut = incrementPeer(cluster, binary);
  const change = pageChange(cluster);
  cluster.setArchiveCommand(walnut.archiveCommand);
  const full = (...words: string[]) => push(cluster, walnut, "--full", ...words);
  const sums = await compare(
    [
      { name: "full", run: () => full() },
      { name: "full, page checksums", run: () => full("--verify") },
    ],
    rounds,
  );
  return [
    formatTable("Page checksums", sums),
    formatTable(
      `Restore of full + ${CHAIN_LENGTH} increments`,
      await restores(cluster, walnut, { change, rounds }),
    ),
  ];
}

/** The same increments by the server's WAL summaries, on a cluster of its own. */
export async function summaryTable(
  size: BenchClusterOptions,
  binary: string,
  rounds: number,
): Promise<string> {
  using cluster = startBenchCluster({
    ...size,
    serverPrograms: dirname(serverProgram(SUMMARY_RELEASE, "postgres")),
    settings: ["summarize_wal = on"],
  });
  const walnut = incrementPeer(cluster, binary);
  const wish = {
    change: pageChange(cluster),
    way: "summaries",
    name: "increment, WAL summaries",
  };
  const rows = await compare(contenders(cluster, walnut, wish), rounds);
  return formatTable(`Increment with 1 % of pages changed, PostgreSQL ${SUMMARY_RELEASE}`, rows);
}

function incrementPeer(cluster: BenchCluster, binary: string): Peer {
  const more = { WALG_USE_WAL_DELTA: "true" };
  return walnutPeer(cluster, binary, { name: "walnut-increments", more });
}

function push(cluster: BenchCluster, walnut: Peer, ...words: readonly string[]) {
  const all = [...walnut.words, "backup-push", cluster.dataDirectory, ...words];
  return measure(all, walnut.options);
}

interface Wish {
  readonly change: () => void;
  /** Of the first contender, to which the others are compared. */
  readonly way: string;
  readonly name: string;
}

function contenders(
  cluster: BenchCluster,
  walnut: Peer,
  { change, way, name }: Wish,
): readonly Contender[] {
  const increment = (source: string) =>
    push(cluster, walnut, "--type", "incr", "--changes", source);
  return [
    {
      name,
      async prepare() {
        // Others may have archived meanwhile: the base has to be newer than what they did.
        cluster.setArchiveCommand(walnut.archiveCommand);
        await push(cluster, walnut, "--full");
        change();
      },
      run: () => increment(way),
    },
    {
      name: "increment, page scan",
      prepare: async () => change(),
      run: () => increment("page-scan"),
    },
    {
      name: "full",
      prepare: async () => change(),
      run: () => push(cluster, walnut, "--full"),
    },
  ];
}

async function restores(
  cluster: BenchCluster,
  walnut: Peer,
  { change, rounds }: { readonly change: () => void; readonly rounds: number },
) {
  const target = join(cluster.home, "restored");
  const emptyTarget = async (): Promise<void> => {
    rmSync(target, { recursive: true, force: true });
    mkdirSync(target);
    const { uid, gid } = statSync(cluster.dataDirectory);
    chownSync(target, uid, gid);
    chmodSync(target, 0o700);
  };
  await push(cluster, walnut, "--full", "--add-user-data", '"full"');
  for (let step = 0; step < CHAIN_LENGTH; step += 1) {
    change();
    await push(cluster, walnut, "--type", "incr");
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

/**
 * Each call updates one row on one page in a hundred, all over the table, and not a row of the call
 * before: a version of it stays on its page (FILL_FACTOR), so that no other page changes.
 */
function pageChange(cluster: BenchCluster): () => void {
  let call = 0;
  return () => {
    call += 1;
    cluster.sql(
      `update pgbench_accounts set abalance = abalance + 1
         from (select max(aid) as last from pgbench_accounts) as accounts,
              (select 100 * (reltuples / relpages)::int as step
                 from pg_class where relname = 'pgbench_accounts') as pages,
              generate_series(${call}, last, step) as wanted
        where aid = wanted`,
    );
    cluster.sql("checkpoint");
    cluster.waitForArchiver();
  };
}
