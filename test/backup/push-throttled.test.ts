/**
 * E05: a store that answers 503 SlowDown to a third of all requests. A backup through it lacks no
 * file, and none is listed that could not be completed.
 */
import assert from "node:assert/strict";
import { after, before, test } from "node:test";
import { sentinelKey } from "../../src/layout/keys.ts";
import { openStorage } from "../../src/storage/open.ts";
import type { CallOptions, ListOptions, PutOptions, Storage } from "../../src/storage/storage.ts";
import type { ByteSource } from "../../src/io/bytes.ts";
import { type BackupWorld, startBackupWorld } from "../support/backup-world.ts";
import { ForgetfulRelay } from "../support/forgetful-relay.ts";
import { holdFirstPart } from "../support/hooked-storage.ts";
import { restoreInto } from "../support/restoring.ts";
import { s3Config } from "../support/s3-config.ts";
import { errorDocument, S3Emulation, type S3Request } from "../support/s3-emulation.ts";

const MIB = 1024 * 1024;
const slowDown = { status: 503, body: errorDocument("SlowDown", "Reduce your request rate.") };

const all: { world?: BackupWorld } = {};

function world(): BackupWorld {
  if (all.world === undefined) throw new Error("no world");
  return all.world;
}

before(async () => {
  all.world = await startBackupWorld({ major: 18 });
});
after(async () => await all.world?.[Symbol.asyncDispose]());

/** A repository whose WAL lies in one store, where archive_command puts it, the rest in another. */
class SplitStorage implements Storage {
  readonly name = "two stores";
  readonly #wal: Storage;
  readonly #rest: Storage;

  constructor(wal: Storage, rest: Storage) {
    this.#wal = wal;
    this.#rest = rest;
  }

  #of(key: string): Storage {
    return key.startsWith("wal_005/") ? this.#wal : this.#rest;
  }

  get(key: string, options: CallOptions) {
    return this.#of(key).get(key, options);
  }

  put(key: string, body: ByteSource, options: PutOptions) {
    return this.#of(key).put(key, body, options);
  }

  stat(key: string, options: CallOptions) {
    return this.#of(key).stat(key, options);
  }

  list(prefix: string, options: ListOptions) {
    return this.#of(prefix).list(prefix, options);
  }

  async delete(keys: readonly string[], options: CallOptions) {
    for (const key of keys) await this.#of(key).delete([key], options);
  }

  async [Symbol.asyncDispose]() {
    await this.#rest[Symbol.asyncDispose]();
  }
}

async function throttled(
  isBusy: (request: S3Request) => boolean,
  attempts: number,
): Promise<{ readonly server: S3Emulation; readonly storage: Storage }> {
  const server = await S3Emulation.start();
  server.intercept = (request) => (isBusy(request) ? slowDown : undefined);
  const store = await openStorage(s3Config(server, { maxPartBytes: 5 * MIB }), {
    signal: AbortSignal.timeout(120_000),
    requestTimeoutMs: 30_000,
    uploadConcurrency: 4,
    retryPolicy: { attempts, baseMs: 1, capMs: 5, totalMs: 60_000 },
  });
  return { server, storage: new SplitStorage(world().storage, store) };
}

test("a backup through a store that refuses 30 % of all requests lacks nothing (E05)", async () => {
  // A fixed sequence that looks random: about the same requests fail on each run.
  const { server, storage } = await throttled(({ number }) => (number * 7919) % 100 < 30, 30);
  await using _ = server;
  const { name } = await world().push({ storage, thresholdBytes: 8 * MIB, partConcurrency: 2 });
  assert.ok(server.count("UploadPart") > 3, `${server.count("UploadPart")} parts`);
  assert.equal(server.uploads.size, 0);
  // Each file is held against the size and hash that were recorded when it was read.
  const destination = await world().cluster.makeDirectory("through 503");
  const { isStartable } = await restoreInto(storage, destination, { backup: name });
  assert.ok(isStartable);
});

test("one that refuses everything from some moment on gets no backup (E05)", async () => {
  const state = { parts: 0 };
  const isBusy = ({ operation }: S3Request) => {
    if (operation === "UploadPart") state.parts++;
    return state.parts > 2;
  };
  const { server, storage } = await throttled(isBusy, 4);
  await using _ = server;
  await assert.rejects(world().push({ storage, thresholdBytes: 8 * MIB }), {
    name: "StorageError",
    message: /503 SlowDown/,
  });
  assert.deepEqual(
    [...server.objects.keys()].filter((key) => key.includes("sentinel")),
    [],
  );
});

test("a session that has nothing to do is not forgotten on the way, however long it takes (P19)", async () => {
  await using relay = await ForgetfulRelay.start(world().cluster.port);
  const connection = world().connection({ port: relay.port });
  const { storage, entered, release } = holdFirstPart(world().storage);
  // One part is not read to its end before the store takes it.
  const pushing = world().push({ connection, storage, aliveCheckIntervalMs: 20 });
  pushing.catch(() => {});
  await Promise.race([entered, pushing]);
  // Those of the table names and of the size in bytes come to their ends.
  await relay.connectionsLeft(1);
  for (let count = 0; count < 5; count += 1) await relay.clientSpeaks();
  release();
  const { name } = await pushing;
  assert.ok((await world().keys()).includes(sentinelKey(name)));
});
