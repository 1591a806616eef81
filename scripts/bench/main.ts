/**
 * `npm run bench`: walnut beside Debian's pgBackRest and plain tools, in the same run.
 *
 *   npm run bench -- [--only start,wal,backup,changes,summaries,chain,files,drain,replay,hit,
 *     sustained,stores]; "increment" is changes, chain and summaries
 *     [--scale 150] [--rounds 5] [--segments 200] [--minutes 10] [--files 1000000]
 *     [--mebibytes 4096] [--stores s3,gcs,azure,sftp,swift,rclone] [--directory /tmp]; of replay
 *     the stores are directory and s3
 *     [--keep /tmp/clusters]: the cluster stays there for the next run, of whatever scale it is
 *     [--binary dist/walnut] [--write]
 *
 * `--write` puts the tables into docs/performance.md, in the place of those of the same name.
 */
import { existsSync, readFileSync, writeFileSync } from "node:fs";
import { availableParallelism } from "node:os";
import { dirname, join } from "node:path";
import { parseArgs } from "node:util";
import { backupTables } from "./backup-bench.ts";
import { startBenchCluster } from "./bench-cluster.ts";
import { drainTable } from "./drain-bench.ts";
import { filesTable } from "./files-bench.ts";
import { chainTables, changeTable, summaryTable } from "./increment-bench.ts";
import { hitTable } from "./hit-bench.ts";
import { replayTable } from "./replay-bench.ts";
import { startSlowStore } from "./slow-store.ts";
import { startTable } from "./start-bench.ts";
import { storeTables } from "./store-bench.ts";
import { sustainedTable } from "./sustained-bench.ts";
import { walTables } from "./wal-bench.ts";

/** In docs/performance.md: what follows is written by this program. */
const MARK = "<!-- bench -->";

const root = dirname(dirname(import.meta.dirname));
const { values } = parseArgs({
  options: {
    only: { type: "string", default: "start,wal,backup" },
    scale: { type: "string", default: "150" },
    rounds: { type: "string", default: "5" },
    minutes: { type: "string", default: "10" },
    segments: { type: "string", default: "200" },
    files: { type: "string", default: "1000000" },
    mebibytes: { type: "string", default: "4096" },
    stores: { type: "string" },
    directory: { type: "string" },
    keep: { type: "string" },
    binary: { type: "string" },
    write: { type: "boolean", default: false },
  },
});

const binary = values.binary ?? join(root, "dist", "walnut");
for (const needed of [binary, "/usr/bin/pgbackrest", "/usr/lib/postgresql/15/bin/pgbench"]) {
  if (!existsSync(needed)) throw new Error(`${needed} is missing: npm run build; see .ci/run`);
}

const wanted = new Set(values.only.split(","));
if (wanted.has("increment")) for (const part of ["changes", "chain", "summaries"]) wanted.add(part);
const rounds = Number(values.rounds);
const tables: string[] = [];
if (wanted.has("start")) tables.push(await startTable(binary, root));
if (wanted.has("stores")) {
  const names = values.stores?.split(",");
  const size = { sizeMiB: Number(values.mebibytes), base: values.directory };
  tables.push(...(await storeTables(binary, { rounds, names, ...size })));
}
const onCluster = ["wal", "backup", "changes", "chain", "files"];
onCluster.push("drain", "replay", "hit", "sustained");
const size = { scale: Number(values.scale), base: values.directory, keep: values.keep };
if (onCluster.some((name) => wanted.has(name))) {
  using cluster = startBenchCluster(size);
  if (wanted.has("wal")) tables.push(...(await walTables(cluster, binary, rounds * 4)));
  if (wanted.has("drain")) {
    const segmentCount = Number(values.segments);
    await using store = await startSlowStore(cluster.home);
    tables.push(await drainTable(cluster, binary, { rounds, segmentCount }));
    tables.push(await drainTable(cluster, binary, { rounds, segmentCount, store }));
  }
  if (wanted.has("hit")) tables.push(await hitTable(cluster, binary, rounds * 3));
  if (wanted.has("replay")) {
    const segmentCount = Number(values.segments);
    const stores = values.stores?.split(",") ?? ["directory", "s3"];
    if (stores.includes("directory")) {
      tables.push(await replayTable(cluster, binary, { rounds, segmentCount }));
    }
    if (stores.includes("s3")) {
      await using store = await startSlowStore(cluster.home);
      tables.push(await replayTable(cluster, binary, { rounds, segmentCount, store }));
    }
  }
  if (wanted.has("changes")) tables.push(await changeTable(cluster, binary, rounds));
  if (wanted.has("chain")) tables.push(...(await chainTables(cluster, binary, rounds)));
  if (wanted.has("files")) tables.push(await filesTable(cluster, binary, Number(values.files)));
  if (wanted.has("backup")) tables.push(...(await backupTables(cluster, binary, rounds)));
  if (wanted.has("sustained")) {
    tables.push(await sustainedTable(cluster, binary, { minutes: Number(values.minutes) }));
  }
}
if (wanted.has("summaries")) tables.push(await summaryTable(size, binary, rounds));

const words = process.argv.slice(2).join(" ");
const shown = words.replaceAll(/ --(write|(binary|directory|keep) \S+)/g, "");
const command = `npm run bench -- ${shown}`;
const source = `Made by \`${command}\` on ${availableParallelism()} cores.`;
const sections = tables.map((table) => `${table.trimEnd()}\n\n${source}\n`);
console.log(sections.join("\n"));

if (values.write) {
  const page = join(root, "docs", "performance.md");
  const [before = "", rest = ""] = readFileSync(page, "utf8").split(MARK);
  const byTitle = new Map<string, string>();
  for (const section of [...rest.split(/^(?=### )/m).slice(1), ...sections]) {
    byTitle.set(section.split("\n")[0] ?? "", section.trimEnd());
  }
  writeFileSync(page, `${before}${MARK}\n\n${[...byTitle.values()].join("\n\n")}\n`);
}
