import { readFile, realpath } from "node:fs/promises";
import { isAbsolute, join, relative } from "node:path";
import { ensureRepositoryIdentity } from "../archive/identity.ts";
import { describeWriter } from "../archive/writer.ts";
import { readWriterClaim, requireSameWriter } from "../archive/writer-claims.ts";
import type { BackupStart } from "../connection/backup-session.ts";
import { isArchivedByServer, type ServerFacts } from "../connection/server-facts.ts";
import type { Session } from "../connection/session.ts";
import { isReceiving, readSlotRow } from "../connection/slot.ts";
import { FormatError, RefusedError, systemErrorCode } from "../errors.ts";
import type { Clock } from "../io/clock.ts";
import { localFileError } from "../io/system-error.ts";
import type { BackupName } from "../layout/backup-name.ts";
import { backupFolder, sentinelKey } from "../layout/keys.ts";
import { formatLsn } from "../postgres/lsn.ts";
import { findRelease, formatTablespaceDirectory, parseVersionFile } from "../postgres/versions.ts";
import type { Storage } from "../storage/storage.ts";
import { readControlFile } from "./control-file.ts";

interface World {
  readonly clock: Clock;
  readonly signal: AbortSignal;
}

interface ArchiverQuestion {
  /** Of wal-receive. */
  readonly receiverSlot?: string | undefined;
  readonly signal: AbortSignal;
}

const NOT_PGDATA_HINT =
  "Give the data directory of the running server: SHOW data_directory tells it. walnut runs on the " +
  "server's own host, as the user that the server runs as.";

/**
 * Makes sure that the directory is the one that the server runs on. Gives it with symlinks
 * resolved; rejects with RefusedError.
 */
export async function requireDataDirectory(
  directory: string,
  facts: ServerFacts,
  world: World,
): Promise<string> {
  const own = await resolvePath(directory);
  const servers = await resolvePath(facts.dataDirectory);
  if (own !== servers) {
    throw new RefusedError(`data directory ${own} is not the server's, which is ${servers}`, {
      hint: NOT_PGDATA_HINT,
    });
  }
  const majorVersion = await readVersionFile(own);
  const { control } = await readControlFile(own, world);
  if (majorVersion !== facts.majorVersion || control.systemId !== facts.systemId) {
    throw new RefusedError(
      `${own} holds cluster ${control.systemId} of PostgreSQL ${majorVersion}, but the server is ` +
        `cluster ${facts.systemId} of PostgreSQL ${facts.majorVersion}`,
      { hint: NOT_PGDATA_HINT },
    );
  }
  const state = facts.isInRecovery ? "in archive recovery" : "in production";
  if (control.state !== state) {
    throw new RefusedError(
      `${own} is of a server that is ${control.state}, but the server that we talk to is ${state}`,
      { hint: "Is this the host of a standby, and PGHOST the primary? Set PGHOST to this host." },
    );
  }
  return own;
}

async function resolvePath(directory: string): Promise<string> {
  try {
    return await realpath(directory);
  } catch (error) {
    if (systemErrorCode(error) !== "ENOENT") throw localFileError("read", directory, error);
    throw new RefusedError(`data directory ${directory} does not exist on this host`, {
      hint: NOT_PGDATA_HINT,
      cause: error,
    });
  }
}

async function readVersionFile(directory: string): Promise<number> {
  const path = join(directory, "PG_VERSION");
  try {
    return parseVersionFile(await readFile(path, "utf8"));
  } catch (error) {
    if (error instanceof FormatError || systemErrorCode(error) === "ENOENT") {
      throw new RefusedError(`${directory} is no data directory: it has no readable PG_VERSION`, {
        hint: NOT_PGDATA_HINT,
        cause: error,
      });
    }
    throw localFileError("read", path, error);
  }
}

/** A backup belongs to one server process from its start to its stop: throws RefusedError. */
export function requireOwnProcess(session: Session): void {
  if (!session.isPooled) return;
  throw new RefusedError(
    `the connection to ${session.address} goes through a pooler, which may change the server process`,
    { hint: "Set PGHOST and PGPORT to the server itself; its socket directory is best." },
  );
}

/**
 * Rejects with RefusedError when nobody archives: neither the server nor a wal-receive. What a
 * standby says of that does not count: its primary archives. That WAL arrives is proved later.
 */
export async function requireArchiver(
  session: Session,
  facts: ServerFacts,
  { receiverSlot: slot = "", signal }: ArchiverQuestion,
): Promise<void> {
  if (facts.isInRecovery || isArchivedByServer(facts)) return;
  const row = await readSlotRow(session, slot, { signal });
  if (isReceiving(row)) return;
  const what = facts.archiveMode === "off" ? "archive_mode is off" : "archive_command is not set";
  const receiver =
    row === undefined ? "" : `, and nobody receives through replication slot ${slot}`;
  throw new RefusedError(`${what}${receiver}: a backup without its WAL can't be restored`, {
    hint:
      "Put into postgresql.conf: archive_mode = on, archive_command = 'walnut wal-push \"%p\"'. " +
      "archive_mode needs a restart of the server. Or start `walnut wal-receive`, which needs neither.",
  });
}

/**
 * Rejects with WrongClusterError, or takes the repository for this cluster if it is nobody's.
 * Rejects with RefusedError for a clone: the WAL that arrives there is its parent's.
 */
export async function requireRepository(
  storage: Storage,
  facts: ServerFacts,
  server: { readonly dataDirectory: string; readonly serverName?: string | undefined },
  { signal }: { readonly signal: AbortSignal },
): Promise<void> {
  const { systemId, timeline } = facts;
  await ensureRepositoryIdentity(storage, systemId, { signal });
  if (facts.isInRecovery) return;
  const writer = await describeWriter(server.dataDirectory, server.serverName);
  const known = await readWriterClaim(storage, timeline, { signal });
  requireSameWriter(storage, { ...writer, systemId, timeline }, known);
}

/**
 * After the start: the checkpoint that the server has just made must stand in the control file of
 * the directory, else these are the files of another server, such as a clone under the same path.
 */
export async function requireCheckpoint(
  dataDirectory: string,
  start: BackupStart,
  world: World,
): Promise<void> {
  const { control } = await readControlFile(dataDirectory, world);
  if (control.redoLsn >= start.startLsn) return;
  throw new RefusedError(
    `the files in ${dataDirectory} are not the server's: its last checkpoint began at ` +
      `${formatLsn(start.startLsn)}, theirs at ${formatLsn(control.redoLsn)}`,
    { hint: NOT_PGDATA_HINT },
  );
}

/** Rejects with RefusedError when the repository holds objects of this name already. */
export async function requireNewName(
  storage: Storage,
  backup: BackupName,
  { signal }: { readonly signal: AbortSignal },
): Promise<void> {
  for (const prefix of [sentinelKey(backup), backupFolder(backup)]) {
    for await (const { key } of storage.list(prefix, { signal })) {
      throw new RefusedError(
        `${storage.name} already holds ${key}, an object of backup ${backup}`,
        {
          hint:
            "Is a clone of this cluster backed up to the same place? Give it a prefix of its own. " +
            "Otherwise take the backup again: it gets another name as soon as WAL was written, on a " +
            "standby as soon as it has replayed another checkpoint of the primary.",
        },
      );
    }
  }
}

/** Directory of statistics relative to the data directory, if it is below it. */
export function statsDirectoryOf(facts: ServerFacts, dataDirectory: string): string | undefined {
  const { statsDirectory } = facts;
  if (statsDirectory === undefined) return undefined;
  if (!isAbsolute(statsDirectory)) return statsDirectory.replace(/\/+$/, "");
  const below = relative(dataDirectory, statsDirectory);
  return below === "" || below.startsWith("..") ? undefined : below;
}

/** What the server calls its own directory in a tablespace. */
export function tablespaceDirectoryOf(facts: ServerFacts): string {
  const { majorVersion, catalogVersion } = facts;
  const release = findRelease(majorVersion);
  const controlVersion = release?.controlVersion ?? 0;
  return formatTablespaceDirectory({ majorVersion, catalogVersion, controlVersion });
}
