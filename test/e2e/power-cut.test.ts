/**
 * Everything that runs for a server dies at one moment, the server too, and leaves what it had on
 * the disk: sockets, notes, marks, half a segment. What was acknowledged is in the archive all the
 * same, and a recovery through the same moments gets to the last row.
 */
import assert from "node:assert/strict";
import { readdirSync, readlinkSync, realpathSync } from "node:fs";
import { cp, readdir, rename, truncate, utimes, writeFile } from "node:fs/promises";
import { join } from "node:path";
import { test } from "node:test";
import { type Random, seededRandom } from "../support/random.ts";
import { pause, until } from "../support/until.ts";
import {
  assertNothingLost,
  type Draining,
  doneNames,
  fill,
  readyNames,
  setupLine,
  startWithBacklog,
  stopAll,
} from "./draining.ts";
import { archivedNames, recover, toTheEnd } from "./recovering.ts";

const IS_LONG = process.env["WALNUT_LONG"] === "1";
const CUTS = 4;

/** All that runs in a data directory: the server, its shells, and what they have started. */
function pidsIn(dataDirectory: string): number[] {
  const place = realpathSync(dataDirectory);
  return readdirSync("/proc").flatMap((entry) => {
    try {
      return /^\d+$/.test(entry) && readlinkSync(`/proc/${entry}/cwd`) === place
        ? Number(entry)
        : [];
    } catch {
      // It has ended, or is somebody else's.
      return [];
    }
  });
}

async function cutPower(dataDirectory: string): Promise<void> {
  // Stopped first: nobody sees another one die, and nobody starts one.
  const met = new Set<number>();
  for (const signal of ["SIGSTOP", "SIGSTOP", "SIGKILL"] as const) {
    for (const pid of pidsIn(dataDirectory)) {
      met.add(pid);
      try {
        process.kill(pid, signal);
      } catch {
        // It has ended.
      }
    }
  }
  // Somebody may start the server again at once.
  await until("all are dead", () => pidsIn(dataDirectory).every((pid) => !met.has(pid)));
}

/** What a file system may have of the last seconds, or of a clock that went wrong. */
async function leaveWorse({ cluster, walDirectory }: Draining, random: Random): Promise<void> {
  const spool = `${cluster.dataDirectory}.walnut`;
  const notes = join(spool, "notes");
  const noted = (await readdir(notes)).filter((name) => /^[0-9A-F]{24}$/.test(name));
  const inAnHour = Date.now() / 1000 + 3600;
  for (const name of noted) {
    const chance = random.next();
    // The clock was ahead, and some notes are torn.
    await utimes(join(notes, name), inAnHour, inAnHour);
    if (chance < 0.3) await truncate(join(notes, name), Math.floor(random.next() * 50));
  }
  const [ready = ""] = (await readyNames(walDirectory)).toSorted().toReversed();
  // The name of a file that was recycled may be that of a note.
  if (noted[0] !== undefined && ready !== "") {
    await cp(join(notes, noted[0]), join(notes, ready), { preserveTimestamps: true });
  }
  await writeFile(join(notes, ".000000010000000000000001.tmp"), "{");
  await writeFile(join(spool, "drain.sock.new"), "");
  for (const name of await doneNames(walDirectory)) {
    // The rename was not on the disk yet.
    if (random.next() > 0.2) continue;
    const mark = join(walDirectory, "archive_status", name);
    await rename(`${mark}.done`, `${mark}.ready`);
  }
}

test("what runs in a directory is found", () => {
  assert.ok(pidsIn(process.cwd()).includes(process.pid));
});

async function cutsOfPower(): Promise<void> {
  const random = seededRandom();
  const note = `WALNUT_SEED=${random.seed} repeats this`;
  const draining = await startWithBacklog(0);
  const { cluster, walnut, repository, walDirectory } = draining;
  await using _cleanUp = cluster;
  await cluster.stop();
  const backup = join(cluster.directory, "backup");
  await cp(cluster.dataDirectory, backup, { recursive: true });
  await cluster.start();

  const line = await setupLine(draining);
  const verified = new Set<string>();
  for (let cut = 0; cut < CUTS; cut += 1) {
    await cluster.configure({ archive_command: "false" });
    await fill(draining, 12);
    const before = (await doneNames(walDirectory)).length;
    await cluster.configure({ archive_command: line });
    await until("some are archived", async () => (await doneNames(walDirectory)).length > before);
    await pause(random.next() * 500);
    await cutPower(cluster.dataDirectory);
    await assertNothingLost(draining, { note, verified });
    await leaveWorse(draining, random);
    await cluster.start();
  }
  // As many are ready then as was asked for: nothing may take them away meanwhile.
  await cluster.configure({ archive_command: "false" });
  await fill(draining, 3);
  await cluster.configure({ archive_command: line });
  await cluster.waitForArchiver();
  // Also what was proved before: nothing may have been overwritten.
  await assertNothingLost(draining, { note });
  const rowCount = await cluster.value("SELECT count(*) FROM filler");
  const segments = archivedNames(cluster);
  await stopAll(cluster);

  const archived = { primary: cluster, walnut, repository, backup, segments, rowCount };
  const cutting: Promise<void>[] = [];
  const cutAtRandom = async (dataDirectory: string): Promise<void> => {
    for (let cut = 0; cut < CUTS; cut += 1) {
      await until("it runs", () => pidsIn(dataDirectory).length > 0);
      await pause(random.next() * 1000);
      await cutPower(dataDirectory);
    }
  };
  await using recovering = await recover(
    { ...archived, [Symbol.asyncDispose]: async () => {} },
    { onPlace: (dataDirectory) => void cutting.push(cutAtRandom(dataDirectory)) },
  );
  const state = { isCutting: true };
  const over = Promise.all(cutting).finally(() => {
    state.isCutting = false;
  });
  while (state.isCutting) {
    await toTheEnd(recovering, note);
    await pause(20);
  }
  await over;
  await toTheEnd(recovering, note);
  const { server } = recovering;
  assert.equal(await server.value("SELECT count(*) FROM filler"), rowCount, note);
  assert.doesNotMatch(server.log(), /a bug in walnut|invalid magic|unexpected pageaddr/, note);
}

if (IS_LONG) {
  test(`${CUTS} power cuts while WAL is archived, and as many while it is recovered`, cutsOfPower);
}
