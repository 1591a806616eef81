import { OperationError, StorageAccessError, StorageError } from "../errors.ts";
import { connectionError, failedAction } from "./request-errors.ts";
import type { RcloneAction } from "./rclone-client.ts";

/** rclone says no. Its errors have no codes: what they are is told by their words. */
export class RcloneFailure extends Error {
  readonly status: number;

  constructor(status: number, text: string) {
    super(text);
    this.name = "RcloneFailure";
    this.status = status;
  }
}

const MISSING = /\b(object|file|directory) not found\b|no such file or directory|not a directory$/;
const NO_DIRECTORY = /\bdirectory not found\b|\bis not a directory\b|not a directory$/;
const REFUSED =
  /permission denied|access ?denied|forbidden|unauthori[sz]ed|invalid_grant|invalid.?(api)?.?key|oauth/i;
const REFUSED_BY_STATUS = /signature|token.*expired|(http|status|error|code)\D{0,12}40[13]\b/i;
/** Before all others: some providers answer 403 to those who ask too often. */
const PASSING = /rate.?limit|too many requests|slow ?down|\b429\b/i;
const NO_ROOM = /no space left|quota|storage.*full/i;
const WRONG =
  /didn't find (section|backend)|unknown type|not supported|read-only|invalid|illegal|too long/i;

const ACCESS_HINT =
  "The provider refuses rclone: renew the remote's login (rclone config reconnect remote:).";
const SECTION_HINT =
  "There is no such remote in rclone's configuration: see RCLONE_CONFIG, RCLONE_CONF_BASE64 and rclone listremotes.";
const SPACE_HINT = "The provider's space or quota is used up.";

/** What rclone answered; its words stand in the JSON of its remote control, or alone. */
export function readRcloneFailure(status: number, text: string): RcloneFailure {
  return new RcloneFailure(status, readWords(text).trim().split("\n", 1).join());
}

/** Whether nothing is there. */
export function isMissing(error: unknown): boolean {
  const failure = error instanceof OperationError ? error.cause : error;
  return failure instanceof RcloneFailure && MISSING.test(failure.message);
}

/** Whether there is no such directory, also because a file has its name. */
export function isDirectoryMissing(error: unknown): boolean {
  const failure = error instanceof OperationError ? error.cause : error;
  return failure instanceof RcloneFailure && NO_DIRECTORY.test(failure.message);
}

/** Whether a file was meant and a folder is there. */
export function isFolder(error: unknown): boolean {
  const failure = error instanceof OperationError ? error.cause : error;
  return failure instanceof RcloneFailure && failure.message.includes("is a directory not a file");
}

/** Our error for what a call of rclone failed with; what is no such failure comes back as it is. */
export function rcloneError(error: unknown, named: RcloneAction, storage: string): unknown {
  const action = { ...named, storage };
  if (error instanceof OperationError) return error;
  if (!(error instanceof RcloneFailure)) {
    const endpoint = "rclone has ended: its words are in the log of the system, if it had any.";
    return connectionError(error, action, { endpoint, certificate: endpoint });
  }
  const { status, message: text } = error;
  const message = `${failedAction(action)}: rclone says ${text === "" ? status : text}`;
  if (/didn't find (section|backend)/.test(text)) {
    return new StorageError(message, { isRetryable: false, hint: SECTION_HINT, cause: error });
  }
  if (PASSING.test(text)) return new StorageError(message, { isRetryable: true, cause: error });
  if (REFUSED.test(text) || REFUSED_BY_STATUS.test(text)) {
    return new StorageAccessError(message, { hint: ACCESS_HINT, cause: error });
  }
  const hint = /space|quota|full/i.test(text) ? { hint: SPACE_HINT } : {};
  const isRetryable = ![MISSING, NO_ROOM, WRONG].some((one) => one.test(text));
  return new StorageError(message, { isRetryable, ...hint, cause: error });
}

function readWords(text: string): string {
  try {
    const answer: unknown = JSON.parse(text);
    const words: unknown =
      typeof answer === "object" && answer !== null ? Reflect.get(answer, "error") : undefined;
    return typeof words === "string" ? words : text;
  } catch {
    return text;
  }
}
