import { OperationError, StorageAccessError, StorageError } from "../errors.ts";
import { isSystemError, systemErrorText } from "../io/system-error.ts";

/** @source draft-ietf-secsh-filexfer-02, 7: the codes of version 3, which is all that servers speak */
export const SFTP_STATUS = {
  noSuchFile: 2,
  permissionDenied: 3,
  failure: 4,
  badMessage: 5,
  noConnection: 6,
  connectionLost: 7,
  unsupported: 8,
} as const;

/** The server's answer to one request says no. Never leaves the SFTP store. */
export class SftpRefusal extends Error {
  readonly status: number;

  constructor(status: number, message: string) {
    super(message);
    this.name = "SftpRefusal";
    this.status = status;
  }
}

/** Whether the file, or a directory on the way to it, is not there. */
export function isNoSuchFile(error: unknown): boolean {
  return error instanceof SftpRefusal && error.status === SFTP_STATUS.noSuchFile;
}

/** Whether the server says no without saying why: to most of what can go wrong. */
export function isBareFailure(error: unknown): boolean {
  return error instanceof SftpRefusal && error.status === SFTP_STATUS.failure;
}

const RIGHTS_HINT = "The user that logs in there needs read and write permission.";
const FAILURE_HINT =
  "SFTP does not tell why: the disk may be full or the quota used up. The server's log may say.";

/**
 * What the store throws for a request that was refused: "cannot <action> <what>: <why>"; anything
 * else comes back as it is.
 */
export function sftpError(action: string, what: string, error: unknown): unknown {
  if (!(error instanceof SftpRefusal)) return error;
  const message = `cannot ${action} ${what}: the server says "${error.message}"`;
  const { permissionDenied, failure, noConnection, connectionLost } = SFTP_STATUS;
  if (error.status === permissionDenied) {
    return new StorageAccessError(message, { hint: RIGHTS_HINT, cause: error });
  }
  const isRetryable = error.status === noConnection || error.status === connectionLost;
  const hint = error.status === failure ? { hint: FAILURE_HINT } : {};
  return new StorageError(message, { isRetryable, ...hint, cause: error });
}

const LOGIN_HINT =
  "Check SSH_USERNAME and the key or password; the server's log says what it did not like.";
const ALGORITHM_HINT =
  "The server and walnut have no such algorithm in common: the server is too old, or hardened too far.";
const NETWORK_HINT = "Check the host and port, and that an SSH server listens there.";

/** What the store throws when a connection can't be made, or broke. `who` tries to log in. */
export function connectionError(name: string, error: unknown, who = "walnut"): OperationError {
  if (error instanceof OperationError) return error;
  const level = error instanceof Error && "level" in error ? error.level : undefined;
  const text = error instanceof Error ? systemErrorText(error) : String(error);
  if (level === "client-authentication" || level === "agent") {
    return new StorageAccessError(`${name} refuses the login of ${who}: ${lowerCase(text)}`, {
      hint: LOGIN_HINT,
      cause: error,
    });
  }
  const isAlgorithm = /no matching/i.test(text);
  const isUnreachable =
    /before handshake/.test(text) || (isSystemError(error) && /ECONNREFUSED|ENOTFOUND/.test(text));
  const hint = isAlgorithm ? ALGORITHM_HINT : NETWORK_HINT;
  return new StorageError(`no connection to ${name}: ${lowerCase(text)}`, {
    isRetryable: !isAlgorithm,
    ...(isAlgorithm || isUnreachable ? { hint } : {}),
    cause: error,
  });
}

function lowerCase(text: string): string {
  return /^[A-Z][a-z]/.test(text) ? text.charAt(0).toLowerCase() + text.slice(1) : text;
}
