import {
  chmodSync,
  chownSync,
  mkdirSync,
  readdirSync,
  rmSync,
  statSync,
  writeFileSync,
} from "node:fs";
import { join } from "node:path";
import type { BenchCluster } from "./bench-cluster.ts";
import { walnutPeer } from "./peers.ts";
import { measure, type Measurement } from "./process.ts";

const PAGE_BYTES = 8192;
/** Object numbers that no server of a bench gets to. */
const FIRST_FILE = 100_000_000;
/** Of a page, in the middle: as much as rows of text leave when they are compressed. */
const RANDOM_BYTES = 2048;

/**
 * As many small tables as are asked for, in one database: files of one page each, which the server
 * does not know. A full backup, an increment without a change, and the restore of both.
 */
export async function filesTable(
  cluster: BenchCluster,
  binary: string,
  fileCount: number,
): Promise<string> {
  const walnut = walnutPeer(cluster, binary, { name: "walnut-files" });
  cluster.setArchiveCommand(walnut.archiveCommand);
  makeFiles(cluster, fileCount);
  const push = (...words: string[]) =>
    measure([...walnut.words, "backup-push", cluster.dataDirectory, ...words], walnut.options);
  const target = join(cluster.home, "restored");
  const fetch = async () => {
    rmSync(target, { recursive: true, force: true });
    mkdirSync(target);
    const { uid, gid } = statSync(cluster.dataDirectory);
    chownSync(target, uid, gid);
    chmodSync(target, 0o700);
    return await measure([...walnut.words, "backup-fetch", target, "LATEST"], walnut.options);
  };
  const rows: (readonly [name: string, Measurement])[] = [];
  rows.push(["backup-push --full", await push("--full")]);
  rows.push(["backup-fetch of it", await fetch()]);
  rows.push([
    "backup-push --type incr, page scan",
    await push("--type", "incr", "--changes", "page-scan"),
  ]);
  rows.push(["backup-push --type incr, WAL", await push("--type", "incr", "--changes", "wal")]);
  rows.push(["backup-fetch of the chain of three", await fetch()]);
  rmSync(target, { recursive: true, force: true });
  return [
    `### ${fileCount} files of ${PAGE_BYTES} bytes`,
    "",
    "| | wall ms | CPU ms | peak MiB | files/s | files per CPU second |",
    "| --- | --- | --- | --- | --- | --- |",
    ...rows.map(([name, { wallMs, cpuMs, peakMiB }]) => {
      const cells = [wallMs, cpuMs, peakMiB].map((value) => value.toFixed(0));
      return `| ${[name, ...cells, rate(fileCount, wallMs), rate(fileCount, cpuMs)].join(" | ")} |`;
    }),
    "",
  ].join("\n");
}

/** Pages with a header that a scan understands, each with content of its own. */
function makeFiles({ dataDirectory }: BenchCluster, fileCount: number): void {
  const base = join(dataDirectory, "base");
  const database = readdirSync(base).toSorted((one, other) => Number(other) - Number(one))[0];
  const directory = join(base, database ?? "");
  const { uid, gid } = statSync(directory);
  const page = Buffer.alloc(PAGE_BYTES);
  page.writeUInt32LE(1, 4);
  page.writeUInt16LE(28, 12);
  page.writeUInt16LE(PAGE_BYTES - RANDOM_BYTES, 14);
  page.writeUInt16LE(PAGE_BYTES, 16);
  page.writeUInt16LE(PAGE_BYTES | 4, 18);
  for (let number = 0; number < fileCount; number += 1) {
    let state = number + 1;
    for (let at = PAGE_BYTES - RANDOM_BYTES; at < PAGE_BYTES; at += 4) {
      state = (Math.imul(state, 1_664_525) + 1_013_904_223) >>> 0;
      page.writeUInt32LE(state, at);
    }
    const path = join(directory, String(FIRST_FILE + number));
    writeFileSync(path, page, { mode: 0o600 });
    chownSync(path, uid, gid);
  }
}

function rate(count: number, ms: number): string {
  return ((count / ms) * 1000).toFixed(0);
}
