import { OperationError, StorageError, systemErrorCode } from "../errors.ts";
import { isSystemError, systemErrorText } from "../io/system-error.ts";

/** What was being done when a request failed, for the message. */
export interface RequestAction {
  /** "put", "complete the upload of". */
  readonly verb: string;
  /** The object, or the prefix of a list; "" for the whole store. */
  readonly key: string;
  /** "s3://bucket". */
  readonly storage: string;
}

/** "cannot put a in s3://b"; the root of a store has no name: "cannot list s3://b". */
export function failedAction({ verb, key, storage }: RequestAction): string {
  return key === "" ? `cannot ${verb} ${storage}` : `cannot ${verb} ${key} in ${storage}`;
}

export interface ConnectionHints {
  /** For a server that is not there. */
  readonly endpoint: string;
  /** For one whose certificate is not trusted. */
  readonly certificate: string;
}

const SILENT_HINT =
  "The server ended the connection without an answer. If it goes on: an endpoint with http:// may " +
  "have to be https://.";

/** What to do about a store of which nothing is heard. */
export const NO_ANSWER_HINT =
  "Is the host up, and do firewalls and proxies on the way let connections through? A store that " +
  "needs longer to answer needs a longer WALNUT_REQUEST_TIMEOUT.";

/** TLS says no: another attempt gets the same answer. */
const TLS_CODES = /^(CERT_|ERR_TLS_|UNABLE_TO_|SELF_SIGNED|DEPTH_ZERO|ERR_SSL_)/;
/** Those that no other authority helps against. */
const TLS_HINTS: readonly (readonly [RegExp, string])[] = [
  [
    /WRONG_VERSION_NUMBER|HTTP_REQUEST|PACKET_LENGTH_TOO_LONG/,
    "What listens there does not speak TLS: the endpoint begins with http://, or has another port.",
  ],
  [
    /ALTNAME_INVALID/,
    "The certificate is for another name: use a name that stands in it, or give the server one for this.",
  ],
  [/HAS_EXPIRED/, "The server's certificate has expired, or the clock of this machine is wrong."],
  [
    /NOT_YET_VALID/,
    "The clock of this machine is behind, or the certificate counts from later on.",
  ],
];

/**
 * Our error for a connection that could not be made or broke; ours, and what is neither, come back
 * as they are.
 */
export function connectionError(
  error: unknown,
  action: RequestAction,
  hints: ConnectionHints,
): unknown {
  if (error instanceof OperationError) return error;
  const code = systemErrorCode(error) ?? "";
  const isTls = TLS_CODES.test(code);
  if (!isTls && !isNetworkCode(error, code)) return error;

  const what = `${failedAction(action)}: ${systemErrorText(error)}`;
  const hint = isTls
    ? tlsHint(`${code} ${systemErrorText(error)}`, hints)
    : networkHint(code, error, hints);
  return new StorageError(what, {
    isRetryable: !isTls,
    ...(hint === undefined ? {} : { hint }),
    cause: error,
  });
}

function networkHint(code: string, error: unknown, hints: ConnectionHints): string | undefined {
  if (code === "ENOTFOUND" || code === "ECONNREFUSED") return hints.endpoint;
  return systemErrorText(error) === "socket hang up" ? SILENT_HINT : undefined;
}

function tlsHint(reason: string, { certificate }: ConnectionHints): string {
  return TLS_HINTS.find(([pattern]) => pattern.test(reason))?.[1] ?? certificate;
}

/** A connection that failed or broke, in the words of either runtime. */
function isNetworkCode(error: unknown, code: string): boolean {
  if (isSystemError(error)) return true;
  return /^(E[A-Z]+|EAI_[A-Z]+|HPE_[A-Z_]+|ERR_(SOCKET|STREAM|HTTP|HTTP2)_[A-Z_]+|ABORT_ERR)$/.test(
    code,
  );
}

/**
 * What a Retry-After that is a date means in seconds, rounded up: by the store's own clock where the
 * answer tells it, else by ours, `nowMs` since 1970. Undefined where there is no such date.
 */
export function retryAfterSeconds(
  headers: Readonly<Record<string, string>>,
  nowMs: number,
): number | undefined {
  const untilMs = parseHttpDate(headers["retry-after"]);
  if (untilMs === undefined) return undefined;
  const sinceMs = parseHttpDate(headers["date"]) ?? nowMs;
  return Math.max(0, Math.ceil((untilMs - sinceMs) / 1000));
}

/**
 * Milliseconds since 1970 of each of the three forms that HTTP knows.
 *
 * @source RFC 9110, section 5.6.7
 */
function parseHttpDate(text: string | undefined): number | undefined {
  if (text === undefined || !/^(Mon|Tue|Wed|Thu|Fri|Sat|Sun)/.test(text)) return undefined;
  const [, month, day, time, year] = /^\w{3} (\w{3}) +(\d+) ([\d:]+) (\d{4})$/.exec(text) ?? [];
  const ms = Date.parse(year === undefined ? text : `${day} ${month} ${year} ${time} GMT`);
  return Number.isNaN(ms) ? undefined : ms;
}

/** The header's seconds as milliseconds; undefined for anything else. HttpSender makes dates seconds. */
export function parseRetryAfter(value: unknown): number | undefined {
  if (typeof value !== "string" || !/^\d{1,6}$/.test(value)) return undefined;
  return Number(value) * 1000;
}

/** A store answers, and has the object in another version than the one that was asked for. */
export class ChangedObjectError extends StorageError {
  override readonly name = "StorageError";
}

/** The object was written again between two requests for its bytes. */
export function changedWhileRead(
  key: string,
  storage: string,
  details: { readonly cause?: unknown } = {},
): ChangedObjectError {
  return new ChangedObjectError(`object ${key} in ${storage} was changed while it was read`, {
    isRetryable: false,
    ...details,
  });
}

/** An answer that says no: the cause of the error that it became. */
export class HttpFailure extends Error {
  readonly status: number;
  /** The store's own, "" if it gave none. */
  readonly code: string;
  readonly retryAfterMs: number | undefined;

  constructor(failure: {
    readonly status: number;
    readonly code: string;
    readonly text: string;
    readonly retryAfterMs?: number | undefined;
  }) {
    super(failure.text);
    this.name = "HttpFailure";
    this.status = failure.status;
    this.code = failure.code;
    this.retryAfterMs = failure.retryAfterMs;
  }
}

/** The answer that an error of ours was made from, if it was made from one. */
export function httpFailure(error: unknown): HttpFailure | undefined {
  if (!(error instanceof OperationError)) return undefined;
  return error.cause instanceof HttpFailure ? error.cause : undefined;
}

/** "cannot put a in s3://b: 503 ServerBusy: Try again later". */
export function formatFailure(
  { status, code, message }: HttpFailure,
  action: RequestAction,
): string {
  const what = `${failedAction(action)}: ${`${status} ${code}`.trimEnd()}`;
  return message === "" ? what : `${what}: ${message.replace(/\.$/, "")}`;
}
