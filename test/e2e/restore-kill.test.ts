import assert from "node:assert/strict";
import { chmodSync, existsSync, mkdirSync, mkdtempSync, readdirSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { test } from "node:test";
import { readSentinel } from "../../src/backup/backup-documents.ts";
import { systemClock } from "../../src/io/clock.ts";
import { DirectoryStorage } from "../../src/storage/directory.ts";
import { restoreCluster } from "../support/postgres.ts";
import { restoreInto, snapshot } from "../support/restoring.ts";
import { chownTree, serverUser } from "../support/server-user.ts";
import {
  putSyntheticBackup,
  readEntries,
  type SyntheticEntry,
} from "../support/synthetic-backup.ts";
import { unpackWalgFixture } from "../support/walg-fixture.ts";
import { type RunResult, runWalnut, walnutShellCommand } from "../support/walnut.ts";

const SEED = Number(process.env["WALNUT_SEED"] ?? Date.now() % 1_000_000);
const KILLS = process.env["WALNUT_LONG"] === "1" ? 200 : 12;
/** After so many a restore is left to come to its end. */
const KILLS_IN_A_ROW = 6;
const SERVER_STARTS = 3;
const BACKUP = "base_000000010000000000000003";

/** A small generator of numbers in [0, 1), so that a failure can be repeated by its seed. */
function randomNumbers(seed: number): () => number {
  let state = seed >>> 0;
  return () => {
    state = (Math.imul(state, 1_664_525) + 1_013_904_223) >>> 0;
    return state / 2 ** 32;
  };
}

interface Place extends Disposable {
  readonly root: string;
  /** The store, with the WAL that a server needs. */
  readonly repository: string;
  readonly destination: string;
  readonly location: string;
}

/** WAL-G's repository, its backup stored again as ours, with a tablespace beside it. */
async function makePlace(style: "walnut" | "walg"): Promise<Place> {
  const fixture = await unpackWalgFixture("zstd-full");
  const root = mkdtempSync(join(tmpdir(), "walnut-kill-"));
  chmodSync(root, 0o755);
  const location = join(root, "tablespace");
  const storage = new DirectoryStorage(fixture.repository, systemClock);
  const signal = AbortSignal.timeout(60_000);
  const sentinel = await readSentinel(storage, BACKUP, { signal });
  const unpacked = join(root, "unpacked");
  await restoreInto(storage, unpacked, { backup: BACKUP });
  const entries = readEntries(unpacked)
    .filter(({ path }) => path !== "tablespace_map")
    .concat(tablespaceEntries(location));
  rmSync(unpacked, { recursive: true });
  await putSyntheticBackup(storage, {
    name: BACKUP,
    entries,
    style,
    partCount: 12,
    sentinel: {
      ...sentinel,
      spec: {
        basePrefix: "/x",
        tablespaces: [{ name: "16999", location, link: "pg_tblspc/16999" }],
      },
    },
  });
  chmodSync(join(fixture.directory, ".."), 0o755);
  await chownTree(root, serverUser());
  await chownTree(join(fixture.directory, ".."), serverUser());
  return {
    root,
    repository: fixture.repository,
    destination: join(root, "data"),
    location,
    [Symbol.dispose]: () => {
      rmSync(root, { recursive: true, force: true });
      rmSync(join(fixture.directory, ".."), { recursive: true, force: true });
    },
  };
}

function tablespaceEntries(location: string): SyntheticEntry[] {
  const files = Array.from({ length: 20 }, (_, index): SyntheticEntry => ({
    kind: "file",
    path: `pg_tblspc/16999/PG_15_202209061/5/${20_000 + index}`,
    content: Buffer.alloc(65_536, index),
  }));
  const map = Buffer.from(`16999 ${location}\n`);
  return [{ kind: "file", path: "tablespace_map", content: map }, ...files];
}

async function fetch(place: Place, killAfterMs?: number): Promise<RunResult> {
  return await runWalnut(["backup-fetch", place.destination, BACKUP], {
    // A killed process needs no fsync, and nothing changes while it waits for one.
    env: { WALG_FILE_PREFIX: place.repository, WALG_TAR_DISABLE_FSYNC: "true" },
    user: serverUser(),
    ...(killAfterMs === undefined ? {} : { killAfterMs }),
  });
}

/**
 * A server on what a killed restore left: it must not come up. The file that asks for recovery goes
 * again: where the restore had made nothing but the directory, it would be somebody else's.
 */
async function requireNoServer(place: Place): Promise<void> {
  if (!existsSync(place.destination)) return;
  const left = readdirSync(place.destination).toSorted();
  await using server = await restoreCluster(place.destination, {
    major: 15,
    signal: "recovery",
    restoreCommand: "false",
  });
  assert.equal(server.outcome, "exited", server.log());
  rmSync(join(place.destination, "postmaster.pid"), { force: true });
  rmSync(join(place.destination, "recovery.signal"));
  assert.deepEqual(readdirSync(place.destination).toSorted(), left);
}

async function requireServer(place: Place): Promise<void> {
  await using server = await restoreCluster(place.destination, {
    major: 15,
    signal: "recovery",
    restoreCommand: `${walnutShellCommand()} wal-fetch "%f" "%p"`,
    environment: { WALG_FILE_PREFIX: place.repository },
  });
  assert.equal(server.outcome, "promoted", server.log());
  assert.equal(await server.value("select count(*) from items"), "302");
}

/** Killed behind pg_control it leaves them in tablespaces, which a destination links to. */
function withoutMarks(entries: ReadonlyMap<string, string>): ReadonlyMap<string, string> {
  const mark = /^(pg_tblspc\/\d+\/)?walnut_restore\.json$/;
  return new Map([...entries].filter(([path]) => !mark.test(path)));
}

for (const style of ["walnut", "walg"] as const) {
  test(`killed at any moment, a restore neither starts nor stands in the way: ${style}, seed ${SEED}`, async () => {
    const random = randomNumbers(SEED);
    using place = await makePlace(style);
    const startMs = performance.now();
    const first = await fetch(place);
    const durationMs = performance.now() - startMs;
    assert.equal(first.code, 0, first.stderr);
    const whole = snapshot(place.destination);
    const wholeLocation = snapshot(place.location);

    let kills = 0;
    let serverStarts = 0;
    while (kills < KILLS) {
      rmSync(place.destination, { recursive: true, force: true });
      rmSync(place.location, { recursive: true, force: true });
      if (serverStarts === 0) {
        // As if it was killed right after its first step.
        mkdirSync(place.destination);
        await requireNoServer(place);
        serverStarts += 1;
      }
      for (let inARow = 0; ; inARow += 1) {
        const isLeft = inARow >= KILLS_IN_A_ROW;
        const result = await fetch(place, isLeft ? undefined : random() * durationMs * 1.1);
        if (result.signal === null) {
          assert.equal(result.code, 0, result.stderr);
          break;
        }
        kills += 1;
        if (existsSync(join(place.destination, "global/pg_control"))) break;
        if (serverStarts < SERVER_STARTS) await requireNoServer(place);
        serverStarts += 1;
      }
      assert.deepEqual(withoutMarks(snapshot(place.destination)), whole);
      assert.deepEqual(withoutMarks(snapshot(place.location)), wholeLocation);
    }
    await requireServer(place);
  });
}
