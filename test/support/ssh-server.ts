import { execFileSync } from "node:child_process";
import { existsSync } from "node:fs";
import { chmod, mkdir, mkdtemp, readFile, rm, writeFile } from "node:fs/promises";
import { tmpdir, userInfo } from "node:os";
import { join } from "node:path";
import type { SftpConfig } from "../../src/storage/sftp-config.ts";
import { startChildServer } from "./child-server.ts";
import { freePort } from "./postgres-programs.ts";
import { chownTree, serverUser } from "./server-user.ts";

const SSHD = "/usr/sbin/sshd";
const PASSPHRASE = "correct horse";

/** Debian's OpenSSH server, run by an ordinary user, so that nobody else can log in. */
export interface SshServer extends AsyncDisposable {
  readonly pid: number;
  readonly port: number;
  readonly username: string;
  /** Of keys, known hosts and stores; the server's user may write below `stores`. */
  readonly directory: string;
  readonly stores: string;
  /** How to reach a store there; `settings` replaces parts of it. */
  config(path: string, settings?: Partial<SftpConfig>): SftpConfig;
  stop(): Promise<void>;
}

/** Names of private keys that the server lets in; "encrypted" has `sshPassphrase`. */
export const sshKeys = ["ed25519", "rsa", "ecdsa", "encrypted"] as const;
export const sshPassphrase = PASSPHRASE;

/** Whether this machine has the programs. */
export function isSshServerAvailable(): boolean {
  return existsSync(SSHD) && existsSync("/usr/bin/ssh-keygen");
}

/** Starts one on 127.0.0.1; all it stored is gone after `stop`. */
export async function startSshServer(lines: readonly string[] = []): Promise<SshServer> {
  const directory = await mkdtemp(join(tmpdir(), "walnut-ssh-"));
  const stores = join(directory, "stores");
  await chmod(directory, 0o755);
  await mkdir(stores);
  const port = await freePort();
  makeKeys(directory);
  const publicKeys = sshKeys.map((name) => readFile(join(directory, `${name}.pub`), "utf8"));
  await writeFile(join(directory, "authorized_keys"), (await Promise.all(publicKeys)).join(""));
  const hostKey = await readFile(join(directory, "host.pub"), "utf8");
  const knownHosts = join(directory, "known_hosts");
  await writeFile(knownHosts, `[127.0.0.1]:${port} ${hostKey}`);
  const configFile = join(directory, "sshd_config");
  await writeFile(configFile, [...configuration(directory, port), ...lines, ""].join("\n"));

  const user = serverUser();
  await chownTree(directory, user);
  const child = startChildServer(SSHD, ["-D", "-e", "-f", configFile], { cwd: directory, user });
  const stop = async () => {
    await child.stop();
    await rm(directory, { recursive: true, force: true });
  };
  try {
    await child.listening(port);
  } catch (error) {
    await stop();
    throw error;
  }
  const username = user === undefined ? userInfo().username : nameOf(user.uid);
  const config = (path: string, settings: Partial<SftpConfig> = {}): SftpConfig => ({
    kind: "sftp",
    host: "127.0.0.1",
    port,
    username,
    path,
    privateKeyPath: join(directory, "ed25519"),
    knownHostsFile: knownHosts,
    isHostKeyChecked: true,
    ...settings,
  });
  const { pid } = child;
  return { pid, port, username, directory, stores, config, stop, [Symbol.asyncDispose]: stop };
}

function makeKeys(directory: string): void {
  const make = (name: string, type: string, passphrase = "") => {
    const file = join(directory, name);
    const words = ["-q", "-t", type, "-N", passphrase, "-C", name, "-f", file];
    if (type === "rsa") words.push("-b", "2048");
    execFileSync("/usr/bin/ssh-keygen", words);
  };
  make("host", "ed25519");
  make("other", "ed25519");
  make("ed25519", "ed25519");
  make("rsa", "rsa");
  make("ecdsa", "ecdsa");
  make("encrypted", "ed25519", PASSPHRASE);
}

function configuration(directory: string, port: number): string[] {
  return [
    `Port ${port}`,
    "ListenAddress 127.0.0.1",
    `HostKey ${join(directory, "host")}`,
    `PidFile ${join(directory, "sshd.pid")}`,
    `AuthorizedKeysFile ${join(directory, "authorized_keys")}`,
    "StrictModes no",
    "UsePAM no",
    "MaxStartups 100",
    "MaxAuthTries 20",
    "Subsystem sftp internal-sftp",
  ];
}

function nameOf(uid: number): string {
  const name = execFileSync("/usr/bin/id", ["-un", `${uid}`], { encoding: "utf8" });
  return name.trim();
}
