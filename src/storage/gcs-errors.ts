import {
  ObjectExistsError,
  ObjectNotFoundError,
  StorageAccessError,
  StorageError,
} from "../errors.ts";
import type { OperationError } from "../errors.ts";
import { HttpFailure, formatFailure, parseRetryAfter } from "./request-errors.ts";
import type { RequestAction } from "./request-errors.ts";

const ENDPOINT_HINT = "Check the endpoint: scheme, host, port, and that it speaks GCS's JSON API.";
/** For when the store can't be reached. */
export const GCS_CONNECTION_HINTS = {
  endpoint: ENDPOINT_HINT,
  certificate: "The server's certificate is not trusted: set SSL_CERT_FILE to its authority.",
} as const;
const KEY_HINT = "Check GOOGLE_APPLICATION_CREDENTIALS, and the clock of this machine.";
const RIGHTS_HINT =
  'The role "Storage Object User" on the bucket is enough for all that walnut does.';

/** What the reader can do, by GCS's reason. */
const HINTS: ReadonlyMap<string, string> = new Map([
  ["retentionPolicyNotMet", "The bucket's retention policy protects the object until it ends."],
  ["objectUnderActiveHold", "A hold protects the object: release it."],
  ["accountDisabled", "The account is disabled."],
  ["userProjectMissing", "The bucket is requester-pays, and no project is named to pay."],
  ["customerEncryptionKeyIsIncorrect", "GCS_ENCRYPTION_KEY is not the object's key."],
  ["resourceIsEncryptedWithCustomerEncryptionKey", "Set GCS_ENCRYPTION_KEY to the object's key."],
  [
    "resourceNotEncryptedWithCustomerEncryptionKey",
    "The object has no key: unset GCS_ENCRYPTION_KEY.",
  ],
]);

/** Refusals of access that pass. */
const PASSING_REASONS: ReadonlySet<string> = new Set([
  "rateLimitExceeded",
  "userRateLimitExceeded",
  "backendError",
  "internalError",
]);

/** Reads what an answer says of a failure: JSON, or plain text where an object was asked for. */
export function readGcsFailure(
  status: number,
  headers: Readonly<Record<string, string>>,
  text: string,
): HttpFailure {
  const retryAfterMs = parseRetryAfter(headers["retry-after"]);
  const error = property(parseJson(text), "error");
  const reason = property(firstOf(property(error, "errors")), "reason");
  const message = property(error, "message");
  const plain = /^\s*</.test(text) ? "" : (text.split("\n", 1)[0] ?? "").slice(0, 300);
  return new HttpFailure({
    status,
    code: typeof reason === "string" ? reason : "",
    text: typeof message === "string" ? message : plain,
    retryAfterMs,
  });
}

/** Our error for an answer that says no. A 404 is no proof that an object is missing. */
export function gcsError(failure: HttpFailure, action: RequestAction): OperationError {
  const { code, status, retryAfterMs, message: text } = failure;
  const { key, storage } = action;
  if (status === 404 && text.startsWith("No such object")) {
    return new ObjectNotFoundError(key, storage, { cause: failure });
  }
  if (status === 412) return new ObjectExistsError(key, storage, { cause: failure });
  const message = formatFailure(failure, action);
  const isPassing =
    PASSING_REASONS.has(code) || [408, 429].includes(status) || (status >= 500 && status !== 501);
  if (!isPassing && (status === 401 || status === 403)) {
    return new StorageAccessError(message, { hint: refusalHint(failure), cause: failure });
  }
  const hint = HINTS.get(code) ?? hintOf(failure, action);
  return new StorageError(message, {
    isRetryable: isPassing,
    ...(hint === undefined ? {} : { hint }),
    ...(retryAfterMs === undefined ? {} : { retryAfterMs }),
    cause: failure,
  });
}

function refusalHint({ status, code, message }: HttpFailure): string {
  const known = HINTS.get(code);
  if (known !== undefined) return known;
  const [permission] = /storage\.[a-zA-Z]+\.[a-zA-Z]+/.exec(message) ?? [];
  if (permission !== undefined) return `The permission ${permission} is missing. ${RIGHTS_HINT}`;
  return status === 401 ? KEY_HINT : RIGHTS_HINT;
}

function hintOf({ status, message }: HttpFailure, { storage }: RequestAction): string | undefined {
  if (status === 404 && /bucket/i.test(message)) {
    return `Create the bucket of ${storage}, or correct its name.`;
  }
  return status === 404 || (status >= 300 && status < 400) ? ENDPOINT_HINT : undefined;
}

/** Undefined for what is no JSON. */
export function parseJson(text: string): unknown {
  try {
    const value: unknown = JSON.parse(text);
    return value;
  } catch {
    return undefined;
  }
}

/** A member of a JSON object, if it is one and has it. */
export function property(value: unknown, name: string): unknown {
  return typeof value === "object" && value !== null ? Reflect.get(value, name) : undefined;
}

function firstOf(value: unknown): unknown {
  return Array.isArray(value) ? value[0] : undefined;
}
