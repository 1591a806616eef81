import { join } from "node:path";
import type { Codec } from "../codec/codec.ts";
import {
  type DatabaseIdentity,
  readDatabaseIdentities,
} from "../connection/database-identities.ts";
import { readRestartpoint } from "../connection/backup-session.ts";
import type { ServerFacts } from "../connection/server-facts.ts";
import type { Session } from "../connection/session.ts";
import { readWalPosition } from "../connection/wal-position.ts";
import type { HashAlgorithm } from "../io/hash.ts";
import type { Log } from "../io/log.ts";
import type { IncrementBase } from "../layout/sentinel.ts";
import type { Lsn } from "../postgres/lsn.ts";
import type { Storage } from "../storage/storage.ts";
import { type ChangeWay, findChanges, type FindChangesOptions } from "./change-sources.ts";
import type { BaseRequest, BaseServer } from "./increment-choice.ts";
import { findBase, type LoadedBase, type NewBackup, readLocalHistory } from "./increment-origin.ts";
import type { DocumentsSpool } from "./documents-spool.ts";
import { FileJudge } from "./file-judge.ts";
import type { PageVerifier } from "./page-verifier.ts";

interface World {
  readonly storage: Storage;
  readonly log: Log;
  readonly signal: AbortSignal;
}

/** What the user wants of a new backup, apart from what counts for all backups. */
export interface IncrementRequest extends Omit<BaseRequest, "isPermanent"> {
  /** How changed blocks may be found, the best way first; all ways unless told. */
  readonly ways?: readonly ChangeWay[] | undefined;
}

export interface IncrementSettings {
  readonly increments: IncrementRequest;
  readonly isPermanent: boolean;
  readonly hasFilesMetadata: boolean;
  readonly hash: HashAlgorithm;
  readonly zstd: Codec;
}

/** What a base has to fit; read before the backup starts. */
export async function readBaseServer(
  session: Session,
  { facts, dataDirectory }: { readonly facts: ServerFacts; readonly dataDirectory: string },
  { hash }: Pick<IncrementSettings, "hash">,
  world: World,
): Promise<BaseServer & NewBackup> {
  const position = await readWalPosition(session, world);
  return {
    systemId: facts.systemId,
    majorVersion: facts.majorVersion,
    history: await readLocalHistory(join(dataDirectory, "pg_wal"), position.timeline),
    // A standby's backup begins earlier than where it stands.
    currentLsn: facts.isInRecovery ? await readRestartpoint(session, world) : position.lsn,
    hasChecksums: facts.hasDataChecksums,
    hash,
  };
}

/**
 * Chooses and reads the base; undefined for a full backup. Asks only the store. Rejects with
 * RefusedError for a named base that can't be used.
 */
export async function findPushBase(
  server: BaseServer & NewBackup,
  { hasFilesMetadata, increments, isPermanent, zstd }: IncrementSettings,
  world: World,
): Promise<LoadedBase | undefined> {
  const fullReason = hasFilesMetadata
    ? increments.fullReason
    : "without files_metadata.json WAL-G could not read an increment";
  const request = { ...increments, isPermanent, fullReason };
  return await findBase(request, server, { ...world, zstd });
}

/** How the files of a backup are read. */
export interface Reading {
  /** Absent: checksums of pages are not verified. */
  readonly verifier?: PageVerifier | undefined;
  /** Absent for a full backup. */
  readonly judge?: FileJudge | undefined;
  /** Tells what is unchanged since the backup whose parts may be copied; absent without one. */
  readonly copyJudge?: FileJudge | undefined;
  /** How changed blocks are found, in words; absent for a full backup. */
  readonly changeSource?: string | undefined;
}

/**
 * Right after the backup has started: notes the databases, and prepares to find what changed. They
 * are asked for before any file is read: one that is recreated later is so in the WAL of this
 * backup.
 */
export async function prepareReading(
  session: Session,
  { base: increment, copySource, documents, verifier, startLsn: endLsn }: ReadingParts,
  options: FindChangesOptions,
): Promise<Reading> {
  const { log, signal } = options;
  const databases = await readDatabaseIdentities(session, { signal });
  for (const database of databases) documents.addDatabase(database);
  const base = increment ?? copySource;
  if (base === undefined) return { verifier };
  const { name, stepCount, startLsn } = base.choice;
  const range = { startLsn, endLsn, history: base.history };
  const { source: changeSource, changes } = await findChanges(session, range, options);
  if (increment !== undefined) {
    log.info(`Delta backup from ${name}`, { steps: stepCount, changes: changeSource });
  }
  const judge = new FileJudge({
    files: base.files,
    startLsn,
    sameDatabases: sameDatabases(base, databases),
    changes,
  });
  if (increment === undefined) return { copyJudge: judge, verifier };
  return { judge, changeSource, verifier };
}

interface ReadingParts extends Pick<Reading, "verifier"> {
  /** Absent for a full backup. */
  readonly base: LoadedBase | undefined;
  /** The backup whose parts may be copied into a full one. */
  readonly copySource?: LoadedBase | undefined;
  readonly documents: DocumentsSpool;
  /** Of the new backup. */
  readonly startLsn: Lsn;
}

function sameDatabases(
  { databases: before }: LoadedBase,
  now: readonly DatabaseIdentity[],
): ReadonlySet<number> {
  return new Set(now.filter(({ oid, xmin }) => before.get(oid) === xmin).map(({ oid }) => oid));
}

/** What the sentinel says of the base. */
export function baseRecord({ choice }: LoadedBase): Required<IncrementBase> {
  const { name, startLsn, fullName, stepCount } = choice;
  return { name, startLsn, fullName, stepCount };
}
