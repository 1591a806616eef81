import { existsSync } from "node:fs";
import { chmod, mkdtemp, rm } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { systemClock } from "../../src/io/clock.ts";
import { RestSender, readText } from "../../src/storage/rest-sender.ts";
import { startChildServer } from "./child-server.ts";
import { freePort } from "./postgres-programs.ts";

/** fsouza's emulation of Google Cloud Storage; `npm run test:interop` builds it. */
const PROGRAM = join(import.meta.dirname, "..", "..", ".cache", "bin", "fake-gcs-server");

export interface FakeGcsServer extends AsyncDisposable {
  readonly endpoint: string;
  /** Exists and is empty. */
  readonly bucket: string;
}

/** Whether this machine has it. */
export function hasFakeGcsServer(): boolean {
  return existsSync(PROGRAM);
}

/** Starts one on 127.0.0.1, in memory. */
export async function startFakeGcsServer(): Promise<FakeGcsServer> {
  const directory = await mkdtemp(join(tmpdir(), "walnut-fake-gcs-"));
  await chmod(directory, 0o755);
  const port = await freePort();
  const endpoint = `http://127.0.0.1:${port}`;
  const words = [
    "-scheme=http",
    "-host=127.0.0.1",
    `-port=${port}`,
    "-backend=memory",
    `-external-url=${endpoint}`,
    `-public-host=127.0.0.1:${port}`,
    "-log-level=error",
  ];
  const child = startChildServer(PROGRAM, words, { cwd: directory });
  const stop = async () => {
    await child.stop();
    await rm(directory, { recursive: true, force: true });
  };
  try {
    await child.listening(port);
    await createBucket(endpoint, "walnut-test");
    return { endpoint, bucket: "walnut-test", [Symbol.asyncDispose]: stop };
  } catch (error) {
    await stop();
    throw error;
  }
}

async function createBucket(endpoint: string, name: string): Promise<void> {
  const sender = new RestSender({ requestTimeoutMs: 30_000, clock: systemClock });
  const response = await sender.send(
    {
      method: "POST",
      url: new URL(`${endpoint}/storage/v1/b?project=test`),
      headers: { "content-type": "application/json" },
      body: Buffer.from(JSON.stringify({ name })),
    },
    { signal: new AbortController().signal },
  );
  const text = await readText(response);
  sender.destroy();
  if (response.status !== 200) throw new Error(`no bucket: ${response.status} ${text}`);
}
