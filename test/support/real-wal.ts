/** WAL files that a real PostgreSQL wrote a moment ago, in memory. */
import { readdir, readFile } from "node:fs/promises";
import { join } from "node:path";
import { type Major, startCluster } from "./postgres.ts";

export interface RealWal {
  readonly systemId: bigint;
  readonly segmentBytes: number;
  /** Names of complete segments in order; the last one ends with a switch record. */
  readonly segments: readonly string[];
  /** By name. */
  readonly files: ReadonlyMap<string, Buffer>;
  /** The content of pg_control. */
  readonly control: Buffer;
}

/** Makes a cluster, writes `segmentCount` segments of random rows with it, and removes it again. */
export async function recordWal({
  major = 17,
  segmentMiB = 1,
  segmentCount = 4,
}: {
  readonly major?: Major;
  readonly segmentMiB?: number;
  readonly segmentCount?: number;
} = {}): Promise<RealWal> {
  await using cluster = await startCluster({
    major,
    segmentMiB,
    settings: {
      // Nothing is archived, and so nothing recycled, while we look.
      archive_mode: "on",
      archive_command: "false",
      autovacuum: "off",
      checkpoint_timeout: "1h",
      max_wal_size: "1GB",
    },
  });
  await cluster.query("CREATE TABLE filler (id bigserial PRIMARY KEY, content text)");
  const first = await cluster.switchWal();
  const rows = segmentMiB * 700;
  for (let round = 1; round < segmentCount; round += 1) {
    await cluster.query(
      `INSERT INTO filler (content)
       SELECT string_agg(md5(random()::text), '') FROM generate_series(1, ${rows}) AS n,
              generate_series(1, 40) GROUP BY n`,
    );
  }
  const last = await cluster.switchWal();
  await cluster.stop();

  const directory = join(cluster.dataDirectory, "pg_wal");
  const names = (await readdir(directory))
    .filter((name) => /^[0-9A-F]{24}$/.test(name) && name >= first && name <= last)
    .toSorted();
  const files = new Map<string, Buffer>();
  for (const name of names) files.set(name, await readFile(join(directory, name)));
  const control = await readFile(join(cluster.dataDirectory, "global", "pg_control"));
  return {
    systemId: control.readBigUInt64LE(0),
    segmentBytes: segmentMiB * 1024 * 1024,
    segments: names,
    files,
    control,
  };
}

/** The content of a WAL file that was recorded. */
export function walFile(wal: RealWal, name: string | undefined): Buffer {
  const content = name === undefined ? undefined : wal.files.get(name);
  if (content === undefined) throw new Error(`no WAL file ${name} was recorded`);
  return content;
}
