/** Recoveries from an archive whose timelines forked, and that lacks something around the fork. */
import assert from "node:assert/strict";
import { cp, readdir, rename, rm } from "node:fs/promises";
import { join } from "node:path";
import { after, before, test } from "node:test";
import { type RunningDaemon, startDaemon } from "../support/daemon.ts";
import { type Installation, install } from "../support/repository.ts";
import { chownTree, serverUser } from "../support/server-user.ts";
import { shellWord, walnutShellCommand } from "../support/walnut.ts";
import { archive, type Archived, recover, type RecoverOptions } from "./recovering.ts";

let archived: Archived;
/** Of timeline 1 and of timeline 2, which left it in the middle of the eighth segment. */
let repository: string;
/** Of the table "filler", where it did. */
let rowsAtFork: string;

before(async () => {
  archived = await archive({ major: 17, segmentCount: 12 });
  repository = join(archived.primary.directory, "forked");
  await cp(archived.repository, repository, { recursive: true });
  await chownTree(repository, serverUser());
  const walnut = await install(archived.primary, { WALG_FILE_PREFIX: repository }, "forked");
  await using promoted = await recover(archived, { walnut, settings: branching(walnut, 7) });
  rowsAtFork = await promoted.server.value("SELECT count(*) FROM filler");
  assert.notEqual(rowsAtFork, archived.rowCount);
  await write(promoted.server, "on_two");
});
after(() => archived[Symbol.asyncDispose]());

/** Ends in the middle of a segment of timeline 1, and archives what comes then. */
function branching(walnut: Installation, index: number): Record<string, string> {
  const name = archived.segments[index] ?? "";
  return {
    archive_mode: "on",
    archive_command: walnut.archiveCommand,
    recovery_target_lsn: `${Number.parseInt(name.slice(8, 16), 16)}/${name.slice(-3)}80000`,
    recovery_target_action: "promote",
  };
}

type Server = Awaited<ReturnType<typeof recover>>["server"];

/** Makes a table, and has it archived. */
async function write(server: Server, table: string): Promise<void> {
  assert.equal(server.outcome, "promoted", server.log());
  await server.query(`CREATE TABLE ${table} AS SELECT generate_series(1, 60000) AS id`);
  await server.switchWal();
  await server.waitForArchiver();
}

/** A copy of the repository, changed. */
async function copied(
  name: string,
  change: (walDirectory: string) => Promise<void> = async () => {},
): Promise<Installation> {
  const copy = join(archived.primary.directory, name);
  await cp(repository, copy, { recursive: true });
  await change(join(copy, "wal_005"));
  await chownTree(copy, serverUser());
  return await install(archived.primary, { WALG_FILE_PREFIX: copy }, name);
}

async function assertStops(options: RecoverOptions, message: RegExp): Promise<void> {
  await using recovering = await recover(archived, options);
  const { server } = recovering;
  assert.equal(server.outcome, "exited", server.log());
  assert.match(server.log(), message);
}

test("to before the fork, towards the latest timeline: archives, and can be recovered", async () => {
  const walnut = await copied("early");
  {
    await using early = await recover(archived, { walnut, settings: branching(walnut, 3) });
    await write(early.server, "on_three");
  }
  await using recovering = await recover(archived, { walnut });
  const { server } = recovering;
  assert.equal(server.outcome, "promoted", server.log());
  assert.equal(await server.value("SELECT count(*) FROM on_three"), "60000");
  assert.equal(await server.value("SELECT to_regclass('on_two') IS NULL"), "true");
});

test("the segments before the fork are missing: recovery does not end there (P08)", async () => {
  const walnut = await copied("holey", async (directory) => {
    for (const name of await readdir(directory)) {
      const isGone = name.startsWith("00000001") && name >= (archived.segments[5] ?? "");
      if (isGone) await rm(join(directory, name));
    }
  });
  const missing = archived.segments[5] ?? "";
  await assertStops({ walnut }, new RegExp(`${missing} is not in .*, but WAL of a timeline that`));
});

test("a history is missing below a newer one: recovery does not overlook that (P07)", async () => {
  const walnut = await copied("hidden", async (directory) => {
    for (const name of await readdir(directory)) {
      if (!name.startsWith("00000002")) continue;
      await rename(join(directory, name), join(directory, name.replace(/^00000002/, "00000003")));
    }
  });
  await assertStops({ walnut }, /00000002.history is not in .*, but 00000003.history is/);
});

/** What a failover leaves until the new primary has filled its first segment. */
async function withoutTwo(directory: string): Promise<void> {
  for (const name of await readdir(directory)) {
    if (/^00000002.{16}/.test(name)) await rm(join(directory, name));
  }
}

/** Nor did the old primary archive more than the unfinished segment. */
async function withPartial(directory: string): Promise<void> {
  await withoutTwo(directory);
  const forked = archived.segments[7] ?? "";
  await rename(join(directory, `${forked}.zst`), join(directory, `${forked}.partial.zst`));
  for (const name of await readdir(directory)) {
    if (name.startsWith("00000001") && name > `${forked}.partial.zst`) {
      await rm(join(directory, name));
    }
  }
}

for (const [text, change] of [
  ["the old primary's WAL behind it", withoutTwo],
  ["an unfinished segment", withPartial],
] as const) {
  test(`nothing of the new timeline but its history, and ${text}: ends at the fork`, async () => {
    const walnut = await copied(change.name, change);
    await using recovering = await recover(archived, { walnut });
    const { server } = recovering;
    assert.equal(server.outcome, "promoted", server.log());
    assert.equal(await server.value("SELECT count(*) FROM filler"), rowsAtFork, server.log());
  });
}

const STANDBY: RecoverOptions = {
  signal: "standby",
  settings: { wal_retrieve_retry_interval: "100ms" },
};
/** Each time that it asks it gets no further. */
const TWICE = /segment fetched up to its fork[^]*segment fetched up to its fork/;

test("a standby waits at the fork, and follows the new timeline when it comes", async () => {
  const walnut = await copied("standby", withoutTwo);
  await using recovering = await recover(archived, { walnut, ...STANDBY });
  const { server } = recovering;
  await server.waitFor(`SELECT count(*) = ${rowsAtFork} FROM filler`);
  await server.waitForLog(TWICE, { from: server.log().length });
  await followsTwo(server, "standby");
});

test("so does one that the daemon fetches for", async () => {
  const walnut = await copied("served", withoutTwo);
  const { directory } = archived.primary;
  const socketPath = join(directory, "served.sock");
  await using serving = new AsyncDisposableStack();
  const daemons: RunningDaemon[] = [];
  await using recovering = await recover(archived, {
    walnut,
    ...STANDBY,
    restoreCommand: `exec ${walnutShellCommand()} client ${shellWord(socketPath)} wal-fetch %f %p`,
    async onPlace(dataDirectory) {
      const words = ["--config", walnut.configFile];
      const options = { dataDirectory, socketPath, words, user: serverUser() };
      daemons.push(serving.use(await startDaemon(options)));
    },
  });
  const { server } = recovering;
  await server.waitFor(`SELECT count(*) = ${rowsAtFork} FROM filler`);
  await daemons[0]?.logged(TWICE);
  await followsTwo(server, "served");
});

/** Brings timeline 2 into a copy of the repository. */
async function followsTwo(server: Server, name: string): Promise<void> {
  assert.equal(await server.value("SELECT count(*) FROM filler"), rowsAtFork);
  const directory = join(archived.primary.directory, name, "wal_005");
  for (const name of await readdir(join(repository, "wal_005"))) {
    if (!/^00000002.{16}/.test(name)) continue;
    const arriving = join(directory, `${name}.arriving`);
    await cp(join(repository, "wal_005", name), arriving);
    await chownTree(arriving, serverUser());
    await rename(arriving, join(directory, name));
  }
  await server.waitFor("SELECT to_regclass('on_two') IS NOT NULL");
  await server.waitFor("SELECT count(*) = 60000 FROM on_two");
}
