import { rmSync } from "node:fs";
import { join } from "node:path";
import type { BenchCluster } from "./bench-cluster.ts";
import { compare, formatTable } from "./figures.ts";
import { pgBackRestPeer, walnutPeer } from "./peers.ts";
import { measure } from "./process.ts";

/** One process for one segment, nothing else pending: into a directory, and out of it again. */
export async function walTables(
  cluster: BenchCluster,
  binary: string,
  rounds: number,
): Promise<string[]> {
  const segments = cluster.segments();
  const segmentAt = (round: number) => segments[round % segments.length] ?? "";
  const path = (round: number) => join(cluster.segmentDirectory, segmentAt(round));
  if (segments.length < rounds) throw new Error(`${segments.length} segments for ${rounds} rounds`);

  const walnut = walnutPeer(cluster, binary, { name: "walnut-wal" });
  const pgBackRest = await pgBackRestPeer(cluster);
  const target = join(cluster.dataDirectory, "RECOVERYXLOG");
  const plain = join(walnut.repository, "plain.zst");
  const zstd = `zstd -1 -q -T1 -f -o ${plain}`;

  const push = await compare(
    [
      {
        name: "walnut wal-push",
        run: (round) => measure([...walnut.words, "wal-push", path(round)], walnut.options),
      },
      {
        name: "pgBackRest archive-push",
        run: (round) =>
          measure([...pgBackRest.words, "archive-push", path(round)], pgBackRest.options),
      },
      {
        name: "zstd -1, sync",
        run: (round) =>
          measure(["sh", "-c", `${zstd} ${path(round)} && sync ${plain}`], walnut.options),
      },
    ],
    rounds,
  );
  const fetch = await compare(
    [
      {
        name: "walnut wal-fetch",
        run: (round) =>
          measure([...walnut.words, "wal-fetch", segmentAt(round), target], walnut.options),
      },
      {
        name: "pgBackRest archive-get",
        run: (round) =>
          measure(
            [...pgBackRest.words, "archive-get", segmentAt(round), target],
            pgBackRest.options,
          ),
      },
    ],
    rounds,
  );
  rmSync(target, { force: true });
  return [
    formatTable("One segment into a directory store (zstd 1)", push),
    formatTable("One segment out of a directory store", fetch),
  ];
}
