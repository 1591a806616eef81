import { chmodSync, mkdirSync, writeFileSync } from "node:fs";
import { dirname, join } from "node:path";
import { makeCertificates } from "../../test/support/certificates.ts";
import { startChildServer } from "../../test/support/child-server.ts";
import { freePort } from "../../test/support/postgres-programs.ts";

/** What the network to a store in the same region costs. */
export const LATENCY_MS = 20;

/** An S3 server with TLS, `LATENCY_MS` away. */
export interface SlowStore extends AsyncDisposable {
  /** Of 127.0.0.1. */
  readonly port: number;
  readonly authorityFile: string;
  readonly bucket: string;
  readonly accessKeyId: string;
  readonly secretAccessKey: string;
}

const GATEWAY = join(dirname(dirname(import.meta.dirname)), ".cache", "bin", "versitygw");

/** versitygw (`npm run test:interop` builds it), which keeps its objects below `home`. */
export async function startSlowStore(home: string): Promise<SlowStore> {
  const directory = join(home, "slow-store");
  const bucket = "walnut-bench";
  mkdirSync(join(directory, "objects", bucket), { recursive: true });
  const certificates = await makeCertificates(directory);
  if (certificates === undefined) throw new Error("openssl is missing: see .ci/run");
  chmodSync(certificates.authorityFile, 0o644);
  const certificate = join(directory, "server.pem");
  const key = join(directory, "server.key");
  writeFileSync(certificate, certificates.certificate);
  writeFileSync(key, certificates.key);

  const ownPort = await freePort();
  const accessKeyId = "bench-key";
  const secretAccessKey = "bench-secret";
  const gateway = startChildServer(
    GATEWAY,
    [
      "--port",
      `127.0.0.1:${ownPort}`,
      "--cert",
      certificate,
      "--key",
      key,
      "--quiet",
      // As the stores of this world do; without it each request pays for a TLS handshake.
      "--keep-alive",
      "posix",
      join(directory, "objects"),
    ],
    { cwd: directory, env: { ROOT_ACCESS_KEY: accessKeyId, ROOT_SECRET_KEY: secretAccessKey } },
  );
  await gateway.listening(ownPort);
  const relay = startChildServer(
    process.execPath,
    [join(import.meta.dirname, "latency-relay.ts"), `${ownPort}`, `${LATENCY_MS}`],
    { cwd: directory },
  );
  return {
    port: Number(await relay.firstLine()),
    authorityFile: certificates.authorityFile,
    bucket,
    accessKeyId,
    secretAccessKey,
    async [Symbol.asyncDispose]() {
      await relay.stop();
      await gateway.stop();
    },
  };
}
