import assert from "node:assert/strict";
import { existsSync, mkdirSync, readdirSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { afterEach, beforeEach, test } from "node:test";
import type { Context } from "../../src/commands/command.ts";
import { createContext } from "../../src/commands/context.ts";
import { DaemonArchive } from "../../src/commands/daemon-archive.ts";
import { defaultConfig } from "../../src/config/load.ts";
import { InterruptedError } from "../../src/errors.ts";
import { systemClock } from "../../src/io/clock.ts";
import { silentLog } from "../../src/io/log.ts";
import type { StorageConfig } from "../../src/storage/open.ts";
import { TcpFaultProxy } from "../support/fault-proxy.ts";
import { scratchDirectory } from "../support/scratch-directory.ts";
import { until } from "../support/until.ts";
import { s3Config } from "../support/s3-config.ts";

const ACCOUNT = { bucket: "bucket", accessKeyId: "id", secretAccessKey: "secret" };

const HISTORY = "00000002.history";
const { signal } = new AbortController();

let directory: ReturnType<typeof scratchDirectory>;
let data: string;
let silent: TcpFaultProxy;
beforeEach(async () => {
  directory = scratchDirectory();
  data = join(directory.path, "data");
  mkdirSync(join(data, "pg_wal", "archive_status"), { recursive: true });
  mkdirSync(join(directory.path, "store"));
  writeFileSync(join(data, "pg_wal", HISTORY), "1\t0/3000000\tx\n");
  // A store that takes connections and never answers.
  silent = await TcpFaultProxy.start({ host: "127.0.0.1", port: 1 });
  silent.fault = { isSilent: true };
});
afterEach(async () => {
  await silent[Symbol.asyncDispose]();
  directory[Symbol.dispose]();
});

const stores = (): Readonly<Record<"silent" | "good", StorageConfig>> => ({
  good: { kind: "directory", path: join(directory.path, "store") },
  silent: s3Config({ ...ACCOUNT, endpoint: `http://127.0.0.1:${silent.port}` }),
});

function contextWith(storage: StorageConfig): Context {
  return createContext({
    config: {
      ...defaultConfig({ cpuCount: 2 }),
      dataDirectory: data,
      cacheDirectory: join(directory.path, "cache"),
      storage,
    },
    log: silentLog,
    clock: systemClock,
    signal,
    workingDirectory: directory.path,
    write: async () => {},
    progress: { update: () => {}, end: () => {} },
  });
}

/** Resolves once a request has reached the silent store. */
async function reached(): Promise<void> {
  await until("the store is asked", () => silent.connectionCount > 0);
}

test("of two fetches to one place, however it is named, only the later one goes on", async () => {
  const archive = new DaemonArchive(contextWith(stores().silent), data);
  const stop = new AbortController();
  const place = join("pg_wal", "RECOVERYHISTORY");
  const first = archive.fetch("00000002.history", place, { signal });
  const refused = assert.rejects(first, { code: "interrupted", message: /is asked for again/ });
  await reached();
  const second = archive.fetch("00000003.history", join(data, place), { signal: stop.signal });
  const elsewhere = archive.fetch("00000004.history", "elsewhere", { signal: stop.signal });
  const stopped = [second, elsewhere].map((one) => assert.rejects(one, { message: "enough" }));
  await refused;
  stop.abort(new InterruptedError("enough"));
  await Promise.all(stopped);
  assert.deepEqual(readdirSync(join(data, "pg_wal")).toSorted(), [HISTORY, "archive_status"]);
  await archive.close({ signal });
});

test("new settings count for new calls; the calls under way keep theirs", async () => {
  const archive = new DaemonArchive(contextWith(stores().silent), data);
  const stop = new AbortController();
  const old = archive.push(HISTORY, { signal: stop.signal });
  const stopped = assert.rejects(old, { message: "enough" });
  await reached();
  await archive.reload(contextWith(stores().good));
  await archive.push(HISTORY, { signal });
  assert.ok(existsSync(join(directory.path, "store", "wal_005", `${HISTORY}.zst`)));

  // Who is told to stop does not wait for ever for a call that does not end.
  await archive.close({ signal: AbortSignal.timeout(50) });
  stop.abort(new InterruptedError("enough"));
  await stopped;
  await archive.close({ signal });
});

test("another data directory, and no store at all, are refused", async () => {
  const good = contextWith(stores().good);
  const archive = new DaemonArchive(good, data);
  const { storage: _, ...withoutStore } = good.config;
  for (const config of [{ ...good.config, dataDirectory: directory.path }, withoutStore]) {
    await assert.rejects(archive.reload({ ...good, config }), { code: "config" });
  }
  await archive.push(HISTORY, { signal });
  await archive.close({ signal });
});
