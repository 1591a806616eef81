import { spawn } from "node:child_process";
import { ConfigError, systemErrorCode } from "../errors.ts";
import type { Crypter } from "./crypter.ts";
import { openOpenPgp, type OpenPgpOptions } from "./openpgp-keys.ts";

/**
 * OpenPGP with a key of gpg's own key ring, which stays there: gpg is asked for it. Without its
 * private part nothing can be read. Throws ConfigError when gpg has no such key.
 */
export async function openGpg(
  keyId: string,
  options: OpenPgpOptions & { readonly signal: AbortSignal },
): Promise<Crypter> {
  const origin = `GPG_KEY_ID ${keyId}`;
  const asked = { keyId, signal: options.signal };
  const armoredPublic = await exportKey("--export", asked);
  if (armoredPublic === "") {
    throw new ConfigError(`gpg has no key ${keyId}`, {
      hint: "Nothing was read or written. `gpg --list-keys` shows the keys of this user.",
    });
  }
  const armoredPrivate = await exportKey("--export-secret-keys", {
    ...asked,
    passphrase: options.passphrase ?? "",
  });
  return await openOpenPgp({ text: armoredPrivate || armoredPublic, origin }, options);
}

/** The armored key; empty when gpg has none. */
async function exportKey(
  command: "--export" | "--export-secret-keys",
  asked: { readonly keyId: string; readonly passphrase?: string; readonly signal: AbortSignal },
): Promise<string> {
  const { keyId, passphrase, signal } = asked;
  const secret =
    passphrase === undefined ? [] : ["--pinentry-mode", "loopback", "--passphrase-fd", "0"];
  const words = ["--batch", "--quiet", "--armor", ...secret, command, "--", keyId];
  const child = spawn("gpg", words, { stdio: ["pipe", "pipe", "pipe"], signal });
  const output: Buffer[] = [];
  const messages: Buffer[] = [];
  child.stdout.on("data", (chunk: Buffer) => output.push(chunk));
  child.stderr.on("data", (chunk: Buffer) => messages.push(chunk));
  // It may have ended without reading.
  child.stdin.on("error", () => {});
  child.stdin.end(passphrase === undefined ? "" : `${passphrase}\n`);
  const { promise, resolve, reject } = Promise.withResolvers<number | null>();
  child.on("error", reject);
  child.on("close", resolve);
  const code = await promise.catch((error: unknown) => {
    signal.throwIfAborted();
    throw new ConfigError(`gpg can't be started: ${systemErrorCode(error) ?? String(error)}`, {
      cause: error,
      hint: "GPG_KEY_ID needs gpg; WALG_PGP_KEY_PATH with the key in a file does not.",
    });
  });
  const text = Buffer.concat(output).toString("latin1");
  const isMissing = text === "" && command === "--export-secret-keys" && passphrase === "";
  if (code === 0 || isMissing) return text;
  const reason = Buffer.concat(messages).toString("utf8").trim();
  throw new ConfigError(`gpg did not give key ${keyId}: ${reason || `exit code ${code}`}`, {
    hint: "Nothing was read or written. Its passphrase is WALG_PGP_KEY_PASSPHRASE.",
  });
}
