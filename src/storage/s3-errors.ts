import {
  ObjectExistsError,
  ObjectNotFoundError,
  OperationError,
  StorageAccessError,
  StorageError,
} from "../errors.ts";
import { connectionError, failedAction, parseRetryAfter } from "./request-errors.ts";
import type { RequestAction } from "./request-errors.ts";

/** What an error of the SDK tells, read without trusting its type. */
export interface S3Failure {
  /** S3's own code ("SlowDown"), or the class name of the SDK's error. */
  readonly code: string;
  /** Absent if no answer came. */
  readonly status?: number;
  readonly text: string;
  readonly retryAfterMs?: number;
}

const EXPIRED_HINT = "The credentials expired: renew the session token, or the role's session.";
const KEY_HINT =
  "Check AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, or the profile or role in use.";
const NO_KEY_HINT =
  "There are no credentials: set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, or AWS_PROFILE (one " +
  "that exists), or give this machine a role.";
const RIGHTS_HINT =
  "The credentials are valid but may not do this here. Needed on the bucket: GetObject, PutObject, " +
  "DeleteObject, ListBucket, AbortMultipartUpload.";
const REFUSED_HINT = "The store does not say why. Check the credentials, and what they may do.";
const REGION_HINT = "The bucket is in another region or behind another endpoint: set AWS_REGION.";
const ENDPOINT_HINT = "Check AWS_ENDPOINT: scheme, host, port, and that it speaks S3.";
const BARE_400_HINT =
  "The store does not say why. It may be a wrong AWS_REGION, or credentials that have expired.";
const CLOCK_HINT = "The clock of this machine differs from the store's: run NTP.";
const FULL_HINT = "The store has no room left: add some, or raise the bucket's quota.";
const CONNECTION_HINTS = {
  endpoint: ENDPOINT_HINT,
  certificate:
    "The server's certificate is not trusted: set S3_CA_CERT_FILE to the authority that signed it.",
} as const;

/** Refusals by S3's code; those that the code does not tell are taken by status 401 and 403. */
const ACCESS_HINTS: ReadonlyMap<string, string> = new Map([
  ["AccessDenied", RIGHTS_HINT],
  ["AllAccessDisabled", RIGHTS_HINT],
  ["AccountProblem", RIGHTS_HINT],
  ["InvalidAccessKeyId", KEY_HINT],
  ["SignatureDoesNotMatch", KEY_HINT],
  ["CredentialsProviderError", NO_KEY_HINT],
  ["InvalidToken", EXPIRED_HINT],
  ["ExpiredToken", EXPIRED_HINT],
  ["ExpiredTokenException", EXPIRED_HINT],
  ["TokenRefreshRequired", EXPIRED_HINT],
  ["InvalidClientTokenId", KEY_HINT],
  // versitygw's, with 404.
  ["XAdminUserNotFound", KEY_HINT],
]);

/** Failures that pass, whatever the status says. S3 sends some of them with 200 or 400. */
const PASSING_CODES: ReadonlySet<string> = new Set([
  "BadDigest",
  "ConditionalRequestConflict",
  "IncompleteBody",
  "InternalError",
  "OperationAborted",
  "RequestTimeout",
  "RequestTimeTooSkewed",
  "RequestLimitExceeded",
  "ServiceUnavailable",
  "SlowDown",
  "Throttling",
  "ThrottlingException",
  "TooManyRequests",
  "XAmzContentSHA256Mismatch",
]);

const REGION_CODES: ReadonlySet<string> = new Set([
  "AuthorizationHeaderMalformed",
  "IllegalLocationConstraintException",
  "PermanentRedirect",
  "TemporaryRedirect",
]);

/** The SDK's own for an answer without one, as those to HEAD are. */
const BARE_CODES: ReadonlySet<string> = new Set(["400", "BadRequest", "Unknown", "UnknownError"]);

/** Undefined for what did not come from a request: a bug. */
export function readFailure(error: unknown): S3Failure | undefined {
  if (!(error instanceof Error)) return undefined;
  const metadata = property(error, "$metadata");
  const status = property(metadata, "httpStatusCode");
  const isProviderError = error.name === "CredentialsProviderError";
  if (typeof status !== "number" && !isProviderError) return undefined;

  const headers = property(property(error, "$response"), "headers");
  const retryAfterMs = parseRetryAfter(property(headers, "retry-after"));
  return {
    code: error.name,
    text: error.message,
    ...(typeof status === "number" ? { status } : {}),
    ...(retryAfterMs === undefined ? {} : { retryAfterMs }),
  };
}

/**
 * Our error for what a request of the SDK failed with; what is no such failure comes back as is.
 */
export function s3Error(error: unknown, action: RequestAction): unknown {
  if (error instanceof OperationError) return error;
  const failure = readFailure(error);
  if (failure === undefined) return connectionError(error, action, CONNECTION_HINTS);

  const { code, status, retryAfterMs } = failure;
  if (code === "NoSuchKey") {
    return new ObjectNotFoundError(action.key, action.storage, { cause: error });
  }
  if (code === "PreconditionFailed" || status === 412) {
    return new ObjectExistsError(action.key, action.storage, { cause: error });
  }
  const message = formatFailure(failure, action);
  const isPassing = isPassingFailure(failure) || isGarbled(error);
  const accessHint = ACCESS_HINTS.get(code);
  const isRefused = accessHint !== undefined || status === 401 || status === 403;
  if (isRefused && !isPassing) {
    return new StorageAccessError(message, { hint: accessHint ?? REFUSED_HINT, cause: error });
  }
  const hint = failureHint(failure, action);
  return new StorageError(message, {
    isRetryable: isPassing,
    ...(hint === undefined ? {} : { hint }),
    ...(retryAfterMs === undefined ? {} : { retryAfterMs }),
    cause: error,
  });
}

/** Whether a failure, of a request or of one key in a batch, may be gone a moment later. */
export function isPassingFailure({ code, status }: Pick<S3Failure, "code" | "status">): boolean {
  if (PASSING_CODES.has(code)) return true;
  if (code === "NotImplemented" || code === "NoSuchBucket") return false;
  if (status === undefined) return false;
  // An answer that says 200 and then can't be read was cut or garbled on its way.
  return status === 429 || status === 408 || (status >= 500 && status !== 501) || status < 300;
}

/** Whether S3's own text of an error broke on its way, so that its code is not known. */
function isGarbled(error: unknown): boolean {
  // The SDK keeps a text only if it could not read it.
  const text = property(error, "$responseBodyText");
  return typeof text === "string" && /^\s*(<\?xml[^>]*>\s*)?<Error\b/.test(text);
}

/** Whether S3's code says that the credentials or their rights are refused. */
export function isRefusal(code: string): boolean {
  return ACCESS_HINTS.has(code);
}

/** Whether a request was refused for the keys that it was signed with, whoever they belong to. */
export function areKeysRefused(error: unknown): boolean {
  const failure = readFailure(error);
  if (failure?.status === undefined) return false;
  const hint = ACCESS_HINTS.get(failure.code);
  return hint === EXPIRED_HINT || hint === KEY_HINT;
}

/** Whether a store refused one of our errors' requests as something that it can't do. */
export function isNotImplemented(error: unknown): boolean {
  const failure = error instanceof StorageError ? readFailure(error.cause) : undefined;
  if (failure === undefined) return false;
  if (failure.code === "NotImplemented" || failure.status === 501) return true;
  return failure.status === 400 && /if-none-match/i.test(failure.text);
}

/** Whether a GET was refused because its range begins at the object's end or behind it. */
export function isUnsatisfiableRange(error: unknown): boolean {
  return readFailure(error)?.status === 416;
}

function failureHint({ code, status }: S3Failure, { storage }: RequestAction): string | undefined {
  if (code === "InvalidBucketName") return `No bucket can have the name in ${storage}: correct it.`;
  if (code === "NoSuchBucket") return `Create the bucket of ${storage}, or correct its name.`;
  if (code === "RequestTimeTooSkewed") return CLOCK_HINT;
  if (status === 507 || /StorageFull|QuotaExceeded/.test(code)) return FULL_HINT;
  if (REGION_CODES.has(code) || (status !== undefined && status >= 300 && status < 400)) {
    return REGION_HINT;
  }
  if (status === 400 && BARE_CODES.has(code)) return BARE_400_HINT;
  return status === 404 ? ENDPOINT_HINT : undefined;
}

function formatFailure({ code, status, text }: S3Failure, action: RequestAction): string {
  const what = failedAction(action);
  const answer = status === undefined ? code : `${status} ${code}`;
  const isTextTelling = text !== "" && text !== code && text !== "UnknownError";
  return isTextTelling ? `${what}: ${answer}: ${text.replace(/\.$/, "")}` : `${what}: ${answer}`;
}

function property(value: unknown, name: string): unknown {
  return typeof value === "object" && value !== null ? Reflect.get(value, name) : undefined;
}
