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
/** Of every page: a position in WAL, before all that a bench does. What is below 40 is none. */
const OLD_LSN = 0x1000100;
/** Of a page, in the middle: as much as rows of text leave when they are compressed. */
const RANDOM_BYTES = 2048;

/**
 * As many small tables as are asked for, in one database: files of one page each, which the server
 * does not know. A full backup, increments without a change, and the restores, beside tar and zstd.
 * The files are gone before they are restored, so that a file system in memory holds them once.
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
  const emptyTarget = () => {
    rmSync(target, { recursive: true, force: true });
    mkdirSync(target);
    const { uid, gid } = statSync(cluster.dataDirectory);
    chownSync(target, uid, gid);
    chmodSync(target, 0o700);
  };
  const fetch = async (...words: string[]) => {
    emptyTarget();
    return await measure([...walnut.words, "backup-fetch", target, ...words], walnut.options);
  };
  const tarball = join(walnut.repository, "plain.tar.zst");
  const pack = `tar -c -C ${cluster.dataDirectory} . | zstd -1 -T2 -q -f -o ${tarball}`;
  const rows: (readonly [name: string, Measurement])[] = [];
  rows.push(["backup-push --full", await push("--full", "--add-user-data", '"full"')]);
  // tar says 1 for a file that changed while it was read.
  rows.push(["tar, zstd -T2", await measure(["bash", "-c", `${pack}; true`], walnut.options)]);
  rows.push([
    "backup-push --type incr, page scan",
    await push("--type", "incr", "--changes", "page-scan"),
  ]);
  rows.push(["backup-push --type incr, WAL", await push("--type", "incr", "--changes", "wal")]);
  removeFiles(cluster, fileCount);
  rows.push(["backup-fetch of the full one", await fetch("--target-user-data", '"full"')]);
  rows.push(["backup-fetch of the chain of three", await fetch("LATEST")]);
  const unpack = `zstd -d -q -c ${tarball} | tar -x -C ${target}`;
  emptyTarget();
  rows.push(["zstd -d, tar -x", await measure(["bash", "-c", unpack], walnut.options)]);
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

function databaseDirectory({ dataDirectory }: BenchCluster): string {
  const base = join(dataDirectory, "base");
  // Beside databases there may be a directory of temporary files.
  const oids = readdirSync(base).filter((name) => /^\d+$/.test(name));
  return join(base, String(Math.min(...oids.map(Number))));
}

function removeFiles(cluster: BenchCluster, fileCount: number): void {
  const directory = databaseDirectory(cluster);
  for (let number = 0; number < fileCount; number += 1) {
    rmSync(join(directory, String(FIRST_FILE + number)));
  }
}

/** Pages with a header that a scan understands, each with content of its own. */
function makeFiles(cluster: BenchCluster, fileCount: number): void {
  const directory = databaseDirectory(cluster);
  const { uid, gid } = statSync(directory);
  const page = Buffer.alloc(PAGE_BYTES);
  page.writeUInt32LE(OLD_LSN, 4);
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
