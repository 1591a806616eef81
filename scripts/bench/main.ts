/**
 * `npm run bench`: walnut beside Debian's pgBackRest and plain tools, in the same run.
 *
 *   npm run bench -- [--only wal,backup,drain] [--scale 150] [--rounds 5] [--write]
 *
 * `--write` puts the tables into docs/performance.md.
 */
import { existsSync, readFileSync, writeFileSync } from "node:fs";
import { availableParallelism } from "node:os";
import { dirname, join } from "node:path";
import { parseArgs } from "node:util";
import { backupTables } from "./backup-bench.ts";
import { startBenchCluster } from "./bench-cluster.ts";
import { drainTable } from "./drain-bench.ts";
import { startSlowStore } from "./slow-store.ts";
import { startTable } from "./start-bench.ts";
import { walTables } from "./wal-bench.ts";

const root = dirname(dirname(import.meta.dirname));
const { values } = parseArgs({
  options: {
    only: { type: "string", default: "start,wal,backup" },
    scale: { type: "string", default: "150" },
    rounds: { type: "string", default: "5" },
    segments: { type: "string", default: "200" },
    directory: { type: "string" },
    write: { type: "boolean", default: false },
  },
});

const binary = join(root, "dist", "walnut");
for (const needed of [binary, "/usr/bin/pgbackrest", "/usr/lib/postgresql/15/bin/pgbench"]) {
  if (!existsSync(needed)) throw new Error(`${needed} is missing: npm run build; see .ci/run`);
}

const wanted = new Set(values.only.split(","));
const rounds = Number(values.rounds);
const tables: string[] = [];
if (wanted.has("start")) tables.push(await startTable(binary, root));
if (wanted.has("wal") || wanted.has("backup") || wanted.has("drain")) {
  using cluster = startBenchCluster(Number(values.scale), values.directory);
  if (wanted.has("wal")) tables.push(...(await walTables(cluster, binary, rounds * 4)));
  if (wanted.has("drain")) {
    const segmentCount = Number(values.segments);
    await using store = await startSlowStore(cluster.home);
    tables.push(await drainTable(cluster, binary, { rounds, segmentCount }));
    tables.push(await drainTable(cluster, binary, { rounds, segmentCount, store }));
  }
  if (wanted.has("backup")) tables.push(...(await backupTables(cluster, binary, rounds)));
}

const command = `npm run bench -- --scale ${values.scale} --rounds ${values.rounds}`;
const text =
  `Made by \`${command}\` on ${availableParallelism()} cores. ` +
  "Every cell: minimum / median / maximum over the rounds; the contenders run in turn.\n\n" +
  tables.join("\n");
console.log(text);

if (values.write) {
  const page = join(root, "docs", "performance.md");
  const [before = ""] = readFileSync(page, "utf8").split("<!-- bench -->");
  writeFileSync(page, `${before}<!-- bench -->\n\n${text}`);
}
