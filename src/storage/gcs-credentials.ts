import { createPrivateKey, createSign } from "node:crypto";
import { readFile } from "node:fs/promises";
import { join } from "node:path";
import { ConfigError, StorageAccessError, StorageError } from "../errors.ts";
import type { Clock } from "../io/clock.ts";
import { homeDirectory } from "../io/own-user.ts";
import { localFileError } from "../io/system-error.ts";
import type { GcsConfig } from "./gcs-config.ts";
import { GCS_CONNECTION_HINTS, parseJson, property } from "./gcs-errors.ts";
import { connectionError, parseRetryAfter } from "./request-errors.ts";
import type { RestRequest, RestSender } from "./rest-sender.ts";
import { readText } from "./rest-sender.ts";
import type { CallOptions } from "./storage.ts";
import type { AccessToken, TokenSource } from "./token-auth.ts";

/** What a token is for: objects, but not the settings of buckets. */
const SCOPE = "https://www.googleapis.com/auth/devstorage.read_write";
const DEFAULT_METADATA_HOST = "169.254.169.254";
const TOKEN_URI = "https://oauth2.googleapis.com/token";
const ASSERTION_SECONDS = 3600;

export interface GoogleTokenOptions {
  readonly sender: RestSender;
  readonly clock: Clock;
}

/** Google's application default credentials: a file, gcloud's file, or the machine's account. */
export function googleTokens(config: GcsConfig, options: GoogleTokenOptions): TokenSource {
  let source: TokenSource | undefined;
  return async (call) => {
    source ??= await findSource(config, options);
    return await source(call);
  };
}

async function findSource(config: GcsConfig, options: GoogleTokenOptions): Promise<TokenSource> {
  const { credentialsFile } = config;
  if (credentialsFile !== undefined) return await readSource(credentialsFile, options);
  const home = homeDirectory() ?? "/";
  const path = join(home, ".config", "gcloud", "application_default_credentials.json");
  try {
    await readFile(path);
  } catch {
    return metadataSource(config.metadataHost ?? DEFAULT_METADATA_HOST, options);
  }
  return await readSource(path, options);
}

const FILE_HINT =
  "Correct GOOGLE_APPLICATION_CREDENTIALS; or unset it, where this machine has a service account.";

async function readSource(path: string, options: GoogleTokenOptions): Promise<TokenSource> {
  let json: unknown;
  try {
    json = parseJson(await readFile(path, "utf8"));
  } catch (error) {
    throw localFileError("read the credentials in", path, error, FILE_HINT);
  }
  const type = property(json, "type");
  if (type === "service_account") return serviceAccountSource(json, path, options);
  if (type === "authorized_user") return userSource(json, path, options);
  if (typeof json !== "object" || json === null || typeof type !== "string") {
    throw new ConfigError(`${path} holds no credentials of Google's`, {
      hint: 'It is JSON with a "type": download a service account\'s key again.',
    });
  }
  // Federation has many forms; the library that knows them is loaded for them only.
  const { libraryTokens } = await import("./gcs-federation.ts");
  return libraryTokens(json, { ...options, scope: SCOPE });
}

function serviceAccountSource(
  json: unknown,
  path: string,
  { sender, clock }: GoogleTokenOptions,
): TokenSource {
  const email = textOf(json, "client_email", path);
  const key = textOf(json, "private_key", path);
  requirePrivateKey(key, path);
  const uri = tokenUri(json);
  return async (call) => {
    const seconds = Math.floor(clock.now() / 1000);
    const header = { alg: "RS256", typ: "JWT", kid: property(json, "private_key_id") };
    const claims = {
      iss: email,
      scope: SCOPE,
      aud: uri,
      iat: seconds,
      exp: seconds + ASSERTION_SECONDS,
    };
    const text = [header, claims].map((part) => base64Url(JSON.stringify(part))).join(".");
    const assertion = `${text}.${createSign("RSA-SHA256").update(text).sign(key, "base64url")}`;
    const grant = "urn:ietf:params:oauth:grant-type:jwt-bearer";
    return await askByForm(uri, { grant_type: grant, assertion }, { sender, clock, ...call });
  };
}

function requirePrivateKey(key: string, path: string): void {
  try {
    createPrivateKey(key);
  } catch (error) {
    const details = { hint: NEW_KEY_HINT, cause: error };
    throw new ConfigError(`the private key in ${path} is damaged`, details);
  }
}

function userSource(json: unknown, path: string, options: GoogleTokenOptions): TokenSource {
  const form = {
    grant_type: "refresh_token",
    client_id: textOf(json, "client_id", path),
    client_secret: textOf(json, "client_secret", path),
    refresh_token: textOf(json, "refresh_token", path),
  };
  return async (call) => await askByForm(tokenUri(json), form, { ...options, ...call });
}

/** The account of a virtual machine, of Cloud Run, or of a pod with workload identity. */
function metadataSource(host: string, options: GoogleTokenOptions): TokenSource {
  const url = new URL(
    `http://${host}/computeMetadata/v1/instance/service-accounts/default/token?scopes=${SCOPE}`,
  );
  const request = { method: "GET", url, headers: { "metadata-flavor": "Google" } } as const;
  const hints = { endpoint: NO_ACCOUNT_HINT, refused: NO_ACCOUNT_HINT };
  return async (call) => await ask(request, hints, { ...options, ...call });
}

async function askByForm(
  uri: string,
  form: Readonly<Record<string, string>>,
  options: GoogleTokenOptions & CallOptions,
): Promise<AccessToken> {
  const body = Buffer.from(new URLSearchParams(form).toString());
  const headers = { "content-type": "application/x-www-form-urlencoded" };
  const url = new URL(uri);
  const hints = { endpoint: reachHint(url), refused: REFUSED_HINT };
  return await ask({ method: "POST", url, headers, body }, hints, options);
}

async function ask(
  request: RestRequest,
  hints: { readonly endpoint: string; readonly refused: string },
  { sender, clock, signal }: GoogleTokenOptions & CallOptions,
): Promise<AccessToken> {
  const origin = request.url.origin;
  const action = { verb: "get a token from", key: "", storage: origin };
  let text: string;
  let status: number;
  let retryAfter: unknown;
  try {
    const response = await sender.send(request, { signal });
    ({ status } = response);
    retryAfter = response.headers["retry-after"];
    text = await readText(response);
  } catch (error) {
    signal.throwIfAborted();
    const { certificate } = GCS_CONNECTION_HINTS;
    throw connectionError(error, action, { endpoint: hints.endpoint, certificate });
  }
  const json = parseJson(text);
  const token = property(json, "access_token");
  const seconds = property(json, "expires_in");
  if (status === 200 && typeof token === "string" && typeof seconds === "number") {
    return { token, expiresAtMs: clock.now() + seconds * 1000 };
  }
  const reason = property(json, "error_description") ?? property(json, "error");
  const told = typeof reason === "string" ? `: ${reason}` : "";
  const message = `cannot get a token from ${origin}: ${status}${told}`;
  if (status === 429 || status >= 500 || status === 200) {
    const retryAfterMs = parseRetryAfter(retryAfter);
    throw new StorageError(message, {
      isRetryable: true,
      ...(retryAfterMs === undefined ? {} : { retryAfterMs }),
    });
  }
  throw new StorageAccessError(message, { hint: hints.refused });
}

const NO_ACCOUNT_HINT =
  "There is no credentials file, and this machine has no service account of Google's: set " +
  "GOOGLE_APPLICATION_CREDENTIALS.";
const REFUSED_HINT =
  "The credentials are refused: the key was deleted, the account disabled, or this machine's clock is wrong.";

function reachHint({ host }: URL): string {
  return `This machine must reach ${host} for its tokens, directly or by the proxy in HTTPS_PROXY.`;
}

function tokenUri(json: unknown): string {
  const uri = property(json, "token_uri");
  return typeof uri === "string" ? uri : TOKEN_URI;
}

function textOf(json: unknown, name: string, path: string): string {
  const value = property(json, name);
  if (typeof value === "string") return value;
  throw new ConfigError(`the credentials in ${path} have no ${name}`, {
    hint: NEW_KEY_HINT,
  });
}

const NEW_KEY_HINT = "Download the key again, and leave it as it is.";

function base64Url(text: string): string {
  return Buffer.from(text).toString("base64url");
}
