import { LocalFileError, StorageAccessError, StorageError, systemErrorCode } from "../errors.ts";
import { isSystemError, systemErrorHint, systemErrorText } from "../io/system-error.ts";

const ACCESS_CODES: ReadonlySet<string> = new Set(["EACCES", "EPERM", "EROFS"]);

/** Passing states: of a network file system, or of our own process under load. */
const RETRYABLE_CODES: ReadonlySet<string> = new Set([
  "EAGAIN",
  "EBUSY",
  "EINTR",
  "EMFILE",
  "ENFILE",
  "ESTALE",
  "ETIMEDOUT",
]);

/**
 * What a store throws for a failed system call: "cannot <action> <path>: <why>". Anything that is
 * no system error, such as the error of a body that was being stored, is returned as it is.
 */
export function directoryError(action: string, path: string, error: unknown): unknown {
  const cause = error instanceof LocalFileError ? error.cause : error;
  if (!isSystemError(cause)) return error;

  const code = systemErrorCode(cause) ?? "";
  const hint = systemErrorHint(cause);
  const message = `cannot ${action} ${path}: ${systemErrorText(cause)}`;
  const details = { ...(hint === undefined ? {} : { hint }), cause };
  if (ACCESS_CODES.has(code)) return new StorageAccessError(message, details);
  return new StorageError(message, { ...details, isRetryable: RETRYABLE_CODES.has(code) });
}

/** Whether a call failed because the file, or a directory on the way to it, is not there. */
export function isMissing(error: unknown): boolean {
  const code = systemErrorCode(error instanceof LocalFileError ? error.cause : error);
  return code === "ENOENT" || code === "ENOTDIR";
}
