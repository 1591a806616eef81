/**
 * `npm run demo`: the main job on a throw-away PostgreSQL. Archive, back up, lose a table by
 * accident, go back to the moment before, and prove that every row is there.
 */
import { spawnSync } from "node:child_process";
import { existsSync, readdirSync, statSync } from "node:fs";
import { writeFile } from "node:fs/promises";
import { dirname, join } from "node:path";
import { reachable } from "../test/support/reachable.ts";
import { chownTree } from "../test/support/server-user.ts";
import { type Cluster, restoreCluster, startCluster } from "../test/support/postgres.ts";
import { type RunResult, runWalnut } from "../test/support/walnut.ts";

const MAJOR = 17;
const ROWS = 300_000;
const root = dirname(import.meta.dirname);
const binary = join(root, "dist", "walnut");

const paint = (code: string) => (text: string) =>
  process.stdout.isTTY ? `\u001B[${code}m${text}\u001B[0m` : text;
const bold = paint("1");
const green = paint("32");
const dim = paint("2");

const startedAt = performance.now();
let stepAt = startedAt;

/** One finished step: what happened, and how long it took. */
function say(text: string): void {
  const now = performance.now();
  console.log(`  ${green("✓")} ${text} ${dim(`(${((now - stepAt) / 1000).toFixed(1)} s)`)}`);
  stepAt = now;
}

function megabytes(bytes: number): string {
  return `${(bytes / 1e6).toFixed(1)} MB`;
}

function treeBytes(directory: string, pattern = /./): { count: number; bytes: number } {
  const files = readdirSync(directory, { recursive: true, withFileTypes: true })
    .filter((entry) => entry.isFile() && pattern.test(entry.name))
    .map((entry) => statSync(join(entry.parentPath, entry.name)).size);
  return { count: files.length, bytes: files.reduce((sum, size) => sum + size, 0) };
}

function requireSuccess(what: string, result: RunResult): RunResult {
  if (result.code === 0) return result;
  throw new Error(`${what} ended with ${result.code ?? result.signal}:\n${result.stderr}`);
}

/** Count and hash of the whole table: equal means that every row is back, with every value. */
const fingerprint = (cluster: Cluster) =>
  cluster.value(
    "select count(*) || ' rows, md5 ' || md5(string_agg(md5(o::text), '' order by id)) from orders o",
  );

function build(): void {
  if (existsSync(binary)) {
    const sources = readdirSync(join(root, "src"), { recursive: true, encoding: "utf8" });
    const newest = Math.max(...sources.map((file) => statSync(join(root, "src", file)).mtimeMs));
    if (statSync(binary).mtimeMs > newest) return;
  }
  const words = [join(root, "scripts", "build.ts")];
  const { status, stderr } = spawnSync(process.execPath, words, { encoding: "utf8" });
  if (status !== 0) throw new Error(stderr);
}

console.log(`\n${bold("walnut demo")}: lose a table, get every row back\n`);
build();
const program = reachable(binary);
process.env["WALNUT_BINARY"] = program;
say(`built dist/walnut, one file of ${megabytes(statSync(binary).size)}`);

await using cluster = await startCluster({ major: MAJOR });
const repository = await cluster.makeDirectory("repository");
const configFile = join(repository, "..", "walnut.json");
await writeFile(
  configFile,
  JSON.stringify({
    WALG_FILE_PREFIX: repository,
    WALG_COMPRESSION_METHOD: "zstd",
    WALNUT_CACHE_DIR: await cluster.makeDirectory("cache"),
    ...cluster.connection,
  }),
);
const walnut = `${program} --config ${configFile}`;
await cluster.stop();
await writeFile(
  join(cluster.dataDirectory, "postgresql.auto.conf"),
  `archive_mode = on\narchive_command = '${walnut} wal-push "%p"'\n`,
);
await cluster.start();
say(`started PostgreSQL ${MAJOR} with archive_command = 'walnut wal-push "%p"'`);

const asServer = { cwd: cluster.dataDirectory, user: cluster.user };
const call = (...words: string[]) => runWalnut(["--config", configFile, ...words], asServer);

await cluster.query(
  "create table orders (id bigint primary key, customer text, amount numeric, placed timestamptz)",
);
await cluster.query(
  "insert into orders select i, 'customer ' || i % 5000, (i % 9973) / 100.0, " +
    `now() - i * interval '1 second' from generate_series(1, ${ROWS}) i`,
);
say(`loaded ${ROWS.toLocaleString("en")} orders`);

requireSuccess("backup-push", await call("backup-push", cluster.dataDirectory));
say("took a full backup while the server was running");

await cluster.query(
  `insert into orders select i, 'late customer', 1, now() from generate_series(${ROWS + 1}, ${ROWS + 500}) i`,
);
await cluster.query("update orders set amount = amount + 1 where id % 1000 = 0");
const before = await fingerprint(cluster);
const moment = await cluster.value("select clock_timestamp()::text");
say("committed 500 more orders and 300 changes after the backup");

await cluster.query("select pg_sleep(0.01)");
await cluster.query("drop table orders");
await cluster.query("create table unrelated as select 1 as later_work");
await cluster.switchWal();
await cluster.waitForArchiver();
say(bold("somebody ran DROP TABLE orders"));

const target = join(dirname(cluster.dataDirectory), "restored");
requireSuccess("backup-fetch", await call("backup-fetch", target, "LATEST"));
say("fetched the backup into an empty directory");
await chownTree(target, cluster.user);

await using restored = await restoreCluster(target, {
  major: MAJOR,
  signal: "recovery",
  restoreCommand: `${walnut} wal-fetch "%f" "%p"`,
  settings: { recovery_target_time: moment, recovery_target_action: "promote" },
});
if (restored.outcome !== "promoted") throw new Error(restored.log());
say("replayed the archived WAL to the moment before the accident");

const after = await fingerprint(restored);
if (after !== before) throw new Error(`restored: ${after}\nexpected: ${before}`);
say("compared count and hash of all rows: equal");

const list = requireSuccess("backup-list", await call("backup-list"));
const wal = treeBytes(join(repository, "wal_005"));
const parts = treeBytes(join(repository, "basebackups_005"));
const data = treeBytes(cluster.dataDirectory, /^[0-9]/);
console.log(`
${bold("What happened")}
  before the accident   ${before}
  after the restore     ${after}
  restored to           ${moment}
  backup                ${list.stdout.trim().split("\n").at(-1)?.split(/\s+/)[0]}
  database              ${megabytes(data.bytes)}, in the repository ${megabytes(parts.bytes)}
  WAL                   ${wal.count} files, ${megabytes(wal.bytes)}
  all in                ${((performance.now() - startedAt) / 1000).toFixed(1)} s

${bold("What to do next")}
  README.md, "Five minutes to a real server": the lines for your postgresql.conf
  dist/walnut help      every command and exit code
  dist/walnut flags     every setting
`);
