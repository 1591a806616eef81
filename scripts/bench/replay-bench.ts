import { execFileSync } from "node:child_process";
import { appendFileSync, existsSync, readFileSync, rmSync, statSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { BIN, type BenchCluster } from "./bench-cluster.ts";
import { type Spread, spread, triple } from "./figures.ts";
import { type Peer, pgBackRestPeer, setupLines, walnutPeer } from "./peers.ts";
import { measure } from "./process.ts";
import { settle } from "./settle.ts";
import { LATENCY_MS, type SlowStore } from "./slow-store.ts";

const PORT = "54330";
const TIMEOUT_MS = 900_000;
const POLL_MS = 50;

interface Replay {
  readonly segmentCount: number;
  /** From the first segment that is asked for to the end of the redo, each. */
  readonly replayMs: number;
  /** Of it inside restore_command, each. */
  readonly restoreMs: number;
}

interface Restorer {
  readonly name: string;
  /** For a data directory. */
  readonly command: (dataDirectory: string) => string;
  /** What it keeps between two calls. */
  readonly spools?: readonly string[];
}

export interface ReplayOptions {
  readonly rounds: number;
  readonly segmentCount: number;
  /** Instead of a directory. */
  readonly store?: SlowStore;
}

/** PostgreSQL replays a backlog of segments through restore_command. */
export async function replayTable(
  cluster: BenchCluster,
  binary: string,
  { rounds, segmentCount, store }: ReplayOptions,
): Promise<string> {
  const base = join(cluster.home, "base");
  rmSync(base, { recursive: true, force: true });
  const options = { cwd: cluster.home, user: cluster.user };
  const connection = ["-h", cluster.home, "-p", cluster.port, "-U", cluster.user];
  const program = join(BIN, "pg_basebackup");
  await measure([program, ...connection, "-D", base, "-X", "none", "-c", "fast"], options);
  const segments = writeSegments(cluster, segmentCount);

  const name = store === undefined ? "walnut-replay" : "walnut-replay-s3";
  const walnut = walnutPeer(cluster, binary, { name, ...(store === undefined ? {} : { store }) });
  const pgBackRest = await pgBackRestPeer(cluster, store);
  for (const segment of segments) {
    const path = join(cluster.segmentDirectory, segment);
    await Promise.all([
      measure([...walnut.words, "wal-push", path], walnut.options),
      measure([...pgBackRest.words, "archive-push", path], pgBackRest.options),
    ]);
  }
  const restorers = [
    ...restorersOf(cluster, walnut, pgBackRest),
    ...(store === undefined ? [] : [plainDownload(store, name)]),
  ];
  const replays = new Map<string, Replay[]>(restorers.map((one) => [one.name, []]));
  for (let round = 0; round < rounds; round += 1) {
    for (const one of restorers) replays.get(one.name)?.push(await replay(cluster, base, one));
  }
  const where = store === undefined ? "a directory" : `S3, ${LATENCY_MS} ms away`;
  return format(`Replay of ${segments.length} segments from ${where}, each`, replays);
}

function restorersOf(cluster: BenchCluster, walnut: Peer, pgBackRest: Peer): readonly Restorer[] {
  const words = (dataDirectory: string) =>
    `${pgBackRest.words.join(" ")} --pg1-path=${dataDirectory}`;
  return [
    {
      name: "walnut, setup's line",
      command: (dataDirectory) => setupLines(cluster, walnut, dataDirectory).restoreCommand,
    },
    {
      name: "walnut wal-fetch",
      command: () => `${walnut.words.join(" ")} wal-fetch "%f" "%p"`,
    },
    {
      name: "pgBackRest archive-async",
      command: (dataDirectory) => `${words(dataDirectory)} --archive-async archive-get %f "%p"`,
      spools: [join(cluster.home, "pgbackrest-spool")],
    },
    {
      name: "pgBackRest archive-get",
      command: (dataDirectory) => `${words(dataDirectory)} archive-get %f "%p"`,
    },
    { name: "cp of plain segments", command: () => `cp ${cluster.segmentDirectory}/%f "%p"` },
  ];
}

/** What store and network take by themselves, one segment after the other. */
function plainDownload(store: SlowStore, prefix: string): Restorer {
  const { accessKeyId, secretAccessKey, authorityFile, bucket, port } = store;
  const url = `https://127.0.0.1:${port}/${bucket}/${prefix}/wal_005/%f.zst`;
  const words = [
    `curl -sf --cacert ${authorityFile} --user ${accessKeyId}:${secretAccessKey}`,
    `--aws-sigv4 aws:amz:us-east-1:s3 -H "x-amz-content-sha256: UNSIGNED-PAYLOAD"`,
    `${url} -o "%p.zst" && zstd -qdf --rm "%p.zst" -o "%p"`,
  ];
  return { name: "curl and zstd -d", command: () => words.join(" ") };
}

/** Full page images of pgbench's tables, and all of it in the folder of plain segments. */
export function writeSegments(cluster: BenchCluster, segmentCount: number): readonly string[] {
  const first = cluster.segments().at(-1) ?? "";
  const written = () => cluster.segments().filter((name) => name > first);
  cluster.setArchiveCommand(`cp %p ${cluster.segmentDirectory}/%f`);
  while (written().length < segmentCount) {
    cluster.sql("checkpoint");
    cluster.sql("update pgbench_accounts set abalance = abalance + 1 where aid % 15 = 0");
    cluster.sql("select pg_switch_wal()");
    cluster.waitForArchiver();
  }
  // The base backup's own first segment is among the older ones.
  return cluster.segments().filter((name) => name >= first);
}

async function replay(cluster: BenchCluster, base: string, restorer: Restorer): Promise<Replay> {
  const dataDirectory = join(cluster.home, "replayed");
  const log = join(cluster.home, "replay.log");
  for (const path of [dataDirectory, `${dataDirectory}.walnut`, log]) {
    rmSync(path, { recursive: true, force: true });
  }
  for (const path of restorer.spools ?? []) {
    execFileSync("find", [path, "-mindepth", "1", "-delete"]);
  }
  settle();
  execFileSync("cp", ["-a", base, dataDirectory]);
  writeFileSync(join(dataDirectory, "recovery.signal"), "");
  const command = restorer.command(dataDirectory).replaceAll("'", "''");
  appendFileSync(
    join(dataDirectory, "postgresql.auto.conf"),
    [
      "",
      `port = ${PORT}`,
      "archive_mode = off",
      "hot_standby = off",
      `restore_command = '${command}'`,
      "log_min_messages = debug3",
      "log_line_prefix = '%n '",
      "",
    ].join("\n"),
  );
  const { uid, gid } = statSync(base);
  execFileSync("chown", [`${uid}:${gid}`, join(dataDirectory, "recovery.signal")]);
  const options = { cwd: cluster.home, user: cluster.user };
  const control = [join(BIN, "pg_ctl"), "-D", dataDirectory, "-w"];
  await measure([...control, "-l", log, "start"], options);
  // pg_ctl takes a server that recovers for started; at the end of it the file goes.
  const endsAt = performance.now() + TIMEOUT_MS;
  while (existsSync(join(dataDirectory, "recovery.signal"))) {
    const isRunning = existsSync(join(dataDirectory, "postmaster.pid"));
    if (!isRunning || performance.now() > endsAt) throw new Error("the replay does not end");
    await new Promise((resolve) => setTimeout(resolve, POLL_MS));
  }
  await measure([...control, "-m", "immediate", "stop"], options);
  return readReplay(readFileSync(log, "utf8"));
}

const EVENT =
  /^(\d+\.\d+) (?:DEBUG|LOG): {2}(executing restore command|restored log file|redo done)/;

/** The server's own log, with a line before each call and one behind it. */
function readReplay(log: string): Replay {
  let startedMs: number | undefined;
  let calledMs = 0;
  let endedMs = 0;
  let restoreMs = 0;
  let segmentCount = 0;
  for (const line of log.split("\n")) {
    const [, seconds = "", what] = EVENT.exec(line) ?? [];
    const nowMs = Number(seconds) * 1000;
    if (what === "executing restore command") calledMs = nowMs;
    else if (what === "redo done") endedMs = nowMs;
    else if (what === "restored log file" && endedMs === 0) {
      startedMs ??= calledMs;
      restoreMs += nowMs - calledMs;
      segmentCount += 1;
    }
  }
  if (startedMs === undefined || endedMs === 0) throw new Error(`no replay: ${log.slice(-2000)}`);
  return {
    segmentCount,
    replayMs: (endedMs - startedMs) / segmentCount,
    restoreMs: restoreMs / segmentCount,
  };
}

function format(title: string, replays: ReadonlyMap<string, readonly Replay[]>): string {
  const [reference = []] = replays.values();
  const [first = ""] = replays.keys();
  const over = (runs: readonly Replay[], figure: (one: Replay, round: number) => number): Spread =>
    spread(runs.map(figure));
  const lines = [
    `### ${title}`,
    "",
    `| | replay ms | of it in restore_command ms | that is % | restore_command, times ${first} | replay, times ${first} |`,
    "| --- | --- | --- | --- | --- | --- |",
  ];
  for (const [name, runs] of replays) {
    const cells = [
      triple(
        over(runs, ({ replayMs }) => replayMs),
        1,
      ),
      triple(
        over(runs, ({ restoreMs }) => restoreMs),
        1,
      ),
      triple(
        over(runs, ({ replayMs, restoreMs }) => (100 * restoreMs) / replayMs),
        1,
      ),
      triple(
        over(runs, ({ restoreMs }, i) => restoreMs / (reference[i]?.restoreMs ?? Number.NaN)),
        2,
      ),
      triple(
        over(runs, ({ replayMs }, i) => replayMs / (reference[i]?.replayMs ?? Number.NaN)),
        2,
      ),
    ];
    lines.push(`| ${name} | ${cells.join(" | ")} |`);
  }
  return `${lines.join("\n")}\n`;
}
