import { X509Certificate } from "node:crypto";
import { readFile } from "node:fs/promises";
import { ConfigError } from "../errors.ts";
import { localFileError } from "../io/system-error.ts";

const PEM = /-----BEGIN (?:TRUSTED |X509 )?CERTIFICATE-----[\s\S]*?-----END [A-Z0-9 ]+-----/g;

/**
 * PEM certificates of the file that `setting` names; undefined without a path. Rejects with
 * LocalFileError, and with ConfigError if it holds something else.
 */
export async function readCertificates(
  path: string | undefined,
  setting: string,
): Promise<string | undefined> {
  if (path === undefined) return undefined;
  let text: string;
  try {
    text = await readFile(path, "utf8");
  } catch (error) {
    throw localFileError("read the certificates in", path, error, `Correct ${setting}.`);
  }
  const found = text.match(PEM) ?? [];
  // TLS would say no more than "invalid", and that at the first request.
  if (found.length > 0 && found.every(isCertificate)) return text;
  const what = found.length === 0 ? "holds no certificate" : "holds a damaged certificate";
  throw new ConfigError(`${path} ${what} in PEM`, {
    hint: "It is the text between BEGIN CERTIFICATE and END CERTIFICATE of each authority.",
  });
}

function isCertificate(pem: string): boolean {
  try {
    return new X509Certificate(pem).raw.length > 0;
  } catch {
    return false;
  }
}
