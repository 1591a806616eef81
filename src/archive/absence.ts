import { DamagedError, type OperationError, StorageError, WrongClusterError } from "../errors.ts";
import { parseWalFileName } from "../postgres/wal-file.ts";
import type { CallOptions, Storage } from "../storage/storage.ts";
import { holdsRepository, readRepositoryIdentity } from "./identity.ts";
import {
  findHiddenTimeline,
  findHole,
  findHoleBeforeFork,
  findOrphan,
  gapError,
  hiddenTimelineError,
  holeError,
  isGivenUp,
  lostHistoryError,
} from "./stored-gaps.ts";

/** A WAL file that a server asked for, and that no list of the archive has. */
export interface AbsentWal {
  /** As PostgreSQL calls it. */
  readonly name: string;
  /** Of the data directory, where that is known. */
  readonly systemId?: bigint | undefined;
  /** Of the data directory's last checkpoint, where that is known. */
  readonly timeline?: number | undefined;
  /** wal_segment_size of that data directory. */
  readonly segmentBytes?: number | undefined;
}

export interface AbsenceOptions extends CallOptions {
  /** Whether recovery may end though there is more WAL. */
  readonly canEndAtHole?: boolean | undefined;
}

/**
 * Why recovery must not take it for the end of the archive that a WAL file is not there; undefined
 * where it is the end.
 */
export async function judgeAbsence(
  storage: Storage,
  absent: AbsentWal,
  { canEndAtHole, ...options }: AbsenceOptions,
): Promise<OperationError | undefined> {
  const { name, systemId } = absent;
  const place = storage.name;
  const main = storage.primary ?? storage;
  const first = main.first ?? main;
  const owner = systemId === undefined ? undefined : await readOwner(first, options);
  if (owner !== undefined && owner !== systemId) {
    return otherClusterError({ place: first.name, owner, systemId });
  }
  if (owner === undefined && !(await holdsRepository(first, options))) {
    return noRepositoryError(first.name);
  }
  if (await isGivenUp(storage, name, options)) return gapError(name, place);
  if (canEndAtHole === true) return undefined;
  const kind = parseWalFileName(name)?.kind;
  if (kind === "history") return await judgeHistory(storage, absent, options);
  return kind === "segment" ? await judgeSegment(storage, absent, options) : undefined;
}

/** Undefined where no walnut has written, or its note can't be read. */
async function readOwner(storage: Storage, options: CallOptions): Promise<bigint | undefined> {
  try {
    return await readRepositoryIdentity(storage, options);
  } catch (error) {
    if (error instanceof DamagedError) return undefined;
    throw error;
  }
}

/** Of a name that both clusters have the segment itself tells; of this one nothing else does. */
function otherClusterError({
  place,
  owner,
  systemId,
}: {
  readonly place: string;
  readonly owner: bigint;
  readonly systemId: bigint | undefined;
}): WrongClusterError {
  return new WrongClusterError(
    `${place} is the repository of cluster ${owner}, the data directory is of cluster ${systemId}`,
    { hint: "restore_command reads the archive of another cluster: correct its prefix." },
  );
}

/**
 * A file system that is not mounted and a wrong prefix look empty, and recovery would end there. Of
 * several stores the first decides: what another one lacks, it may have had.
 */
function noRepositoryError(place: string): StorageError {
  return new StorageError(`${place} holds no repository: neither WAL nor backups`, {
    isRetryable: false,
    hint:
      "That says nothing about what is archived. Is the prefix the right one, and is its file " +
      "system mounted? `walnut config` shows where each setting comes from. Where other stores hold " +
      "the repository, name the one to use with --target-storage, or take this one out of the settings. " +
      "One that is new and right to be empty counts from the first archived segment on, or from " +
      "`walnut st transfer files walnut_005/cluster.json --source NAME`, with the name of another one.",
  });
}

async function judgeHistory(
  storage: Storage,
  { name, timeline }: AbsentWal,
  options: CallOptions,
): Promise<OperationError | undefined> {
  // Of its own timeline recovery needs no history: all that it replays is on it.
  if ((parseWalFileName(name)?.timeline ?? 0) <= (timeline ?? 0)) return undefined;
  const orphan = await findOrphan(storage, name, options);
  if (orphan !== undefined) return lostHistoryError(name, orphan, storage.name);
  if (timeline === undefined) return undefined;
  const hidden = await findHiddenTimeline(storage, { history: name, timeline }, options);
  return hidden === undefined ? undefined : hiddenTimelineError(name, hidden, storage.name);
}

async function judgeSegment(
  storage: Storage,
  { name, segmentBytes }: AbsentWal,
  options: CallOptions,
): Promise<OperationError | undefined> {
  const later = await findHole(storage, name, options);
  if (later !== undefined) return holeError(name, later, storage.name);
  if (segmentBytes === undefined) return undefined;
  const left = await findHoleBeforeFork(storage, { segment: name, segmentBytes }, options);
  return left === undefined ? undefined : holeError(name, left, storage.name);
}

/** Nothing was found, but a store that may have it did not answer: `cause` is why. */
export function unprovedError(name: string, cause: unknown): StorageError {
  const reason = cause instanceof Error ? cause.message : String(cause);
  return new StorageError(
    `it is not known whether WAL file ${name} is in the archive: a store that may have it did ` +
      `not answer (${reason})`,
    {
      isRetryable: true,
      hint:
        "Recovery must not end here. Ask again when the store is back; one that is gone for good " +
        "has to be taken out of the settings.",
      cause,
    },
  );
}
