import { defaulted, setting } from "./setting.ts";
import { boolean, path, secret, text } from "./value-types.ts";

const ANY = { form: "any" } as const;

/** A directory on a machine that is reached over SSH. */
export const sftp = {
  prefix: setting(
    "SSH_PREFIX",
    text,
    "Store over SFTP in this directory, which must exist: ssh://host/path, ssh://user@host:port/path.",
  ),
  username: setting("SSH_USERNAME", text, "User that logs in there.", ANY),
  password: setting("SSH_PASSWORD", secret, "Password of the user.", ANY),
  /** Checked when it is used: Kubernetes and Docker set such a variable to other things. */
  port: setting("SSH_PORT", text, "Port; 22 unless given.", ANY),
  privateKeyPath: setting(
    "SSH_PRIVATE_KEY_PATH",
    path,
    "Private key; ~/.ssh/id_ed25519, id_ecdsa and id_rsa unless given.",
    ANY,
  ),
  passphrase: setting("SSH_PRIVATE_KEY_PASSPHRASE", secret, "Passphrase of the private key.", ANY),
  agentSocket: setting("SSH_AUTH_SOCK", path, "Socket of an agent that holds keys.", {
    form: "plain",
  }),
  knownHosts: setting(
    "SSH_KNOWN_HOSTS",
    path,
    "File of the host keys that are trusted; those of OpenSSH unless given.",
    { form: "own" },
  ),
  hostKeyCheck: defaulted(
    "SSH_HOST_KEY_CHECK",
    boolean,
    "Refuse servers whose host key is not known. Without it anybody in between can read and change all.",
    { form: "own", default: "true" },
  ),
} as const;
