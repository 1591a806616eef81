import {
  ObjectExistsError,
  ObjectNotFoundError,
  StorageAccessError,
  StorageError,
} from "../errors.ts";
import type { OperationError } from "../errors.ts";
import { HttpFailure, formatFailure, parseRetryAfter } from "./request-errors.ts";
import type { RequestAction } from "./request-errors.ts";

const ENDPOINT_HINT =
  "Check AZURE_STORAGE_ACCOUNT, AZURE_ENDPOINT_SUFFIX or the endpoint of the connection string.";
/** For when the store can't be reached. */
export const AZURE_CONNECTION_HINTS = {
  endpoint: ENDPOINT_HINT,
  certificate:
    "The server's certificate is not trusted: set AZURE_CA_CERT_FILE to the authority that signed it.",
} as const;
const KEY_HINT =
  "Check the key in AZURE_STORAGE_ACCESS_KEY or AZURE_STORAGE_CONNECTION_STRING, and the clock of this " +
  "machine.";
const RIGHTS_HINT =
  'The credentials are valid but may not do this here: the role "Storage Blob Data Contributor" on ' +
  "the container, or a SAS with the permissions rcwdl, is enough for all that walnut does.";
const NETWORK_HINT =
  "The account's network rules, or the address range of the SAS, do not let this machine in.";
const REFUSED_HINT = "The store does not say why. Check the credentials, and what they may do.";

/** Refusals by Azure's code; those that the code does not tell are taken by status 401 and 403. */
const ACCESS_HINTS: ReadonlyMap<string, string> = new Map([
  ["AuthenticationFailed", KEY_HINT],
  ["InvalidAuthenticationInfo", KEY_HINT],
  ["NoAuthenticationInformation", KEY_HINT],
  ["AuthorizationPermissionMismatch", RIGHTS_HINT],
  ["InsufficientAccountPermissions", RIGHTS_HINT],
  ["AuthorizationResourceTypeMismatch", "The SAS is for another kind of resource: it needs sr=c."],
  ["AuthorizationServiceMismatch", "The SAS is for another service: it needs the blob service."],
  ["AuthorizationProtocolMismatch", "The SAS is for HTTPS only: the endpoint must be https."],
  ["AuthorizationSourceIPMismatch", NETWORK_HINT],
  ["AuthorizationFailure", `${RIGHTS_HINT} ${NETWORK_HINT}`],
  ["PublicAccessNotPermitted", "There are no credentials: set a key, a SAS, or an identity."],
  ["AccountIsDisabled", "The account is disabled: see it in the portal."],
  [
    "KeyBasedAuthenticationNotPermitted",
    "The account takes no keys and no SAS made of them: use an identity.",
  ],
]);

/** What else the reader can do, by Azure's code. */
const OTHER_HINTS: ReadonlyMap<string, string> = new Map([
  ["BlobImmutableDueToPolicy", "A policy of the container protects the object until it ends."],
  ["BlobArchived", "The object is in the archive tier: set it to hot or cool and wait."],
  ["BlobBeingRehydrated", "The object comes back from the archive tier: wait until it has."],
  ["LeaseIdMissing", "Somebody holds a lease on the object: break it."],
  ["AccountBeingCreated", "Wait until the account is there."],
]);

/** Failures that pass, whatever the status says. */
const PASSING_CODES: ReadonlySet<string> = new Set([
  "AccountBeingCreated",
  "InternalError",
  "Md5Mismatch",
  "OperationTimedOut",
  "ServerBusy",
]);

/** Reads what an answer says of a failure; HEAD has no body, only headers. */
export function readAzureFailure(
  status: number,
  headers: Readonly<Record<string, string>>,
  text: string,
): HttpFailure {
  const tag = (name: string) => new RegExp(`<${name}>([^<]*)</${name}>`).exec(text)?.[1] ?? "";
  const code = headers["x-ms-error-code"] ?? tag("Code");
  const [message = ""] = tag("Message").split("\n");
  const detail = tag("AuthenticationErrorDetail");
  return new HttpFailure({
    status,
    code,
    text: detail === "" ? message : `${message} ${detail}`,
    retryAfterMs: parseRetryAfter(headers["retry-after"]),
  });
}

/** Our error for an answer that says no. `expiry` is when a SAS in use ends or ended. */
export function azureError(
  failure: HttpFailure,
  action: RequestAction,
  { accessHint }: { readonly accessHint?: string | undefined } = {},
): OperationError {
  const { code, status, retryAfterMs } = failure;
  const { key, storage } = action;
  if (code === "BlobNotFound") return new ObjectNotFoundError(key, storage, { cause: failure });
  if (code === "BlobAlreadyExists" || code === "ConditionNotMet") {
    return new ObjectExistsError(key, storage, { cause: failure });
  }
  const message = formatFailure(failure, action);
  const known = ACCESS_HINTS.get(code);
  if (known !== undefined || status === 401 || status === 403) {
    const hint = accessHint ?? known ?? REFUSED_HINT;
    return new StorageAccessError(message, { hint, cause: failure });
  }
  const hint = OTHER_HINTS.get(code) ?? hintOf(failure, action);
  return new StorageError(message, {
    isRetryable: isPassing(failure),
    ...(hint === undefined ? {} : { hint }),
    ...(retryAfterMs === undefined ? {} : { retryAfterMs }),
    cause: failure,
  });
}

function isPassing({ code, status }: HttpFailure): boolean {
  if (PASSING_CODES.has(code)) return true;
  return status === 408 || status === 429 || (status >= 500 && status !== 501);
}

function hintOf({ code, status }: HttpFailure, { storage }: RequestAction): string | undefined {
  if (code === "ContainerNotFound") return `Create the container of ${storage}, or correct it.`;
  return status === 404 || (status >= 300 && status < 400) ? ENDPOINT_HINT : undefined;
}
