import assert from "node:assert/strict";
import { spawn, spawnSync } from "node:child_process";
import { once } from "node:events";
import {
  chmodSync,
  mkdirSync,
  readdirSync,
  readFileSync,
  rmSync,
  statSync,
  utimesSync,
  writeFileSync,
} from "node:fs";
import { tmpdir } from "node:os";
import { basename, join } from "node:path";
import { after, before, describe, test } from "node:test";
import type { ResumeSettings } from "../../src/backup/push-settings.ts";
import { StorageError } from "../../src/errors.ts";
import { type Clock, systemClock } from "../../src/io/clock.ts";
import { describeHolder } from "../../src/io/process-identity.ts";
import { resumeFolder, sentinelKey, tarFolder } from "../../src/layout/keys.ts";
import { readCatalogue } from "../../src/catalogue/catalogue.ts";
import { overlay } from "../../src/storage/overlay.ts";
import { type BackupWorld, type PushChange, startBackupWorld } from "../support/backup-world.ts";
import { HookedStorage } from "../support/hooked-storage.ts";
import { restoreCluster } from "../support/postgres.ts";
import { type Random, seededRandom } from "../support/random.ts";
import { restoreInto, snapshot } from "../support/restoring.ts";
import { chownTree } from "../support/server-user.ts";
import { until } from "../support/until.ts";
import { walnutCommand } from "../support/walnut.ts";
import { checkHeaps } from "../support/soundness.ts";

const all: { world?: BackupWorld } = {};

function world(): BackupWorld {
  if (all.world === undefined) throw new Error("no world");
  return all.world;
}

before(async () => {
  all.world = await startBackupWorld({ major: 16, settings: { autovacuum: "off" } });
  await world().cluster.query(
    "CREATE TABLE big AS SELECT g, repeat(md5(g::text), 20) AS t FROM generate_series(1, 20000) g",
  );
  await world().cluster.query("VACUUM FREEZE");
  await world().cluster.query("CHECKPOINT");
});
after(async () => await all.world?.[Symbol.asyncDispose]());

/** A process of this boot and namespace that is not there: the highest id there can be. */
const DEAD = (describeHolder() ?? "").replace(/^\d+/, "4194304");

const RESUME: ResumeSettings = {
  holder: DEAD,
  settleMs: 0,
  maxAgeMs: 3_600_000,
};

/** Parts that may be under way at the same time, or not noted yet. */
const UPLOADS = 4;

/** Small parts, so that there are many. */
const CHANGE: PushChange = { resume: RESUME, thresholdBytes: 1024 * 1024, isPageVerified: true };

function killed(): StorageError {
  return new StorageError("killed", { isRetryable: false });
}

/** As after a kill nothing reaches the store any more from the put on that `isLast` names. */
async function interrupt(
  isLast: (key: string, index: number) => boolean,
  change: PushChange = CHANGE,
): Promise<void> {
  const dead = { is: false, count: 0 };
  const hooked = new HookedStorage(world().storage, {
    beforePut(key) {
      if (key.startsWith("basebackups_005/")) dead.count += 1;
      if (dead.is || isLast(key, dead.count)) {
        dead.is = true;
        throw killed();
      }
    },
  });
  const storage = overlay(hooked, {
    async delete(keys, options) {
      if (dead.is) throw killed();
      await hooked.delete(keys, options);
    },
  });
  await assert.rejects(world().push({ ...change, storage }), { message: "killed" });
}

interface Counted {
  readonly name: string;
  readonly partBytes: number;
}

/** Takes or resumes a backup, and counts what of parts goes to the store. */
async function pushCounted(change: PushChange = CHANGE): Promise<Counted> {
  const bytes = new Map<string, number>();
  const storage = new HookedStorage(world().storage, {
    onBytes: (key, sizeBytes) => void (key.includes("/part_") && bytes.set(key, sizeBytes)),
  });
  const { name } = await world().push({ ...change, storage });
  return { name, partBytes: [...bytes.values()].reduce((sum, one) => sum + one, 0) };
}

/** Names of the entries of all parts, as another tar reads them. */
async function members(name: string): Promise<string[]> {
  const keys = await world().keys(tarFolder(name));
  return keys.flatMap((key) => {
    const words = ["--list", "--absolute-names", "-f", join(world().repository, key)];
    const { stdout } = spawnSync("tar", words, { encoding: "utf8" });
    return stdout.split("\n").flatMap((line) => (line === "" ? [] : line.replace(/(.)\/$/, "$1")));
  });
}

/** Every entry is in one part alone; nothing that resumption needed is left. */
async function requireClean(name: string, isResumed = true): Promise<void> {
  const names = await members(name);
  assert.ok(names.length > 500);
  assert.deepEqual(names.length, new Set(names).size);
  assert.deepEqual(await world().keys(resumeFolder(name)), []);
  // Its name tells less than its start: that must not be taken for another size of segments.
  assert.equal((await world().sentinel(name)).own?.isResumed ?? false, isResumed);
  const signal = AbortSignal.timeout(60_000);
  const { segmentBytes } = await readCatalogue(world().storage, { signal });
  assert.equal(segmentBytes, 1024 * 1024);
}

async function restored(name: string, directory: string): Promise<string> {
  const destination = await world().cluster.makeDirectory(directory);
  rmSync(destination, { recursive: true });
  await restoreInto(world().storage, destination, { backup: name });
  return destination;
}

function below(random: Random, limit: number): number {
  return Math.floor(random.next() * limit);
}

function extra(): string {
  return join(world().cluster.dataDirectory, "aaa");
}

function fillExtra(random: Random): void {
  rmSync(extra(), { recursive: true, force: true });
  mkdirSync(extra());
  for (let index = 0; index < 60; index += 1) {
    writeFileSync(join(extra(), `f${index}`), content(random, 1 + below(random, 60_000)));
  }
}

function content(random: Random, sizeBytes: number): Buffer {
  return Buffer.alloc(sizeBytes, `${below(random, 1_000_000)} `);
}

/** One change of any kind to a file of ours. */
function changeExtra(random: Random, isHidden: boolean): void {
  const names = readdirSync(extra());
  const path = join(extra(), names[below(random, names.length)] ?? "");
  const { size, atime, mtime, mode } = statSync(path);
  const kind = isHidden ? 5 : below(random, 6);
  if (kind === 0) rmSync(path);
  else if (kind === 1) writeFileSync(`${path}n`, content(random, 500));
  else if (kind === 2) writeFileSync(path, content(random, size + 1 + below(random, 9000)));
  else if (kind === 3) writeFileSync(path, content(random, below(random, size)));
  else if (kind === 4) chmodSync(path, mode ^ 0o020);
  else {
    const bytes = readFileSync(path);
    bytes.writeUInt8(bytes.readUInt8(0) ^ 1, 0);
    writeFileSync(path, bytes);
    utimesSync(path, atime, mtime);
  }
}

async function settleExtra(): Promise<void> {
  await chownTree(extra(), world().cluster.user);
}

test("killed at 90 %, less than 2 % of the bytes are stored again (P20)", async () => {
  const change = { ...CHANGE, thresholdBytes: 256 * 1024 };
  const whole = await pushCounted(change);
  const { length } = (await world().keys(tarFolder(whole.name))).filter((key) =>
    key.includes("/part_"),
  );
  const last = `part_${String(Math.ceil(length * 0.9)).padStart(3, "0")}.tar`;
  await interrupt((key) => key.endsWith(`/${last}`), change);
  const unfinished = (await world().keys("basebackups_005/")).filter((key) => key.includes("run-"));
  assert.equal(unfinished.length, 1);
  const found = await world().keys(`basebackups_005/${nameOf(unfinished[0])}/`);
  const parts = found.filter((key) => key.includes("/tar_partitions/part_"));
  // What was under way to the store, or on its way back from there, is stored again.
  const noted = parts.filter((key) => found.some((one) => one.includes(`/${basename(key)}.jsonl`)));
  assert.ok(noted.length >= parts.length - UPLOADS, `${noted.length} of ${parts.length}`);
  const stored = noted.reduce((sum, key) => sum + statSync(join(world().repository, key)).size, 0);
  const resumed = await pushCounted(change);
  assert.equal(resumed.name, nameOf(unfinished[0]));
  const again = resumed.partBytes - (whole.partBytes - stored);
  assert.ok(again < whole.partBytes * 0.02, `${again} of ${whole.partBytes} bytes again`);
  await requireClean(resumed.name);
  const { startLsn = 0n } = await world().sentinel(resumed.name);
  const { finishLsn = 0n } = await world().sentinel(whole.name);
  assert.ok(startLsn > finishLsn);
});

function nameOf(key = ""): string {
  return key.split("/")[1] ?? "";
}

test("after kills at random moments and changes a restore is as the source", async () => {
  const random = seededRandom();
  const { seed } = random;
  const rounds = process.env["WALNUT_LONG"] === undefined ? 2 : 40;
  for (let round = 0; round < rounds; round += 1) {
    const where = `seed ${seed}, round ${round}`;
    fillExtra(random);
    await settleExtra();
    for (let kill = 0; kill < 1 + (round % 2); kill += 1) {
      const moment = 6 + below(random, 24);
      await interrupt((key, index) => index > moment || key.endsWith("metadata.json"));
      for (let count = 1 + below(random, 6); count >= 0; count -= 1)
        changeExtra(random, round % 2 === 0);
      await world().cluster.query(`UPDATE big SET g = g + 1 WHERE g % 5000 = ${round}`);
      await settleExtra();
    }
    const { name } = await pushCounted();
    await requireClean(name);
    const directory = await restored(name, `round ${round}`);
    assert.deepEqual(snapshot(join(directory, "aaa")), snapshot(extra()), where);
    const unpacked = await world().unpack(name, `unpacked ${round}`);
    assert.deepEqual(snapshot(join(unpacked, "aaa")), snapshot(extra()), where);
  }
  rmSync(extra(), { recursive: true });
});

/** Kills the program itself when it has noted some parts. */
async function killProgram(): Promise<void> {
  const { cluster, repository } = world();
  const [program = "", ...words] = walnutCommand();
  const child = spawn(program, [...words, "backup-push", cluster.dataDirectory, "--resume"], {
    cwd: tmpdir(),
    stdio: ["ignore", "ignore", "pipe"],
    env: {
      PATH: process.env["PATH"],
      HOME: repository,
      PGHOST: "127.0.0.1",
      PGPORT: String(cluster.port),
      PGUSER: "postgres",
      PGDATABASE: "postgres",
      WALG_FILE_PREFIX: repository,
      WALG_COMPRESSION_METHOD: "none",
      WALG_TAR_SIZE_THRESHOLD: String(CHANGE.thresholdBytes),
      WALG_DISK_RATE_LIMIT: String(2 * 1024 * 1024),
    },
  });
  const said: string[] = [];
  child.stderr.setEncoding("utf8").on("data", (text: string) => said.push(text));
  const closed = once(child, "close");
  await until(
    "the program has noted some parts",
    async () => {
      if (child.exitCode !== null) throw new Error(said.join(""));
      const keys = await world().keys("basebackups_005/");
      return keys.filter((key) => key.includes("/walnut_resume/part_")).length >= 5;
    },
    () => said.join(""),
  );
  child.kill("SIGKILL");
  await closed;
}

test("after kill -9 a resumed backup is a sound cluster with all that was committed", async () => {
  const { cluster } = world();
  await killProgram();
  await cluster.waitFor(
    "SELECT count(*) = 0 FROM pg_locks WHERE locktype = 'advisory' AND granted",
  );
  await cluster.query("UPDATE big SET t = 'changed' WHERE g % 7 = 0");
  await cluster.query("CREATE TABLE later AS SELECT generate_series(1, 1000) AS g");
  const { name } = await pushCounted();
  const kept = world().logged.findLast((line) => line.includes("what is unchanged")) ?? "";
  assert.match(kept, new RegExp(`backup=${name} parts=[1-9]`));
  await cluster.query("UPDATE big SET t = 'once more' WHERE g % 11 = 0");
  const increments = { maxSteps: 5, origin: "latest" } as const;
  const increment = await world().push({ ...CHANGE, increments });
  assert.equal(increment.baseName, name);
  const digest = "SELECT count(*) || ' ' || sum(hashtext(t)::int8) FROM big";
  const wanted = await cluster.query(digest);
  const directory = await restored(increment.name, "sound");
  await using copy = await restoreCluster(directory, {
    major: 16,
    signal: "recovery",
    restoreCommand: `cp "${world().repository}/wal_005/%f" "%p"`,
  });
  assert.deepEqual(await copy.query(digest), wanted);
  assert.deepEqual(
    await copy.query("SELECT count(*) FROM later"),
    await cluster.query("SELECT count(*) FROM later"),
  );
  await checkHeaps(copy);
});

describe("a store that fails while a backup is resumed", () => {
  test("at each write: nothing is visible, and the next run goes on", async () => {
    await interrupt((_, index) => index > 24);
    await world().cluster.query("UPDATE big SET g = g + 1 WHERE g % 900 = 1");
    const places = ["/run-", "/part_1", "/pg_control.tar", "/walnut_manifest", "_sentinel.json"];
    const names = new Set<string>();
    for (const place of places) {
      await interrupt((key) => key.includes(place));
      const runs = (await world().keys("basebackups_005/")).filter((key) => key.includes("/run-"));
      names.add(nameOf(runs.at(-1)));
    }
    const [name = "", ...others] = names;
    assert.deepEqual(others, []);
    assert.ok(!(await world().keys()).includes(sentinelKey(name)));
    const resumed = await pushCounted();
    assert.equal(resumed.name, name);
    await requireClean(name);
  });

  test("where nothing can be removed the backup fails, and nothing is visible", async () => {
    await interrupt((_, index) => index > 24);
    await world().cluster.query("UPDATE big SET g = g + 1 WHERE g % 900 = 1");
    await world().cluster.query("CHECKPOINT");
    const storage = overlay(world().storage, {
      delete: async () => {
        throw new StorageError("held", { isRetryable: false });
      },
    });
    await assert.rejects(world().push({ ...CHANGE, storage }), { message: "held" });
    const { name } = await pushCounted();
    await requireClean(name);
  });
});

test("with other settings an ordinary backup is taken, and says why", async () => {
  await interrupt((_, index) => index > 8);
  const runs = (await world().keys("basebackups_005/")).filter((key) => key.includes("/run-"));
  const storage = overlay(world().storage, { encryption: "libsodium another" });
  const { name } = await world().push({ ...CHANGE, storage });
  assert.notEqual(name, nameOf(runs[0]));
  assert.ok(world().logged.some((line) => line.includes("it was taken with other settings")));
  await requireClean(name, false);
});

test("what has one name in all runs is stored only when nothing old can arrive", async () => {
  await interrupt((_, index) => index > 8);
  const order: string[] = [];
  const clock: Clock = {
    ...systemClock,
    async sleep(ms, options) {
      if (ms > 200_000) order.push("settled");
      else await systemClock.sleep(ms, options);
    },
  };
  const storage = new HookedStorage(world().storage, {
    beforePut: (key) => void order.push(/\/([a-z]+)_[^/]*$/.exec(key)?.[1] ?? key),
  });
  await world().push({ ...CHANGE, storage, clock, resume: { ...RESUME, settleMs: 300_000 } });
  const settled = order.indexOf("settled");
  assert.ok(settled > 0);
  for (const kind of ["pg", "backup", "walnut"]) {
    assert.ok(order.indexOf(kind) > settled, `${kind} in ${order.join(" ")}`);
  }
});
