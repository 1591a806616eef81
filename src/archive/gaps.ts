import { readdir, readFile, rm } from "node:fs/promises";
import { join } from "node:path";
import { ObjectExistsError, systemErrorCode } from "../errors.ts";
import { bytesSource } from "../io/bytes.ts";
import { writeFileDurably } from "../io/durable.ts";
import { localFileError } from "../io/system-error.ts";
import { gapKey } from "../layout/keys.ts";
import { parseWalFileName } from "../postgres/wal-file.ts";
import type { CallOptions, Storage } from "../storage/storage.ts";

/** A segment that was acknowledged to PostgreSQL without being stored. */
export interface Gap {
  /** 24 digits. */
  readonly name: string;
  readonly systemId: bigint | undefined;
  /** Milliseconds since 1970. */
  readonly atMs: number;
  /** Why the store did not have it in time. */
  readonly reason: string;
}

const SUFFIX = ".json";

/** Writes a gap down; survives a power cut once resolved. Rejects with LocalFileError. */
export async function recordGap(directory: string, gap: Gap, options: CallOptions): Promise<void> {
  const text = JSON.stringify({
    version: 1,
    wal: gap.name,
    system_identifier: gap.systemId?.toString() ?? "",
    time: new Date(gap.atMs).toISOString(),
    reason: gap.reason,
  });
  await writeFileDurably(
    join(directory, `${gap.name}${SUFFIX}`),
    Buffer.from(`${text}\n`),
    options,
  );
}

/** The segments with a record here. Rejects with LocalFileError. */
export async function listLocalGaps(directory: string): Promise<readonly string[]> {
  try {
    return (await readdir(directory))
      .filter((entry) => entry.endsWith(SUFFIX))
      .map((entry) => entry.slice(0, -SUFFIX.length))
      .filter((name) => parseWalFileName(name)?.kind === "segment");
  } catch (error) {
    if (systemErrorCode(error) === "ENOENT") return [];
    throw localFileError("list", directory, error);
  }
}

/** Takes back the record of a segment that was stored after all. */
export async function forgetGap(directory: string, name: string): Promise<void> {
  await rm(join(directory, `${name}${SUFFIX}`), { force: true });
}

/**
 * Copies the records to the store, where backups and restores see them, and removes them here.
 * Gives the names. What is written once is never changed.
 */
export async function shipGaps(
  storage: Storage,
  directory: string,
  options: CallOptions,
): Promise<readonly string[]> {
  const names = await listLocalGaps(directory);
  for (const name of names) {
    const path = join(directory, `${name}${SUFFIX}`);
    const text = await readFile(path).catch((error: unknown) => {
      throw localFileError("read", path, error);
    });
    try {
      await storage.put(gapKey(name), bytesSource(text), { ...options, ifAbsent: true });
    } catch (error) {
      if (!(error instanceof ObjectExistsError)) throw error;
    }
    await rm(path, { force: true });
  }
  return names;
}
