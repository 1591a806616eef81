import { spawnSync } from "node:child_process";
import { copyFileSync, existsSync, mkdirSync, readdirSync, rmSync, writeFileSync } from "node:fs";
import { dirname, join } from "node:path";
import type { BenchCluster } from "./bench-cluster.ts";
import { compare, formatTable } from "./figures.ts";
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
  const walnut = walnutPeer(cluster, binary, { name: "walnut-hit" });
  const dataDirectory = join(cluster.home, "hit");
  const walDirectory = join(dataDirectory, "pg_wal");
  const segments = writeSegments(cluster, 2 * rounds + 2).slice(0, 2 * rounds + 2);
  mkdirSync(join(walDirectory, "archive_status"), { recursive: true });
  mkdirSync(join(dataDirectory, "global"));
  const control = "global/pg_control";
  copyFileSync(join(cluster.dataDirectory, control), join(dataDirectory, control));
  // This program is the server, and the process that starts the shell.
  writeFileSync(join(dataDirectory, "postmaster.pid"), `${process.pid}\n${dataDirectory}\n1\n`);
  writeFileSync(join(dataDirectory, "recovery.signal"), "");
  const owned = { ...cluster, user: undefined };
  const { archiveCommand, restoreCommand } = setupLines(owned, walnut, dataDirectory);

  const options = { cwd: dataDirectory };
  await archiveAll(segments, { cluster, walDirectory, command: archiveCommand, options });
  const noted = join(`${dataDirectory}.walnut`, "notes", String(process.pid));
  let at = 0;
  const nextReady = async () => {
    rmSync(join(walDirectory, "RECOVERYXLOG"), { force: true });
    at += 1;
    await untilThere(() => isFetched(dataDirectory, segments[at] ?? ""));
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
        run: (round) =>
          measure(
            called(archiveCommand, segments[round] ?? "", `pg_wal/${segments[round]}`),
            options,
          ),
      },
      {
        name: "archive_command, by walnut wal-push",
        run: (round) =>
          measure([...walnut.words, "wal-push", `pg_wal/${segments[round]}`], options),
      },
    ],
    rounds,
  );
  if (!existsSync(noted)) throw new Error("the drainer did not vouch for this process");
  rmSync(join(dataDirectory, "postmaster.pid"));
  return formatTable("A call whose work is done already", rows);
}

/** As PostgreSQL calls a command for a file. */
function called(command: string, name: string, path: string): string[] {
  const text = command.replaceAll("%f", name).replaceAll("%p", path).replaceAll("%%", "%");
  return ["sh", "-c", text];
}

interface Archiving {
  readonly cluster: BenchCluster;
  readonly walDirectory: string;
  readonly command: string;
  readonly options: { readonly cwd: string };
}

/** Until the drainer has a note of every segment, and the shell may believe them. */
async function archiveAll(
  segments: readonly string[],
  { cluster, walDirectory, command, options }: Archiving,
): Promise<void> {
  for (const name of segments) {
    copyFileSync(join(cluster.segmentDirectory, name), join(walDirectory, name));
    writeFileSync(join(walDirectory, "archive_status", `${name}.ready`), "");
  }
  const notes = join(`${dirname(walDirectory)}.walnut`, "notes");
  const noteCount = () => readdirSync(notes).filter((name) => segments.includes(name)).length;
  // At most so many are ahead of PostgreSQL: those are taken as done.
  const [first = ""] = segments;
  await measure(called(command, first, `pg_wal/${first}`), options);
  await untilThere(() => noteCount() >= Math.min(segments.length - 1, 31));
  for (const name of segments) {
    spawnSync("sh", called(command, name, `pg_wal/${name}`).slice(1), options);
  }
}

function isFetched(dataDirectory: string, name: string): boolean {
  const prefetch = join(`${dataDirectory}.walnut`, "prefetch");
  const places = readdirSync(prefetch).filter((place) => !place.endsWith(".landing"));
  return places.some((place) => existsSync(join(prefetch, place, name)));
}

async function untilThere(isThere: () => boolean): Promise<void> {
  const endsAt = performance.now() + WAIT_MS;
  while (!isThere()) {
    if (performance.now() > endsAt) throw new Error("the work ahead is not done");
    await new Promise((resolve) => setTimeout(resolve, 10));
  }
}
