/** WAL files that a real PostgreSQL wrote a moment ago, in memory. */
import { readdir, readFile } from "node:fs/promises";
import { join } from "node:path";
import { parseDataPageHeader } from "../../src/postgres/data-page.ts";
import type { Lsn } from "../../src/postgres/lsn.ts";
import { parseRelationPath, type RelationFile } from "../../src/postgres/relation-file.ts";
import { type Major, startCluster } from "./postgres.ts";
import { prepareWorkload, runWorkload, WORKLOAD_SETTINGS } from "./wal-workload.ts";

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
  return await readWal(cluster.dataDirectory, { first, last, segmentMiB });
}

async function readWal(
  dataDirectory: string,
  { first, last, segmentMiB }: { first: string; last: string; segmentMiB: number },
): Promise<RealWal> {
  const directory = join(dataDirectory, "pg_wal");
  const names = (await readdir(directory))
    .filter((name) => /^[0-9A-F]{24}$/.test(name) && name >= first && name <= last)
    .toSorted();
  const files = new Map<string, Buffer>();
  for (const name of names) files.set(name, await readFile(join(directory, name)));
  const control = await readFile(join(dataDirectory, "global", "pg_control"));
  return {
    systemId: control.readBigUInt64LE(0),
    segmentBytes: segmentMiB * 1024 * 1024,
    segments: names,
    files,
    control,
  };
}

/** Records of all kinds, and the pages that they left in the data directory. */
export interface RecordedWorkload extends RealWal {
  readonly pages: readonly WrittenPage[];
}

/** A page of a main fork that is not all zeros. */
export interface WrittenPage {
  readonly file: RelationFile;
  /** Number in the file. */
  readonly block: number;
  readonly lsn: Lsn;
}

/** Makes a cluster, runs wal-workload.ts in it, and removes it again. */
export async function recordWorkload(major: Major): Promise<RecordedWorkload> {
  await using cluster = await startCluster({
    major,
    segmentMiB: 1,
    settings: {
      ...WORKLOAD_SETTINGS,
      archive_mode: "on",
      archive_command: "false",
      autovacuum: "off",
    },
  });
  await prepareWorkload(cluster);
  await cluster.switchWal();
  await cluster.query("CHECKPOINT");
  const first = await cluster.switchWal();
  await runWorkload(cluster, await cluster.makeDirectory("elsewhere"));
  const last = await cluster.switchWal();
  await cluster.stop();
  const wal = await readWal(cluster.dataDirectory, { first, last, segmentMiB: 1 });
  return { ...wal, pages: await readPages(cluster.dataDirectory) };
}

/** Of a server that is stopped. */
export async function readPages(dataDirectory: string): Promise<readonly WrittenPage[]> {
  const pages: WrittenPage[] = [];
  for (const path of await readdir(dataDirectory, { recursive: true })) {
    const file = parseRelationPath(path);
    if (file?.fork !== "main" || file.isTemporary) continue;
    const content = await readFile(join(dataDirectory, path));
    for (let at = 0; at + 8192 <= content.length; at += 8192) {
      const page = content.subarray(at, at + 8192);
      const { lsn } = parseDataPageHeader(page);
      if (lsn !== 0n) pages.push({ file, block: at / 8192, lsn });
    }
  }
  return pages;
}

/** The content of a WAL file that was recorded. */
export function walFile(wal: RealWal, name: string | undefined): Buffer {
  const content = name === undefined ? undefined : wal.files.get(name);
  if (content === undefined) throw new Error(`no WAL file ${name} was recorded`);
  return content;
}

/** The same content as a segment of another timeline, 1 to 9: its pages name it. */
export function onTimeline(
  wal: RealWal,
  name: string,
  timeline: number,
): { readonly name: string; readonly bytes: Buffer } {
  const bytes = Buffer.from(walFile(wal, name));
  for (let page = 0; page < bytes.length; page += 8192) bytes.writeUInt32LE(timeline, page + 4);
  return { name: name.replace(/^.{8}/, `0000000${timeline}`), bytes };
}
