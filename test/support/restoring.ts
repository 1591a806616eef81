import { lstatSync, readdirSync, readFileSync, readlinkSync } from "node:fs";
import { join } from "node:path";
import { fetchBackup, type RestoreOptions, type RestoreReport } from "../../src/backup/restore.ts";
import type { Log, LogFields } from "../../src/io/log.ts";
import type { Storage } from "../../src/storage/storage.ts";
import { SYNTHETIC_NAME } from "./synthetic-backup.ts";

/** Lines as "warning: text {fields}". */
export function collectingLog(): Log & { readonly lines: string[] } {
  const lines: string[] = [];
  const add =
    (level: string) =>
    (text: string, fields?: LogFields): void => {
      lines.push(`${level}: ${text}${fields === undefined ? "" : ` ${JSON.stringify(fields)}`}`);
    };
  return {
    lines,
    debug: add("debug"),
    info: add("info"),
    warning: add("warning"),
    error: add("error"),
  };
}

/** fetchBackup with what most tests want; fsync only on request, because it is slow. */
export async function restoreInto(
  storage: Storage,
  destination: string,
  options: Partial<RestoreOptions> & { readonly backup?: string } = {},
): Promise<RestoreReport> {
  const { backup = SYNTHETIC_NAME, ...rest } = options;
  return await fetchBackup(storage, backup, destination, {
    tablespaces: { mappings: [] },
    downloadConcurrency: 4,
    codecJobs: 2,
    fsync: false,
    log: collectingLog(),
    signal: AbortSignal.timeout(600_000),
    onProgress: () => {},
    ...rest,
  });
}

/**
 * Everything below a directory, links not followed: "file 0600 <content>", "directory 0700" or
 * "link <target>" by path. Long contents are cut in the middle of nothing: they stay whole.
 */
export function snapshot(root: string): ReadonlyMap<string, string> {
  const found = new Map<string, string>([["", `directory ${modeText(root)}`]]);
  for (const path of readdirSync(root, { recursive: true, encoding: "utf8" }).toSorted()) {
    const absolute = join(root, path);
    const stats = lstatSync(absolute);
    if (stats.isSymbolicLink()) found.set(path, `link ${readlinkSync(absolute)}`);
    else if (stats.isDirectory()) found.set(path, `directory ${modeText(absolute)}`);
    else found.set(path, `file ${modeText(absolute)} ${readFileSync(absolute, "latin1")}`);
  }
  return found;
}

function modeText(path: string): string {
  return (lstatSync(path).mode & 0o7777).toString(8).padStart(4, "0");
}
