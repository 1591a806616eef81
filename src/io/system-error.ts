import { LocalFileError, OperationError, systemErrorCode } from "../errors.ts";

interface SystemErrorText {
  readonly text: string;
  readonly hint?: string;
}

const OWNER_HINT = "The user that runs walnut needs read and write permission there.";
const SPACE_HINT =
  "Free space there, or move to a larger file system; nothing was left half-written.";

/** What the codes mean that an administrator meets; others are shown as they are. */
const SYSTEM_ERRORS: ReadonlyMap<string, SystemErrorText> = new Map([
  ["ENOSPC", { text: "no space left on the device", hint: SPACE_HINT }],
  ["EDQUOT", { text: "the disk quota is used up", hint: SPACE_HINT }],
  ["EFBIG", { text: "the file is larger than the file system or a limit allows" }],
  ["EACCES", { text: "permission denied", hint: OWNER_HINT }],
  ["EPERM", { text: "operation not permitted", hint: OWNER_HINT }],
  ["EROFS", { text: "the file system is mounted read-only", hint: "Mount it for writing." }],
  ["ENOENT", { text: "no such file or directory" }],
  ["ENOTDIR", { text: "a part of the path is not a directory" }],
  ["EISDIR", { text: "it is a directory" }],
  ["EEXIST", { text: "it exists already" }],
  ["ENAMETOOLONG", { text: "the name is too long for the file system" }],
  [
    "EIO",
    { text: "input/output error", hint: "Look into the kernel's log: the disk may be failing." },
  ],
  ["ESTALE", { text: "stale NFS file handle" }],
  ["EMFILE", { text: "too many open files", hint: "Raise the limit (ulimit -n)." }],
  ["ENFILE", { text: "too many open files in the system" }],
]);

/** Of connections; the system's own words name the host and port. */
const NETWORK_ERRORS: ReadonlyMap<string, string> = new Map([
  ["ENOTFOUND", "no such host"],
  ["EAI_AGAIN", "the name server does not answer"],
  ["ECONNREFUSED", "nothing listens there"],
]);

/** Whether a call of the operating system failed, rather than something of ours or a library's. */
export function isSystemError(error: unknown): boolean {
  if (error instanceof OperationError || systemErrorCode(error) === undefined) return false;
  return error instanceof Error && "errno" in error && typeof error.errno === "number";
}

/** "no space left on the device (ENOSPC)". */
export function systemErrorText(error: unknown): string {
  const code = systemErrorCode(error);
  if (code === undefined) return error instanceof Error ? error.message : String(error);
  const known = SYSTEM_ERRORS.get(code);
  if (known !== undefined) return `${known.text} (${code})`;
  const message = error instanceof Error ? error.message : code;
  const meaning = NETWORK_ERRORS.get(code);
  return meaning === undefined ? message : `${meaning} (${message})`;
}

/** The way out of a system error, where there is one to name. */
export function systemErrorHint(error: unknown): string | undefined {
  return SYSTEM_ERRORS.get(systemErrorCode(error) ?? "")?.hint;
}

/**
 * What to throw for a failed call on a local file: LocalFileError "cannot <action> <path>: <why>"
 * with the system error as its cause; anything that is no system error is returned as it is. `way`
 * is the way out where the system error tells none.
 */
export function localFileError(
  action: string,
  path: string,
  error: unknown,
  way?: string,
): unknown {
  if (!isSystemError(error)) return error;
  const hint = systemErrorHint(error) ?? way;
  return new LocalFileError(`cannot ${action} ${path}: ${systemErrorText(error)}`, {
    ...(hint === undefined ? {} : { hint }),
    cause: error,
  });
}

/** Gives undefined where the system says no: for what may as well not be done. */
export async function ifSystemAllows<T>(work: () => Promise<T>): Promise<T | undefined> {
  try {
    return await work();
  } catch (error) {
    if (systemErrorCode(error) === undefined) throw error;
    return undefined;
  }
}
