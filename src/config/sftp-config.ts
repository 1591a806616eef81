import { ConfigError } from "../errors.ts";
import type { SftpConfig } from "../storage/sftp-config.ts";
import { type FoundSettings, parseFound } from "./found-settings.ts";
import { sftp } from "./sftp-settings.ts";
import { decodePath, defined, escapeHint } from "./store-url.ts";
import { integer } from "./value-types.ts";

const DEFAULT_PORT = 22;
const URL_FORM =
  /^[A-Za-z][A-Za-z0-9+.-]*:\/\/(?:([^@/\s]+)@)?(\[[^\]\s]+\]|[^:@/?#\s]+)(?::(\d{1,5}))?(\/[^?#]*)?$/;

/** The store that SSH_PREFIX names. Throws ConfigError. */
export function readSftpConfig(found: FoundSettings): SftpConfig {
  const url = found.get(sftp.prefix) ?? "";
  const match = URL_FORM.exec(url);
  const [, user, host, urlPort, path = ""] = match ?? [];
  if (host === undefined) {
    throw new ConfigError(`${found.describe(sftp.prefix)} is no URL of a store: ${url}`, {
      // "user@" after "://" would be taken for a secret, and masked.
      hint:
        "It has the form ssh://host/path; user and port go into SSH_USERNAME and SSH_PORT." +
        escapeHint(url),
    });
  }
  if (user?.includes(":") === true) {
    throw new ConfigError(`${found.describe(sftp.prefix)} holds a password`, {
      hint: "Put it into SSH_PASSWORD: URLs are shown in logs.",
    });
  }
  const username = found.get(sftp.username) ?? (user === undefined ? undefined : decodePath(user));
  if (username === undefined) {
    throw new ConfigError(`${found.describe(sftp.prefix)} needs a user to log in`, {
      hint: "Set SSH_USERNAME.",
    });
  }
  return {
    kind: "sftp",
    host: host.replace(/^\[|\]$/g, ""),
    port: readPort(found) ?? Number(urlPort ?? DEFAULT_PORT),
    username,
    path: cleanPath(decodePath(path)),
    ...defined("password", found.get(sftp.password)),
    ...defined("privateKeyPath", found.get(sftp.privateKeyPath)),
    ...defined("passphrase", found.get(sftp.passphrase)),
    ...defined("agentSocket", found.get(sftp.agentSocket)),
    ...defined("knownHostsFile", found.get(sftp.knownHosts)),
    isHostKeyChecked: found.get(sftp.hostKeyCheck),
  };
}

function readPort(found: FoundSettings): number | undefined {
  const origin = found.origin(sftp.port);
  const setting = { ...sftp.port, type: integer(1, 65_535) };
  return origin === undefined ? undefined : parseFound(setting, origin);
}

/** "/~/a/" → "a", in the home directory; "/a//b/" → "/a/b"; as for WAL-G, "" → the home directory. */
function cleanPath(path: string): string {
  if (path === "") return ".";
  const parts = path.split("/").filter((part) => part !== "" && part !== ".");
  if (parts[0] === "~") return parts.slice(1).join("/") || ".";
  return `/${parts.join("/")}`;
}
