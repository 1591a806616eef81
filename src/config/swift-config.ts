import { ConfigError } from "../errors.ts";
import type { SwiftConfig, SwiftLogin } from "../storage/swift-config.ts";
import type { FoundSettings } from "./found-settings.ts";
import type { Setting } from "./setting.ts";
import { defined, parseStoreUrl } from "./store-url.ts";
import { swift } from "./swift-settings.ts";

/** The domain of installations that have only one. */
const DEFAULT_DOMAIN = { id: "default" };

/** The store that SWIFT_PREFIX names. Throws ConfigError. */
export function readSwiftConfig(found: FoundSettings): SwiftConfig {
  const { bucket, folder } = parseStoreUrl(found, swift.prefix);
  return {
    kind: "swift",
    container: bucket,
    prefix: folder,
    login: readLogin(found),
    ...defined("region", found.get(swift.region)),
    endpointType: found.get(swift.endpointType).replace(/URL$/, ""),
    ...defined("storageUrl", readUrl(found, swift.storageUrl)),
    ...defined("caFile", found.get(swift.caFile)),
    maxPartBytes: found.get(swift.maxPartSize),
  };
}

function readLogin(found: FoundSettings): SwiftLogin {
  const token = found.get(swift.authToken);
  if (token !== undefined && found.origin(swift.storageUrl) !== undefined) {
    return { kind: "token", token };
  }
  const url = readUrl(found, swift.authUrl)?.replace(/\/+$/, "");
  if (url === undefined) throw missing(found, swift.authUrl);
  const version = readVersion(found, url);
  if (version === "1") {
    const user = required(found, swift.username);
    return { kind: "v1", url, user, key: required(found, swift.password) };
  }
  const base = url.replace(/\/auth\/tokens$/, "");
  const root = base.endsWith("/v3") ? base : `${base}/v3`;
  const scope = readScope(found);
  const auth = { identity: readIdentity(found), ...(scope === undefined ? {} : { scope }) };
  return { kind: "v3", url: root, body: { auth } };
}

function readVersion(found: FoundSettings, url: string): "1" | "3" {
  const told = found.get(swift.identityVersion) ?? /\/v(\d)(?:\.\d)?(?:\/|$)/.exec(url)?.[1] ?? "3";
  const [major = ""] = told.replace(/^v/, "").split(".");
  if (major === "1" || major === "3") return major;
  const from =
    found.origin(swift.identityVersion) === undefined ? swift.authUrl : swift.identityVersion;
  throw new ConfigError(
    `${found.describe(from)} asks for version ${major} of the identity service`,
    {
      hint: "Versions 1 and 3 are known. Keystone has had version 3 since 2013, and no other since 2018.",
    },
  );
}

/** @source Keystone's API, version 3: "Password authentication", "Application credential" */
function readIdentity(found: FoundSettings): object {
  const secret = found.get(swift.applicationCredentialSecret);
  const id = found.get(swift.applicationCredentialId);
  const name = found.get(swift.applicationCredentialName);
  if (id !== undefined || name !== undefined) {
    if (secret === undefined) throw missing(found, swift.applicationCredentialSecret);
    const which = id === undefined ? { name, user: readUser(found) } : { id };
    return { methods: ["application_credential"], application_credential: { ...which, secret } };
  }
  const password = required(found, swift.password);
  return { methods: ["password"], password: { user: { ...readUser(found), password } } };
}

function readUser(found: FoundSettings): object {
  const id = found.get(swift.userId);
  if (id !== undefined) return { id };
  const domain = readDomain(found, swift.userDomainId, swift.userDomainName);
  return { name: required(found, swift.username), domain };
}

function readScope(found: FoundSettings): object | undefined {
  const hasCredential =
    found.origin(swift.applicationCredentialId) !== undefined ||
    found.origin(swift.applicationCredentialName) !== undefined;
  // An application credential has its own.
  if (hasCredential) return undefined;
  const trust = found.get(swift.trustId);
  if (trust !== undefined) return { "OS-TRUST:trust": { id: trust } };
  const id = found.get(swift.projectId);
  if (id !== undefined) return { project: { id } };
  const name = found.get(swift.projectName);
  if (name !== undefined) {
    const domain = readDomain(found, swift.projectDomainId, swift.projectDomainName);
    return { project: { name, domain } };
  }
  const hasDomain =
    found.origin(swift.domainId) !== undefined || found.origin(swift.domainName) !== undefined;
  return hasDomain ? { domain: readDomain(found, swift.domainId, swift.domainName) } : undefined;
}

function readDomain(found: FoundSettings, id: Setting<string>, name: Setting<string>): object {
  const idValue = found.get(id);
  if (idValue !== undefined) return { id: idValue };
  const nameValue = found.get(name) ?? found.get(swift.domainName);
  return nameValue === undefined ? DEFAULT_DOMAIN : { name: nameValue };
}

function readUrl(found: FoundSettings, setting: Setting<string>): string | undefined {
  const url = found.get(setting);
  if (url === undefined || (/^https?:\/\/[^/]/.test(url) && URL.canParse(url))) return url;
  throw new ConfigError(`${found.describe(setting)} is no URL: ${url}`);
}

function required(found: FoundSettings, setting: Setting<string>): string {
  const value = found.get(setting);
  if (value === undefined) throw missing(found, setting);
  return value;
}

function missing(found: FoundSettings, { name }: Setting): ConfigError {
  return new ConfigError(`${found.describe(swift.prefix)} needs ${name}`, {
    hint: "To log in, set OS_AUTH_URL, OS_USERNAME, OS_PASSWORD and OS_PROJECT_NAME, or an application credential.",
  });
}
