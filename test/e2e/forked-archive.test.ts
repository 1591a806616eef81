/** Recoveries from an archive whose timelines forked, and that lacks something around the fork. */
import assert from "node:assert/strict";
import { cp, readdir, rename, rm } from "node:fs/promises";
import { join } from "node:path";
import { after, before, test } from "node:test";
import { type Installation, install } from "../support/repository.ts";
import { chownTree, serverUser } from "../support/server-user.ts";
import { archive, type Archived, recover, type RecoverOptions } from "./recovering.ts";

let archived: Archived;
/** Of timeline 1 and of timeline 2, which left it in the middle of the eighth segment. */
let repository: string;

before(async () => {
  archived = await archive({ major: 17, segmentCount: 12 });
  repository = join(archived.primary.directory, "forked");
  await cp(archived.repository, repository, { recursive: true });
  await chownTree(repository, serverUser());
  const walnut = await install(archived.primary, { WALG_FILE_PREFIX: repository }, "forked");
  await using promoted = await recover(archived, { walnut, settings: branching(walnut, 7) });
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
