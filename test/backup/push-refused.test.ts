import assert from "node:assert/strict";
import { once } from "node:events";
import { rmSync, symlinkSync, writeFileSync } from "node:fs";
import { connect, createServer, type Socket } from "node:net";
import { join } from "node:path";
import { after, before, describe, test } from "node:test";
import { readControlFile } from "../../src/backup/control-file.ts";
import { bytesSource } from "../../src/io/bytes.ts";
import { formatIdentity } from "../../src/layout/identity.ts";
import { identityKey, sentinelKey } from "../../src/layout/keys.ts";
import { formatSentinel } from "../../src/layout/sentinel.ts";
import { DirectoryStorage } from "../../src/storage/directory.ts";
import { type Clock, systemClock } from "../../src/io/clock.ts";
import { type BackupWorld, type PushChange, startBackupWorld } from "../support/backup-world.ts";
import { holdFirstPart, HookedStorage } from "../support/hooked-storage.ts";
import { MemoryStorage } from "../support/memory-storage.ts";
import { startReceiver } from "../archive/receiver.ts";
import { until } from "../support/until.ts";
import { listen } from "../support/listening.ts";

const signal = AbortSignal.timeout(600_000);

interface Refusal {
  readonly name?: string;
  readonly message: RegExp;
  readonly hint: RegExp;
}

const NOTHING_READY =
  "SELECT count(*) = 0 FROM pg_ls_archive_statusdir() WHERE name LIKE '%.ready'";

async function assertRefused(
  world: BackupWorld,
  change: PushChange,
  refusal: Refusal,
): Promise<void> {
  await assert.rejects(world.push(change), (error: unknown) => {
    assert.ok(error instanceof Error && "hint" in error, String(error));
    assert.equal(error.name, refusal.name ?? "RefusedError", error.stack ?? "");
    assert.match(error.message, refusal.message);
    assert.match(String(error.hint), refusal.hint);
    return true;
  });
  assert.deepEqual(await world.keys("basebackups_005/"), [], "nothing is left of it");
}

describe("a server that archives", () => {
  const all: { world?: BackupWorld } = {};
  function world(): BackupWorld {
    if (all.world === undefined) throw new Error("no world");
    return all.world;
  }
  /** Time in which the short pauses between two looks pass once this is true in the server. */
  function clockThatWaits(sql: string): Clock {
    let nowMs = 0;
    return {
      now: () => systemClock.now(),
      monotonicMs: () => nowMs,
      async sleep(ms, options) {
        if (ms > 500) return await systemClock.sleep(ms, options);
        await world().cluster.waitFor(sql);
        nowMs += ms;
      },
    };
  }
  before(async () => {
    all.world = await startBackupWorld({ major: 17 });
  });
  after(async () => await all.world?.[Symbol.asyncDispose]());

  test("a directory that is not there", async () => {
    await assertRefused(
      world(),
      { dataDirectory: "/nowhere/data" },
      {
        message: /^data directory \/nowhere\/data does not exist on this host$/,
        hint: /PGDATA|data_directory/,
      },
    );
  });

  test("a directory that is not the server's", async () => {
    const other = await world().cluster.makeDirectory("other");
    await assertRefused(
      world(),
      { dataDirectory: other },
      {
        message: /^data directory .*\/other is not the server's, which is .*\/data$/,
        hint: /SHOW data_directory/,
      },
    );
  });

  test("a link to the data directory is the data directory", async () => {
    const link = join(world().cluster.directory, "link");
    symlinkSync(world().cluster.dataDirectory, link);
    const { name } = await world().push({ dataDirectory: `${link}/`, hasDatabaseNames: false });
    assert.ok((await world().keys()).includes(sentinelKey(name)));
    rmSync(join(world().repository, "basebackups_005"), { recursive: true });
  });

  test("a connection through a pooler", async () => {
    await using proxy = await poolerBefore(world().cluster.port);
    const connection = world().connection({ port: proxy.port, sslMode: "disable" });
    await assertRefused(
      world(),
      { connection },
      { message: /goes through a pooler/, hint: /PGHOST and PGPORT to the server itself/ },
    );
  });

  test("a repository of another cluster", async () => {
    const root = await world().cluster.makeDirectory("foreign");
    const storage = new DirectoryStorage(root, systemClock);
    await storage.put(identityKey, bytesSource(Buffer.from(formatIdentity(7n))), { signal });
    await assertRefused(
      world(),
      { storage },
      { name: "WrongClusterError", message: /belongs to cluster 7/, hint: /prefix of its own/ },
    );
  });

  test("a repository with backups of another cluster, which WAL-G made", async () => {
    const root = await world().cluster.makeDirectory("walg");
    const storage = new DirectoryStorage(root, systemClock);
    const text = formatSentinel({
      systemId: 8n,
      isFilesMetadataDisabled: false,
      isPermanent: false,
    });
    const key = sentinelKey("base_000000010000000000000001");
    await storage.put(key, bytesSource(Buffer.from(text)), { signal });
    await assertRefused(
      world(),
      { storage },
      { name: "WrongClusterError", message: /belongs to cluster 8/, hint: /prefix of its own/ },
    );
  });

  test("a second backup while the first one runs", async () => {
    const { storage, entered, release } = holdFirstPart(world().storage);
    const first = world().push({ storage, hasDatabaseNames: false });
    await entered;
    await assertRefused(
      world(),
      {},
      {
        message: /^another backup of this cluster is running: .*walnut-test/,
        hint: /pg_terminate_backend/,
      },
    );
    release();
    const { name } = await first;
    assert.ok((await world().keys()).includes(sentinelKey(name)));
    rmSync(join(world().repository, "basebackups_005"), { recursive: true });
  });

  test("objects of a backup with the same name", async () => {
    const state = { key: "" };
    const inner = world().storage;
    const storage = new HookedStorage(inner, {});
    const list = storage.list.bind(storage);
    // What another cluster of the same identity could have left: it is known when the name is.
    storage.list = (prefix, options) => {
      if (!prefix.startsWith("basebackups_005/base_")) return list(prefix, options);
      state.key = `${prefix}x`;
      return (async function* () {
        yield { key: state.key, sizeBytes: 1, modifiedAt: new Date(0) };
      })();
    };
    await assertRefused(
      world(),
      { storage },
      { message: /already holds basebackups_005\/base_/, hint: /another name .* on a standby/ },
    );
  });

  test("files that lack the checkpoint of the start, as those of a clone do", async () => {
    const { dataDirectory } = world().cluster;
    const path = join(dataDirectory, "global/pg_control");
    const reading = { clock: systemClock, signal };
    const old = await readControlFile(dataDirectory, reading);
    const storage = new HookedStorage(world().storage, {});
    const list = storage.list.bind(storage);
    const state = { current: old, isBack: false };
    // Whether its name is free is asked when the server has made its checkpoint; then ours go back.
    storage.list = async function* (prefix, options) {
      if (prefix.startsWith("basebackups_005/base_") && !state.isBack) {
        await until("a checkpoint", async () => {
          state.current = await readControlFile(dataDirectory, reading);
          return state.current.control.redoLsn !== old.control.redoLsn;
        });
        writeFileSync(path, old.bytes);
        state.isBack = true;
      }
      yield* list(prefix, options);
    };
    await assertRefused(
      world(),
      { storage },
      { message: /^the files in .*data are not the server's: its last/, hint: /own host/ },
    );
    writeFileSync(path, state.current.bytes);
  });

  test("an archive_command that fails, with the archiver's words", async () => {
    await world().setArchiveCommand("false");
    await assertRefused(
      world(),
      {
        archiveCheckTimeoutMs: 1500,
        clock: clockThatWaits("SELECT failed_count > 0 FROM pg_stat_archiver"),
      },
      {
        message: new RegExp(
          /^WAL segment [0-9A-F]{24} did not arrive in file:.* within 1\.5 s; /.source +
            /the archiver failed \d+ times, last for [0-9A-F]{24} at 20/.source,
        ),
        hint: /^archive_command fails or hangs: its words are in the server's log/,
      },
    );
  });

  test("an archive_command that stores somewhere else", async () => {
    await world().setArchiveCommand("true");
    await assertRefused(
      world(),
      { archiveCheckTimeoutMs: 3000, clock: clockThatWaits(NOTHING_READY) },
      { message: /did not arrive in file:/, hint: /same repository\?$/ },
    );
  });

  for (const [what, stored, message] of [
    [
      "something else than WAL",
      `seq 300000 | head -c 1048576`,
      /can't be read back: \w+ is no WAL segment: /,
    ],
    ["half of a segment", `head -c 500000 "%p"`, /can't be read back: WAL segment .* has 500000/],
    ["a changed record", `tr w v < "%p"`, /can't be read back: .* wrong CRC/],
  ] as const) {
    test(`an archive_command that stores ${what} (P18)`, async () => {
      await world().setArchiveCommand(`${stored} > "${world().repository}/wal_005/%f"`);
      await assertRefused(
        world(),
        { archiveCheckTimeoutMs: 1500 },
        { message, hint: /^A restore needs it: .* same keys as backup-push\?/ },
      );
    });
  }

  test("no archive_command", async () => {
    await world().setArchiveCommand("");
    await assertRefused(
      world(),
      {},
      {
        message: /^archive_command is not set: a backup/,
        hint: /archive_command = 'walnut wal-push/,
      },
    );
  });

  test("no backup is going on in the server afterwards", async () => {
    const sessions =
      "SELECT count(*) = 0 FROM pg_stat_activity WHERE application_name = 'walnut-test'";
    await world().cluster.waitFor(sessions);
    await world().setArchiveCommand(`cp "%p" "${world().repository}/wal_005/%f"`);
    const { name } = await world().push({ hasDatabaseNames: false });
    assert.ok((await world().keys()).includes(sentinelKey(name)));
  });
});

test("archive_mode is off: then wal-receive must run, and that is enough", async () => {
  await using world = await startBackupWorld({ major: 13, settings: { archive_mode: "off" } });
  const receiverSlot = "walg";
  await assertRefused(
    world,
    { receiverSlot },
    {
      message: /^archive_mode is off: a backup/,
      hint: /archive_mode needs a restart.* wal-receive/,
    },
  );
  const { port } = world.cluster;
  const cacheDirectory = await world.cluster.makeDirectory("cache");
  const startReceiving = () => startReceiver(world.storage, { port, cacheDirectory });
  {
    await using receiver = startReceiving();
    await receiver.said(/^receiving WAL$/);
    await assertRefused(
      world,
      { receiverSlot, storage: new MemoryStorage(), archiveCheckTimeoutMs: 1000 },
      { message: /did not arrive in/, hint: /does not archive; `walnut wal-receive` does/ },
    );
  }
  await world.cluster.waitFor("SELECT NOT active FROM pg_replication_slots");
  await assertRefused(
    world,
    { receiverSlot },
    { message: /^archive_mode is off, and nobody receives through .* slot walg: /, hint: /start/ },
  );
  await using receiver = startReceiving();
  await receiver.said(/^receiving WAL$/);
  const { name } = await world.push({ receiverSlot });
  await world.pushRemote({ receiverSlot });
  assert.ok((await world.keys()).includes(sentinelKey(name)));
});

test("a role without the rights is told what it lacks", async () => {
  await using world = await startBackupWorld({ major: 17 });
  await world.cluster.query("CREATE ROLE keeper LOGIN");
  const connection = world.connection({ user: "keeper" });
  const refusal = { name: "DatabaseError", message: /permission denied|42501/, hint: /GRANT/ };
  await assertRefused(world, { connection }, refusal);
  await world.cluster.query("GRANT pg_monitor TO keeper");
  await assertRefused(world, { connection }, refusal);
  await world.cluster.query(`GRANT EXECUTE ON FUNCTION pg_backup_start, pg_backup_stop TO keeper`);
  const { name } = await world.push({ connection });
  assert.ok((await world.keys()).includes(sentinelKey(name)), "nothing else is needed");
  assert.deepEqual(
    world.logged.filter((line) => line.startsWith("warning")),
    [],
  );
});

/** Passes everything on but the number of the server process, in whose place it tells its own. */
async function poolerBefore(serverPort: number): Promise<AsyncDisposable & { port: number }> {
  const sockets = new Set<Socket>();
  const server = createServer((near) => {
    const far = connect(serverPort, "127.0.0.1");
    for (const socket of [near, far]) {
      sockets.add(socket);
      socket.on("error", () => {});
    }
    near.pipe(far);
    far.on("data", (bytes: Buffer) => {
      const at = bytes.indexOf(Buffer.from("K\0\0\0\f"));
      if (at !== -1) bytes.writeUInt8(bytes.readUInt8(at + 7) ^ 1, at + 7);
      near.write(bytes);
    });
    far.on("end", () => near.end());
  });
  const port = await listen(server);
  return {
    port,
    async [Symbol.asyncDispose]() {
      for (const socket of sockets) socket.destroy();
      server.close();
      await once(server, "close");
    },
  };
}
