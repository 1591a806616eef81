import { dirname, join, resolve } from "node:path";
import { type ErrorCode, OperationError, ServerStopsError } from "../errors.ts";

/** The process's answer to its caller. */
export interface ExitCode {
  readonly code: number;
  /** When it is given, as a clause for the help and the documentation. */
  readonly text: string;
}

/**
 * One code for each kind of failure. All but one are in 1..125: PostgreSQL's archiver ends above
 * that and does not count the failure. That is wanted where the server stops: it would call five
 * times more.
 *
 * @source pgarch_archiveXlog, src/backend/postmaster/pgarch.c; shell_archive.c
 */
export const exitCodes: Readonly<Record<ErrorCode, ExitCode>> = {
  usage: { code: 2, text: "the command line is wrong" },
  config: { code: 3, text: "a setting is unknown, wrong, contradicts another or is not supported" },
  "not-found": { code: 10, text: "the object asked for does not exist" },
  exists: { code: 11, text: "the object exists already" },
  access: { code: 12, text: "the store refuses the credentials or the right to do this" },
  storage: { code: 13, text: "the store could not do what was asked" },
  deadline: { code: 14, text: "it did not finish within its time limit" },
  stopping: {
    code: 201,
    text: "wal-push only: the server waits for nothing else to stop, and the store is silent",
  },
  conflict: { code: 20, text: "the archive holds other content under this name" },
  "wrong-cluster": { code: 21, text: "the repository or the file belongs to another cluster" },
  "wrong-key": { code: 25, text: "none of the configured keys opens an object" },
  damaged: { code: 22, text: "a stored object is damaged" },
  format: { code: 23, text: "a file or an answer is not what its place promises" },
  truncated: { code: 24, text: "a file or an object ends before it is complete" },
  unsound: { code: 26, text: "verify or wal-verify found damage or WAL that is missing" },
  "corrupt-pages": {
    code: 27,
    text: "backup-push has stored the backup, but found damaged pages in the cluster",
  },
  database: { code: 30, text: "PostgreSQL is unreachable or answered with an error" },
  refused: { code: 31, text: "a check before the work said no, and nothing was changed" },
  "local-file": { code: 32, text: "a local file or directory could not be read or written" },
  interrupted: { code: 33, text: "it was asked to stop, but not by a signal" },
  "not-in-archive": { code: 74, text: "the archive has proved not to hold this WAL file" },
};

/** For what is no OperationError: a bug of ours. */
export const bugExitCode: ExitCode = { code: 70, text: "a bug in walnut; please report it" };

/** wal-fetch failed and the server is a standby: it must go on and ask again. */
export const standbyRetryExitCode: ExitCode = {
  code: 75,
  text: "wal-fetch only: it failed, and the server is a standby, which asks again",
};

/** wal-fetch failed and the server recovers from the archive: it must stop and not open early. */
export const recoveryStopExitCode: ExitCode = {
  code: 200,
  text: "wal-fetch only: it failed, and the server must stop rather than open without this WAL",
};

/** `st check` found something wrong: scripts compare it with 1. */
export const checkFailedExitCode: ExitCode = {
  code: 1,
  text: "st check only: an object is missing, or the store can't be written",
};

/** All codes but 0, in ascending order, for the help and the documentation. */
export function listExitCodes(): readonly ExitCode[] {
  const all = [
    ...Object.values(exitCodes),
    bugExitCode,
    checkFailedExitCode,
    standbyRetryExitCode,
    recoveryStopExitCode,
  ];
  return all.toSorted((one, other) => one.code - other.code);
}

/** What an exit code may depend on besides the error: known even without a configuration. */
export interface ExitPlace {
  readonly workingDirectory: string;
  /** What was given after the command's name, as far as the command line could be read. */
  readonly positionals: readonly string[];
  /** Never throws: false where it can't be found out. */
  readonly fileExists: (path: string) => boolean;
}

/** From a failure to the exit code that the command's caller understands. */
export type ExitCodeRule = (error: unknown, place: ExitPlace) => number;

/** The rule of every command that has no other. */
export function errorExitCode(error: unknown): number {
  return error instanceof OperationError ? exitCodes[error.code].code : bugExitCode.code;
}

/**
 * The rule of a restore_command. PostgreSQL takes 1..125 as "no such WAL file", ends recovery there
 * and opens the database; anything above makes it stop, and 126 and 127 would be taken for a
 * program that can't be run. A standby must not stop: it asks again, so 75 is right for it.
 *
 * @source RestoreArchivedFile, src/backend/access/transam/xlogarchive.c; wait_result_is_any_signal
 */
export function restoreExitCode(error: unknown, place: ExitPlace): number {
  if (error instanceof OperationError && error.code === "not-in-archive") {
    return exitCodes["not-in-archive"].code;
  }
  return isStandby(place) ? standbyRetryExitCode.code : recoveryStopExitCode.code;
}

/** The rule of a daemon's client: as WAL-G's, but a fetch that failed is no end of the archive. */
export function clientExitCode(error: unknown, place: ExitPlace): number {
  if (error instanceof ServerStopsError) return exitCodes.stopping.code;
  const verb = place.positionals.indexOf("wal-fetch");
  if (verb < 0) return 1;
  return restoreExitCode(error, { ...place, positionals: place.positionals.slice(verb + 1) });
}

/**
 * PostgreSQL starts restore_command in its data directory, with a destination below pg_wal.
 *
 * @source STANDBY_SIGNAL_FILE, src/include/access/xlog.h
 */
function isStandby({ workingDirectory, positionals, fileExists }: ExitPlace): boolean {
  const destination = positionals[1] ?? ".";
  return [workingDirectory, resolve(workingDirectory, dirname(dirname(destination)))].some(
    (directory) => fileExists(join(directory, "standby.signal")),
  );
}

/** The rule of `st`. */
export function storageToolExitCode(error: unknown, { positionals }: ExitPlace): number {
  const isCheck = positionals[0] === "check" && error instanceof OperationError;
  return isCheck && error.code !== "usage" ? checkFailedExitCode.code : errorExitCode(error);
}
