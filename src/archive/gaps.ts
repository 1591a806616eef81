import { readdir, readFile, rename, rm } from "node:fs/promises";
import { join } from "node:path";
import { LocalFileError, ObjectExistsError, systemErrorCode } from "../errors.ts";
import { bytesSource } from "../io/bytes.ts";
import { writeFileDurably } from "../io/durable.ts";
import { localFileError } from "../io/system-error.ts";
import { gapKey } from "../layout/keys.ts";
import { parseWalFileName } from "../postgres/wal-file.ts";
import type { CallOptions, Storage } from "../storage/storage.ts";
import { writeIntoSpare } from "./spare-records.ts";
import { describeWriter, isSameWriter } from "./writer.ts";
import { readWriterClaim } from "./writer-claims.ts";

/** A segment that was acknowledged to PostgreSQL without being stored. */
export interface Gap {
  /** 24 digits. */
  readonly name: string;
  readonly systemId: bigint | undefined;
  /** Milliseconds since 1970. */
  readonly atMs: number;
  /** Why the store did not have it in time. */
  readonly reason: string;
  /** Whether the server only had a copy of WAL that another one makes. */
  readonly isCopy: boolean;
}

/** Whose gaps they are. */
export interface GapOwner {
  readonly dataDirectory: string;
  /** WALNUT_SERVER_NAME. */
  readonly serverName: string | undefined;
  /** Whether a gap asks for a backup; see GAP.md. */
  readonly isBackupWanted: boolean;
}

const SUFFIX = ".json";
/** Of records that are no business of the repository. */
const KEPT_SUFFIX = ".not-shipped";
/** Of records that the store has, as long as no backup was begun behind them. */
const WISH_SUFFIX = ".needs-backup";

const COPY = "follower";

/**
 * Writes a gap down, on a full disk in the place of a spare; survives a power cut once resolved.
 * Rejects with LocalFileError.
 */
export async function recordGap(directory: string, gap: Gap, options: CallOptions): Promise<void> {
  const record = JSON.stringify({
    version: 1,
    wal: gap.name,
    system_identifier: gap.systemId?.toString() ?? "",
    time: new Date(gap.atMs).toISOString(),
    reason: gap.reason,
    role: gap.isCopy ? COPY : "primary",
  });
  const [name, text] = [`${gap.name}${SUFFIX}`, `${record}\n`];
  try {
    await writeFileDurably(join(directory, name), Buffer.from(text), options);
  } catch (error) {
    if (!(error instanceof LocalFileError)) throw error;
    if (!(await writeIntoSpare(directory, { name, text }))) throw error;
  }
}

/** The segments with a record that the store lacks. In order; rejects with LocalFileError. */
export async function listLocalGaps(directory: string): Promise<readonly string[]> {
  return await listRecords(directory, SUFFIX);
}

/**
 * The segments that the store knows to be given up, and behind which a backup is wanted. In order;
 * rejects with LocalFileError.
 */
export async function listBackupWishes(directory: string): Promise<readonly string[]> {
  return await listRecords(directory, WISH_SUFFIX);
}

/** There is a backup behind the gap, or it is none any more. */
export async function removeBackupWish(directory: string, name: string): Promise<void> {
  await rm(join(directory, `${name}${WISH_SUFFIX}`), { force: true });
}

async function listRecords(directory: string, suffix: string): Promise<readonly string[]> {
  try {
    return (await readdir(directory))
      .filter((entry) => entry.endsWith(suffix))
      .map((entry) => entry.slice(0, -suffix.length))
      .filter((name) => parseWalFileName(name)?.kind === "segment")
      .toSorted();
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
 * Copies the records to the store, where backups and restores see them, and removes them here, or
 * keeps them as wishes for a backup. Gives the names. What is written once is never changed. A
 * clone does not speak for the server that writes the timeline: its records stay here, under
 * another name.
 */
export async function shipGaps(
  storage: Storage,
  directory: string,
  owner: GapOwner,
  options: CallOptions,
): Promise<readonly string[]> {
  const shipped: string[] = [];
  for (const name of await listLocalGaps(directory)) {
    const path = join(directory, `${name}${SUFFIX}`);
    const text = await readFile(path, "utf8").catch((error: unknown) => {
      // The drainer and a wal-push may both be at it.
      if (systemErrorCode(error) === "ENOENT") return undefined;
      throw localFileError("read", path, error);
    });
    if (text === undefined) continue;
    if (!isOfCopy(text) && !(await isOurs(storage, name, owner, options))) {
      await keepAside(directory, name, KEPT_SUFFIX);
      continue;
    }
    try {
      const body = bytesSource(Buffer.from(text));
      await storage.put(gapKey(name), body, { ...options, ifAbsent: true });
    } catch (error) {
      if (!(error instanceof ObjectExistsError)) throw error;
    }
    if (owner.isBackupWanted && !isOfCopy(text)) await keepAside(directory, name, WISH_SUFFIX);
    else await rm(path, { force: true });
    shipped.push(name);
  }
  return shipped;
}

async function keepAside(directory: string, name: string, suffix: string): Promise<void> {
  const path = join(directory, `${name}${SUFFIX}`);
  try {
    await rename(path, join(directory, `${name}${suffix}`));
  } catch (error) {
    if (systemErrorCode(error) !== "ENOENT") throw localFileError("rename", path, error);
  }
}

async function isOurs(
  storage: Storage,
  name: string,
  { dataDirectory, serverName }: GapOwner,
  options: CallOptions,
): Promise<boolean> {
  const claim = await readWriterClaim(storage, Number.parseInt(name.slice(0, 8), 16), options);
  if (claim === undefined) return true;
  return isSameWriter(claim, await describeWriter(dataDirectory, serverName));
}

function isOfCopy(text: string): boolean {
  try {
    const record: unknown = JSON.parse(text);
    const isRecord = typeof record === "object" && record !== null;
    return isRecord && new Map<string, unknown>(Object.entries(record)).get("role") === COPY;
  } catch {
    return false;
  }
}
