/** The one repository of a cluster that is treated badly, and what its store does to everybody. */
import { mkdir, readdir, rename } from "node:fs/promises";
import { join } from "node:path";
import { openStorage } from "../../src/storage/open.ts";
import { FaultProxy, type HttpFault } from "./fault-proxy.ts";
import type { Random } from "./random.ts";
import { s3Config } from "./s3-config.ts";
import { type S3ServerKind, startS3Server } from "./s3-server.ts";
import { chownTree, serverUser } from "./server-user.ts";

export type Weather = "fine" | "flaky" | "away";

export interface ChaosStore extends AsyncDisposable {
  readonly settings: Readonly<Record<string, string>>;
  become(weather: Weather): Promise<void>;
  /** Of what is stored below wal_005, whatever the weather is. */
  walNames(): Promise<string[]>;
}

const { signal } = new AbortController();
const FAULT_SHARE = 0.15;
const slowDown =
  '<?xml version="1.0"?><Error><Code>SlowDown</Code><Message>slower</Message></Error>';

/** What providers do on bad days. */
const FAULTS: readonly ((random: Random) => HttpFault)[] = [
  () => ({ answer: { status: 503, body: slowDown } }),
  (random) => ({ resetAfterBytes: Math.floor(random.next() * 300_000) }),
  () => ({ loseAnswer: true }),
  (random) => ({ delayMs: random.next() * 800 }),
  (random) => ({ truncateAfterBytes: Math.floor(random.next() * 1000) }),
];

/** A real S3 server behind a proxy. */
export async function chaosS3(kind: S3ServerKind, random: Random): Promise<ChaosStore> {
  const server = await startS3Server(kind);
  const proxy = await FaultProxy.start(server.endpoint);
  const storage = await openStorage(s3Config(server, { prefix: "main" }), {
    signal,
    requestTimeoutMs: 60_000,
    uploadConcurrency: 2,
  });
  const flaky = (): HttpFault | undefined => {
    if (random.next() >= FAULT_SHARE) return undefined;
    return FAULTS[Math.floor(random.next() * FAULTS.length)]?.(random);
  };
  return {
    settings: {
      WALG_S3_PREFIX: `s3://${server.bucket}/main`,
      AWS_ENDPOINT: proxy.endpoint,
      AWS_REGION: "us-east-1",
      AWS_S3_FORCE_PATH_STYLE: "true",
      AWS_ACCESS_KEY_ID: server.accessKeyId,
      AWS_SECRET_ACCESS_KEY: server.secretAccessKey,
    },
    async become(weather) {
      const away = { answer: { status: 503, body: slowDown } };
      proxy.rule = weather === "flaky" ? flaky : () => (weather === "away" ? away : undefined);
    },
    async walNames() {
      const names: string[] = [];
      for await (const { key } of storage.list("wal_005/", { signal })) names.push(key.slice(8));
      return names;
    },
    async [Symbol.asyncDispose]() {
      await storage[Symbol.asyncDispose]();
      await proxy[Symbol.asyncDispose]();
      await server.stop();
    },
  };
}

/** A directory, which is there or not. */
export async function chaosDirectory(root: string): Promise<ChaosStore> {
  const path = join(root, "repository");
  const elsewhere = `${path}-away`;
  await mkdir(path);
  await chownTree(path, serverUser());
  const state = { isAway: false };
  return {
    settings: { WALG_FILE_PREFIX: path },
    async become(weather) {
      const isAway = weather === "away";
      if (isAway !== state.isAway)
        await rename(...(isAway ? ([path, elsewhere] as const) : ([elsewhere, path] as const)));
      state.isAway = isAway;
    },
    async walNames() {
      const names = await readdir(join(state.isAway ? elsewhere : path, "wal_005")).catch(() => []);
      return names.filter((name) => !name.includes(".tmp."));
    },
    async [Symbol.asyncDispose]() {},
  };
}
