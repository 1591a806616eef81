/** A directory on a machine that is reached over SSH. */
export interface SftpConfig {
  readonly kind: "sftp";
  readonly host: string;
  readonly port: number;
  readonly username: string;
  /** Absolute, or relative to the user's home directory; it must exist. */
  readonly path: string;
  readonly password?: string;
  /** Absent = the keys that OpenSSH tries by itself. */
  readonly privateKeyPath?: string;
  readonly passphrase?: string;
  /** Socket of an agent that holds keys. */
  readonly agentSocket?: string;
  /** Absent = those that OpenSSH reads by itself. */
  readonly knownHostsFile?: string;
  readonly isHostKeyChecked: boolean;
}
