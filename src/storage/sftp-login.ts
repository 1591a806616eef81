import { readFile } from "node:fs/promises";
import { join } from "node:path";
import ssh2 from "ssh2";
import type { AnyAuthMethod, ParsedKey, ServerHostKeyAlgorithm } from "ssh2";
import { ConfigError, StorageAccessError, systemErrorCode } from "../errors.ts";
import { homeDirectory } from "../io/own-user.ts";
import { localFileError } from "../io/system-error.ts";
import {
  fingerprint,
  hostKeyType,
  hostName,
  judgeHostKey,
  knownKeyTypes,
  parseKnownHosts,
} from "./known-hosts.ts";
import type { KnownHost } from "./known-hosts.ts";
import type { SftpConfig } from "./sftp-config.ts";

/** What a connection is made with: read once, before the first. */
export interface SftpLogin {
  /** In the order in which they are tried. */
  readonly methods: readonly AnyAuthMethod[];
  /** Absent if the server's key is not to be checked. */
  readonly knownHosts?: readonly KnownHost[];
  /** Of the files that were looked into, for messages. */
  readonly knownHostsFiles: readonly string[];
}

/** Where OpenSSH looks by itself. */
const SYSTEM_KNOWN_HOSTS = ["/etc/ssh/ssh_known_hosts", "/etc/ssh/ssh_known_hosts2"];
const DEFAULT_KEYS = ["id_ed25519", "id_ecdsa", "id_rsa"];

/**
 * Reads keys and known hosts. Throws ConfigError for a key that can't be used, and if there is
 * nothing to log in with.
 */
export async function readSftpLogin(config: SftpConfig): Promise<SftpLogin> {
  const home = homeDirectory();
  const own = home === undefined ? [] : ["known_hosts", "known_hosts2"];
  const defaults = [...own.map((name) => join(home ?? "", ".ssh", name)), ...SYSTEM_KNOWN_HOSTS];
  const { knownHostsFile } = config;
  const knownHostsFiles = knownHostsFile === undefined ? defaults : [knownHostsFile];
  const methods = [...(await keyMethods(config, home)), ...otherMethods(config)];
  if (methods.length === 0) {
    throw new ConfigError(`there is nothing to log in with to ${config.host}`, {
      hint: "Set SSH_PRIVATE_KEY_PATH or SSH_PASSWORD, or start an agent (SSH_AUTH_SOCK).",
    });
  }
  if (!config.isHostKeyChecked) return { methods, knownHostsFiles };
  const isRequired = knownHostsFile !== undefined;
  const read = await Promise.all(knownHostsFiles.map((path) => readKnownHosts(path, isRequired)));
  return { methods, knownHosts: read.flat(), knownHostsFiles };
}

/** Gives why the server's key is not to be trusted; undefined if it is. */
export function hostKeyProblem(
  login: SftpLogin,
  config: SftpConfig,
  key: Buffer,
): StorageAccessError | undefined {
  if (login.knownHosts === undefined) return undefined;
  const verdict = judgeHostKey(login.knownHosts, config, key);
  if (verdict.kind === "known") return undefined;
  const [file = ""] = login.knownHostsFiles;
  const name = hostName(config);
  const shown = `${hostKeyType(key)} ${fingerprint(key)}`;
  const scan = `ssh-keyscan -p ${config.port} ${config.host} >> ${file}`;
  const compare =
    "Compare the fingerprint with what `ssh-keygen -lf /etc/ssh/ssh_host_*_key.pub` says on the server";
  if (verdict.kind === "unknown") {
    return new StorageAccessError(
      `the host key of ${name} is not known: ${shown} is not in ${login.knownHostsFiles.join(", ")}`,
      { hint: `${compare}; if it is the same: ${scan}` },
    );
  }
  if (verdict.kind === "changed") {
    return new StorageAccessError(
      `the host key of ${name} has changed: it is ${shown}, but ${verdict.known.place} has ` +
        fingerprint(verdict.known.key),
      {
        hint:
          "Somebody may be listening in between, or the server was installed anew. " +
          `${compare}; only if it is the same: ssh-keygen -R '${name}' -f ${file}; ${scan}`,
      },
    );
  }
  return new StorageAccessError(
    `the host key of ${name} is revoked: ${shown}, by ${verdict.known.place}`,
    { hint: "Somebody may hold the server's old key. Find out before anything is sent there." },
  );
}

/** Signature algorithms for the server's key, those of known keys first, as OpenSSH asks. */
export function hostKeyAlgorithms(login: SftpLogin, config: SftpConfig): ServerHostKeyAlgorithm[] {
  const known = knownKeyTypes(login.knownHosts ?? [], config);
  const isKnown = ({ type }: { type: string }) => known.has(type);
  const types = [
    ...HOST_KEY_TYPES.filter(isKnown),
    ...HOST_KEY_TYPES.filter((one) => !isKnown(one)),
  ];
  return types.flatMap(({ algorithms }) => algorithms);
}

const HOST_KEY_TYPES: readonly {
  readonly type: string;
  readonly algorithms: readonly ServerHostKeyAlgorithm[];
}[] = [
  { type: "ssh-ed25519", algorithms: ["ssh-ed25519"] },
  { type: "ecdsa-sha2-nistp256", algorithms: ["ecdsa-sha2-nistp256"] },
  { type: "ecdsa-sha2-nistp384", algorithms: ["ecdsa-sha2-nistp384"] },
  { type: "ecdsa-sha2-nistp521", algorithms: ["ecdsa-sha2-nistp521"] },
  { type: "ssh-rsa", algorithms: ["rsa-sha2-512", "rsa-sha2-256", "ssh-rsa"] },
];

async function keyMethods(config: SftpConfig, home: string | undefined): Promise<AnyAuthMethod[]> {
  const { username, privateKeyPath } = config;
  const type = "publickey" as const;
  if (privateKeyPath !== undefined) {
    const key = parseKey(await readKey(privateKeyPath), config);
    if (key instanceof Error) throw unusableKey(privateKeyPath, key, config);
    return [{ type, username, key }];
  }
  if (home === undefined) return [];
  const methods: AnyAuthMethod[] = [];
  for (const name of DEFAULT_KEYS) {
    const bytes = await readFile(join(home, ".ssh", name)).catch(() => undefined);
    const key = bytes === undefined ? undefined : parseKey(bytes, config);
    if (key !== undefined && !(key instanceof Error)) methods.push({ type, username, key });
  }
  return methods;
}

function otherMethods({ username, agentSocket, password }: SftpConfig): AnyAuthMethod[] {
  const methods: AnyAuthMethod[] = [];
  if (agentSocket !== undefined) methods.push({ type: "agent", username, agent: agentSocket });
  if (password === undefined) return methods;
  methods.push({ type: "password", username, password });
  methods.push({
    type: "keyboard-interactive",
    username,
    prompt: (...[, , , prompts, finish]) => finish(prompts.map(() => password)),
  });
  return methods;
}

const KEY_HINT =
  "SSH_PRIVATE_KEY_PATH takes a private key (the file without .pub) in the format of OpenSSH or PEM.";

async function readKey(path: string): Promise<Buffer> {
  try {
    return await readFile(path);
  } catch (error) {
    throw localFileError("read the private key", path, error, "Correct SSH_PRIVATE_KEY_PATH.");
  }
}

function parseKey(bytes: Buffer, { passphrase }: SftpConfig): ParsedKey | Error {
  const parsed: unknown = ssh2.utils.parseKey(bytes, passphrase);
  // OpenSSH's own format may hold several.
  const [key] = [parsed].flat();
  if (key instanceof Error) return key;
  if (!isParsedKey(key)) return new Error("it holds no key");
  return key.isPrivateKey() ? key : new Error("it is a public key");
}

function isParsedKey(value: unknown): value is ParsedKey {
  return typeof value === "object" && value !== null && "isPrivateKey" in value;
}

function unusableKey(path: string, error: Error, { passphrase }: SftpConfig): ConfigError {
  const isEncrypted = /passphrase|decrypt|integrity|bad data/i.test(error.message);
  const hint =
    passphrase === undefined
      ? "Its passphrase goes into SSH_PRIVATE_KEY_PASSPHRASE."
      : "SSH_PRIVATE_KEY_PASSPHRASE may be wrong.";
  const message = error.message.replace(/^[A-Z]/, (letter) => letter.toLowerCase());
  return new ConfigError(`the private key ${path} can't be used: ${message}`, {
    cause: error,
    hint: isEncrypted ? hint : KEY_HINT,
  });
}

async function readKnownHosts(path: string, isRequired: boolean): Promise<KnownHost[]> {
  try {
    return parseKnownHosts(await readFile(path, "utf8"), path);
  } catch (error) {
    if (!isRequired && systemErrorCode(error) !== undefined) return [];
    throw localFileError("read the known hosts in", path, error);
  }
}
