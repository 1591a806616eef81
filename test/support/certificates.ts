import { spawnSync } from "node:child_process";
import { readFile } from "node:fs/promises";
import { join } from "node:path";

export interface Certificates {
  /** PEM of an authority that nobody trusts, and its path. */
  readonly authority: string;
  readonly authorityFile: string;
  /** For a server on 127.0.0.1, or "store.test", signed by that authority. */
  readonly key: string;
  readonly certificate: string;
}

function subject(name: string): string[] {
  return ["-subj", `/CN=${name}`, "-days", "2", "-nodes"];
}

/** Makes an authority and a server's certificate by openssl; undefined without that program. */
export async function makeCertificates(directory: string): Promise<Certificates | undefined> {
  const openssl = (...words: readonly string[]) =>
    spawnSync("openssl", words, { cwd: directory }).status === 0;
  const newKey = ["-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1"];
  const self = ["-keyout", "ca.key", "-out", "ca.pem"];
  const signed = [
    "-keyout",
    "server.key",
    "-out",
    "server.pem",
    "-CA",
    "ca.pem",
    "-CAkey",
    "ca.key",
  ];
  const extensions = [
    "subjectAltName=IP:127.0.0.1,DNS:store.test",
    "basicConstraints=critical,CA:FALSE",
  ];
  const options = extensions.flatMap((extension) => ["-addext", extension]);
  const isMade =
    openssl("req", "-x509", ...newKey, ...subject("test authority"), ...self) &&
    openssl("req", "-x509", ...newKey, ...subject("test server"), ...signed, ...options);
  if (!isMade) return undefined;
  const read = (name: string) => readFile(join(directory, name), "utf8");
  return {
    authority: await read("ca.pem"),
    authorityFile: join(directory, "ca.pem"),
    key: await read("server.key"),
    certificate: await read("server.pem"),
  };
}
