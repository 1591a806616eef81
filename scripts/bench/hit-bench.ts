import {
  copyFileSync,
  existsSync,
  mkdirSync,
  readdirSync,
  renameSync,
  rmSync,
  writeFileSync,
} from "node:fs";
import { dirname, join } from "node:path";
import type { BenchCluster } from "./bench-cluster.ts";
import { compare, formatTable, type Row } from "./figures.ts";
import { setupLines, walnutPeer } from "./peers.ts";
import { measure } from "./process.ts";
import { writeSegments } from "./replay-bench.ts";

const WAIT_MS = 30_000;

/** What a call costs that finds its work done, in both directions, beside an empty shell. */
export async function hitTable(
  cluster: BenchCluster,
  binary: string,
  rounds: number,
): Promise<string> {
  const segments = writeSegments(cluster, 2 * rounds + 2).slice(0, 2 * rounds + 2);
  const rows = await compareHits(cluster, binary, { rounds, segments });
  return formatTable("A call whose work is done already", rows);
}

/** Where there is a pg_control and the segments of its server, which need not run. */
export type HitPlace = Pick<
  BenchCluster,
  "home" | "dataDirectory" | "segmentDirectory" | "port" | "user"
>;

/** The rows of that table. `segments` are twice as many as rounds, and two more. */
export async function compareHits(
  cluster: HitPlace,
  binary: string,
  { rounds, segments }: { readonly rounds: number; readonly segments: readonly string[] },
): Promise<Row[]> {
  const walnut = walnutPeer(cluster, binary, { name: "walnut-hit" });
  const dataDirectory = join(cluster.home, "hit");
  const walDirectory = join(dataDirectory, "pg_wal");
  mkdirSync(join(walDirectory, "archive_status"), { recursive: true });
  mkdirSync(join(dataDirectory, "global"));
  const control = "global/pg_control";
  copyFileSync(join(cluster.dataDirectory, control), join(dataDirectory, control));
  // This program is the server, and the process that starts the shell.
  writeFileSync(join(dataDirectory, "postmaster.pid"), `${process.pid}\n${dataDirectory}\n1\n`);
  writeFileSync(join(dataDirectory, "recovery.signal"), "");
  // Setup tries a hard link to it.
  writeFileSync(join(dataDirectory, "PG_VERSION"), "");
  const owned = { ...cluster, user: undefined };
  const { archiveCommand, restoreCommand } = setupLines(owned, walnut, dataDirectory);

  const options = { cwd: dataDirectory };
  await archiveAll(segments, { cluster, walDirectory, command: archiveCommand, options });
  let at = 0;
  const nextReady = async () => {
    rmSync(join(walDirectory, "RECOVERYXLOG"), { force: true });
    at += 1;
    await untilTrue(() => isFetched(dataDirectory, segments[at] ?? ""));
  };
  const [first = ""] = segments;
  await measure(called(restoreCommand, first, "pg_wal/RECOVERYXLOG"), options);
  const name = () => segments[at] ?? "";
  const rows = await compare(
    [
      { name: "sh -c true", run: () => measure(["sh", "-c", "true"], options) },
      {
        name: "restore_command, by the shell",
        prepare: nextReady,
        run: () => measure(called(restoreCommand, name(), "pg_wal/RECOVERYXLOG"), options),
      },
      {
        name: "restore_command, by walnut wal-fetch",
        prepare: nextReady,
        run: () => measure([...walnut.words, "wal-fetch", name(), "pg_wal/RECOVERYXLOG"], options),
      },
      {
        name: "archive_command, by the shell",
        run: (round) => {
          const noted = segments[round + 1] ?? "";
          return measure(called(archiveCommand, noted, `pg_wal/${noted}`), options);
        },
      },
      {
        name: "archive_command, by walnut wal-push",
        run: (round) =>
          measure([...walnut.words, "wal-push", `pg_wal/${segments[round + 1]}`], options),
      },
    ],
    rounds,
  );
  const spool = `${dataDirectory}.walnut`;
  requireVouched(join(spool, "notes"));
  // The drainer and the prefetcher end with the server.
  rmSync(join(dataDirectory, "postmaster.pid"));
  const sockets = ["drain.sock", "prefetch.sock"].map((name) => join(spool, name));
  await untilTrue(() => !sockets.some((path) => existsSync(path)));
  return rows;
}

/** As PostgreSQL calls a command for a file. */
function called(command: string, name: string, path: string): string[] {
  const text = command.replaceAll("%f", name).replaceAll("%p", path).replaceAll("%%", "%");
  return ["sh", "-c", text];
}

/** Else the shell, or the binary, has asked the drainer each time, and that was measured. */
function requireVouched(notes: string): void {
  const links = readdirSync(notes);
  for (const prefix of [`${process.pid}-`, "c-"]) {
    const isThere = links.some((name) => name.startsWith(prefix));
    if (!isThere) throw new Error(`the drainer made no link ${prefix}*: ${links.join(" ")}`);
  }
}

interface Archiving {
  readonly cluster: HitPlace;
  readonly walDirectory: string;
  readonly command: string;
  readonly options: { readonly cwd: string };
}

/** Until the drainer has a note of every segment but the first, and the shell may believe them. */
async function archiveAll(
  segments: readonly string[],
  { cluster, walDirectory, command, options }: Archiving,
): Promise<void> {
  const status = join(walDirectory, "archive_status");
  for (const name of segments) {
    copyFileSync(join(cluster.segmentDirectory, name), join(walDirectory, name));
    writeFileSync(join(status, `${name}.ready`), "");
  }
  const notes = join(`${dirname(walDirectory)}.walnut`, "notes");
  const noteCount = () => readdirSync(notes).filter((name) => segments.includes(name)).length;
  // At most so many are ahead of PostgreSQL: those are taken as done.
  const [first = "", ...others] = segments;
  await measure(called(command, first, `pg_wal/${first}`), options);
  // As PostgreSQL does: the drainer waits for it before it begins with what follows.
  renameSync(join(status, `${first}.ready`), join(status, `${first}.done`));
  await untilTrue(() => noteCount() >= Math.min(others.length, 31));
  for (const name of others) await measure(called(command, name, `pg_wal/${name}`), options);
}

function isFetched(dataDirectory: string, name: string): boolean {
  const prefetch = join(`${dataDirectory}.walnut`, "prefetch");
  const places = readdirSync(prefetch).filter((place) => !place.endsWith(".landing"));
  return places.some((place) => existsSync(join(prefetch, place, name)));
}

async function untilTrue(isTrue: () => boolean): Promise<void> {
  const endsAt = performance.now() + WAIT_MS;
  while (!isTrue()) {
    if (performance.now() > endsAt) throw new Error("the work ahead is not done");
    await new Promise((resolve) => setTimeout(resolve, 10));
  }
}
