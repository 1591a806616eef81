import { createHash, createHmac } from "node:crypto";

/** One line of a known_hosts file that holds a key. */
export interface KnownHost {
  /** "/home/x/.ssh/known_hosts:12". */
  readonly place: string;
  /** Comma-separated patterns, or one hashed name. */
  readonly names: string;
  readonly isRevoked: boolean;
  /** "ssh-ed25519". */
  readonly type: string;
  /** As it comes over the wire. */
  readonly key: Buffer;
}

export type HostKeyVerdict =
  | { readonly kind: "known" }
  /** No line names this host with a key of this type. */
  | { readonly kind: "unknown" }
  /** Lines name the host with other keys of this type; the first of them. */
  | { readonly kind: "changed"; readonly known: KnownHost }
  | { readonly kind: "revoked"; readonly known: KnownHost };

export interface SshAddress {
  readonly host: string;
  readonly port: number;
}

const DEFAULT_PORT = 22;

/**
 * The keys of a known_hosts file. Lines that are no such, and those of certificate authorities, are
 * passed over, as by OpenSSH.
 *
 * @source sshd(8), "SSH_KNOWN_HOSTS FILE FORMAT"
 */
export function parseKnownHosts(text: string, path: string): KnownHost[] {
  const hosts: KnownHost[] = [];
  for (const [index, line] of text.split("\n").entries()) {
    const match = /^\s*(?:(@\S+)\s+)?([^\s#@]\S*)\s+(\S+)\s+([A-Za-z0-9+/]+=*)(?:\s|$)/.exec(line);
    const [, marker, names = "", type = "", base64 = ""] = match ?? [];
    if (match === null || (marker !== undefined && marker !== "@revoked")) continue;
    const key = Buffer.from(base64, "base64");
    if (hostKeyType(key) !== type) continue;
    const isRevoked = marker !== undefined;
    hosts.push({ place: `${path}:${index + 1}`, names, isRevoked, type, key });
  }
  return hosts;
}

/** What the known hosts say of the key that a server shows. */
export function judgeHostKey(
  hosts: readonly KnownHost[],
  address: SshAddress,
  key: Buffer,
): HostKeyVerdict {
  const name = hostName(address);
  const named = hosts.filter(({ names }) => matches(names, name));
  const revoked = named.find((known) => known.isRevoked && known.key.equals(key));
  if (revoked !== undefined) return { kind: "revoked", known: revoked };
  const valid = named.filter(({ isRevoked }) => !isRevoked);
  if (valid.some((known) => known.key.equals(key))) return { kind: "known" };

  const type = hostKeyType(key);
  const other = valid.find((known) => known.type === type);
  if (other !== undefined) return { kind: "changed", known: other };
  // As OpenSSH: a key that is known for the host's standard port is good on its others.
  if (address.port === DEFAULT_PORT) return { kind: "unknown" };
  const standard = judgeHostKey(hosts, { ...address, port: DEFAULT_PORT }, key);
  return standard.kind === "changed" ? { kind: "unknown" } : standard;
}

/** Types of the keys that are known for a host: what to ask it for first. */
export function knownKeyTypes(hosts: readonly KnownHost[], address: SshAddress): Set<string> {
  const names = [hostName(address), hostName({ ...address, port: DEFAULT_PORT })];
  const found = hosts.filter((one) => names.some((name) => matches(one.names, name)));
  return new Set(found.filter(({ isRevoked }) => !isRevoked).map(({ type }) => type));
}

/** "host", or "[host]:port" where the port is not 22: as ssh-keyscan and known_hosts write it. */
export function hostName({ host, port }: SshAddress): string {
  const name = host.toLowerCase();
  return port === DEFAULT_PORT ? name : `[${name}]:${port}`;
}

/** "SHA256:..." as ssh-keygen -l shows it. */
export function fingerprint(key: Buffer): string {
  return `SHA256:${createHash("sha256").update(key).digest("base64").replace(/=+$/, "")}`;
}

/** The name in front of a key's bytes; "" if there is none. */
export function hostKeyType(key: Buffer): string {
  if (key.length < 4) return "";
  const end = 4 + key.readUInt32BE(0);
  return end > key.length ? "" : key.toString("latin1", 4, end);
}

function matches(names: string, name: string): boolean {
  if (names.startsWith("|")) return matchesHash(names, name);
  let isMatch = false;
  for (const pattern of names.split(",")) {
    const isNegated = pattern.startsWith("!");
    if (!matchesPattern(isNegated ? pattern.slice(1) : pattern, name)) continue;
    if (isNegated) return false;
    isMatch = true;
  }
  return isMatch;
}

/** "|1|salt|hash": the name's HMAC, so that a stolen file names no hosts. */
function matchesHash(names: string, name: string): boolean {
  const [, version, salt, hash] = names.split("|");
  if (version !== "1" || salt === undefined || hash === undefined) return false;
  const hmac = createHmac("sha1", Buffer.from(salt, "base64")).update(name).digest();
  return hmac.equals(Buffer.from(hash, "base64"));
}

function matchesPattern(pattern: string, name: string): boolean {
  const escaped = pattern.toLowerCase().replace(/[.+^${}()|[\]\\]/g, "\\$&");
  return new RegExp(`^${escaped.replaceAll("*", ".*").replaceAll("?", ".")}$`).test(name);
}
