/**
 * What can go wrong and is expected to: each kind has a code, a message with the values in it, and,
 * where there is a way out, a hint. Everything that is not an OperationError is a bug of ours.
 *
 * Messages are lower case without full stop; hints are sentences.
 */

/** Names a kind of failure; `commands/exit-codes.ts` gives each its exit code. */
export type ErrorCode =
  | "usage"
  | "config"
  | "format"
  | "truncated"
  | "not-found"
  | "exists"
  | "access"
  | "storage"
  | "deadline"
  | "stopping"
  | "conflict"
  | "wrong-cluster"
  | "wrong-key"
  | "not-in-archive"
  | "damaged"
  | "unsound"
  | "corrupt-pages"
  | "database"
  | "refused"
  | "local-file"
  | "interrupted";

export interface ErrorDetails {
  /** One or more sentences: what the reader can do now. */
  readonly hint?: string;
  readonly cause?: unknown;
}

/** An expected failure. `code` decides the exit code; `message` and `hint` are for the reader. */
export abstract class OperationError extends Error {
  abstract readonly code: ErrorCode;
  readonly hint: string | undefined;

  constructor(message: string, details: ErrorDetails = {}) {
    super(message, details.cause === undefined ? {} : { cause: details.cause });
    this.name = new.target.name;
    this.hint = details.hint;
  }
}

/** The command line is wrong: unknown command or flag, missing or surplus argument. */
export class UsageError extends OperationError {
  readonly code = "usage";
}

/** A setting is unknown, unreadable or contradicts another; the message names it and its origin. */
export class ConfigError extends OperationError {
  readonly code = "config";
}

/** Bytes are not what their place promises. Parsers throw it with position and value. */
export class FormatError extends OperationError {
  readonly code: "format" | "truncated" = "format";
}

export interface TruncatedDetails extends ErrorDetails {
  /** How much of an object was there as it is stored, where that is not what its reader saw. */
  readonly storedBytes?: number;
}

/** Bytes end before they are complete: an empty or cut-off object or file. */
export class TruncatedError extends FormatError {
  override readonly code = "truncated";
  readonly storedBytes: number | undefined;

  constructor(message: string, details: TruncatedDetails = {}) {
    super(message, details);
    this.storedBytes = details.storedBytes;
  }
}

/** No object has this key. */
export class ObjectNotFoundError extends OperationError {
  readonly code = "not-found";

  constructor(key: string, storage: string, details: ErrorDetails = {}) {
    super(`object ${key} does not exist in ${storage}`, details);
  }
}

/** A create-only put found an object under this key; nothing was written. */
export class ObjectExistsError extends OperationError {
  readonly code = "exists";

  constructor(key: string, storage: string, details: ErrorDetails = {}) {
    super(`object ${key} already exists in ${storage}`, details);
  }
}

/** The store refuses our credentials or our right to do this. Never retried. */
export class StorageAccessError extends OperationError {
  readonly code = "access";
}

export interface StorageErrorDetails extends ErrorDetails {
  /** Whether the same call may succeed a moment later (5xx, 429, reset, network time-out). */
  readonly isRetryable: boolean;
  /** Milliseconds that the store asked us to wait (Retry-After), if it did. */
  readonly retryAfterMs?: number;
}

/** The store could not do what was asked. */
export class StorageError extends OperationError {
  readonly code = "storage";
  readonly isRetryable: boolean;
  readonly retryAfterMs: number | undefined;

  constructor(message: string, details: StorageErrorDetails) {
    super(message, details);
    this.isRetryable = details.isRetryable;
    this.retryAfterMs = details.retryAfterMs;
  }
}

/** Something did not finish within the time that it was given. */
export class DeadlineError extends OperationError {
  readonly code: "deadline" | "stopping" = "deadline";
}

/** The server stops and waits for a push only, and the store is silent. Nothing was acknowledged. */
export class ServerStopsError extends DeadlineError {
  override readonly code = "stopping";
}

/** The archive already holds other content under this name. Nothing was overwritten. */
export class ConflictError extends OperationError {
  readonly code = "conflict";
}

/** The repository, the file or the server belongs to another cluster. */
export class WrongClusterError extends OperationError {
  readonly code = "wrong-cluster";
}

export interface WrongKeyDetails extends ErrorDetails {
  /** What the object tells of its content to who can't open it (`PutOptions.note`). */
  readonly note?: string;
}

/** An object is encrypted, and none of our keys opens it; or we have a key, and it is not. */
export class WrongKeyError extends OperationError {
  readonly code = "wrong-key";
  readonly note: string | undefined;

  constructor(message: string, details: WrongKeyDetails = {}) {
    super(message, details);
    this.note = details.note;
  }
}

/** It is proved that the archive does not hold this WAL file. */
export class NotInArchiveError extends OperationError {
  readonly code = "not-in-archive";
}

/** A stored object exists but its content is damaged. */
export class DamagedError extends OperationError {
  readonly code = "damaged";
}

/** A check has found damage or WAL that is missing; what exactly stands in its report. */
export class UnsoundError extends OperationError {
  readonly code = "unsound";
}

/** The backup exists, but pages of the cluster are damaged, and so in it. */
export class CorruptPagesError extends OperationError {
  readonly code = "corrupt-pages";
}

/** PostgreSQL is unreachable, ended the session, or answered with an error. */
export class DatabaseError extends OperationError {
  readonly code = "database";
}

/** A check before the work says no: nothing was changed. */
export class RefusedError extends OperationError {
  readonly code = "refused";
}

/** A local file or directory could not be read or written. */
export class LocalFileError extends OperationError {
  readonly code = "local-file";
}

/** The user or the system asked us to stop. */
export class InterruptedError extends OperationError {
  readonly code = "interrupted";
}

/** The code of a Node.js system error ("ENOENT"), or undefined for anything else, ours included. */
export function systemErrorCode(error: unknown): string | undefined {
  if (!(error instanceof Error) || error instanceof OperationError) return undefined;
  if (!("code" in error)) return undefined;
  return typeof error.code === "string" ? error.code : undefined;
}
