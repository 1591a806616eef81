/**
 * Fetching ahead with real servers: setup's line in PostgreSQL's own shell, a change of timeline,
 * damage, and a standby that asks again and again.
 */
import assert from "node:assert/strict";
import { existsSync, readdirSync, readlinkSync } from "node:fs";
import { cp, readdir, readFile, rename, rm, writeFile } from "node:fs/promises";
import { join } from "node:path";
import { after, before, test } from "node:test";
import { install } from "../support/repository.ts";
import { chownTree, serverUser } from "../support/server-user.ts";
import {
  archive,
  type Archived,
  archivedNames,
  prefetcherPids,
  recover,
  type Recovering,
  untilNoPrefetcher,
} from "./recovering.ts";
import { until } from "../support/until.ts";

let archived: Archived;
before(async () => {
  // Before 16 a server's open files are passed on to the commands that it starts.
  archived = await archive({ major: 13 });
});
after(() => archived[Symbol.asyncDispose]());

async function assertAllThere({ server }: Recovering): Promise<void> {
  assert.equal(server.outcome, "promoted", server.log());
  assert.equal(await server.value("SELECT count(*) FROM filler"), archived.rowCount);
}

test("a recovery takes most segments without a process, and leaves nothing behind", async () => {
  await using recovering = await recover(archived);
  await assertAllThere(recovering);
  const { dataDirectory, spool, calls } = recovering;
  const segmentCalls = calls().filter((name) => name.length === 24);
  assert.ok(segmentCalls.length < archived.segments.length / 2, calls().join());
  await untilNoPrefetcher(dataDirectory);
  assert.deepEqual(await readdir(join(spool, "prefetch")), []);
  assert.ok(!existsSync(join(spool, "prefetch.sock")));
  const names = await readdir(join(dataDirectory, "pg_wal"));
  const others = names.filter(
    (name) => !/^[0-9A-F]{8}(\.history|[0-9A-F]{16}(\.partial)?)$/.test(name),
  );
  assert.deepEqual(
    others.filter((name) => !/^(archive_status|summaries)$/.test(name)),
    [],
  );
  assert.doesNotMatch(await readFile(join(spool, "prefetch.log"), "utf8"), /ERROR|WARNING/);
});

test("PostgreSQL 18 does so, too", async () => {
  await using newer = await archive({ major: 18, segmentCount: 20 });
  await using recovering = await recover(newer);
  const { server, calls } = recovering;
  assert.equal(server.outcome, "promoted", server.log());
  assert.equal(await server.value("SELECT count(*) FROM filler"), newer.rowCount);
  const called = calls().filter((name) => name.length === 24);
  assert.ok(called.length < newer.segments.length / 2, calls().join());
});

test("a plain restore_command is answered by the prefetcher, too", async () => {
  const { walnut } = archived;
  await using recovering = await recover(archived, { restoreCommand: walnut.restoreCommand });
  await assertAllThere(recovering);
  await untilNoPrefetcher(recovering.dataDirectory);
  const log = await readFile(join(recovering.spool, "prefetch.log"), "utf8");
  const taken = [...log.matchAll(/prefetcher ends .* takenCount=(\d+)/g)].map(([, n]) => Number(n));
  assert.ok(Math.max(...taken) > archived.segments.length / 2, log);
});

test("WALG_DOWNLOAD_CONCURRENCY=1 fetches nothing ahead", async () => {
  const { primary, repository } = archived;
  const settings = { WALG_FILE_PREFIX: repository, WALG_DOWNLOAD_CONCURRENCY: "1" };
  const walnut = await install(primary, settings, "alone");
  await using recovering = await recover(archived, { walnut });
  await assertAllThere(recovering);
  assert.ok(!existsSync(join(recovering.spool, "prefetch.log")));
});

test("a damaged segment stops recovery where it is, and what is before it was served", async () => {
  const { primary, repository, segments } = archived;
  const damaged = join(primary.directory, "damaged");
  await cp(repository, damaged, { recursive: true });
  await chownTree(damaged, serverUser());
  const middle = segments[Math.floor(segments.length / 2)] ?? "";
  const object = join(damaged, "wal_005", `${middle}.zst`);
  const bytes = await readFile(object);
  bytes.writeUInt8(bytes.readUInt8(bytes.length >> 1) ^ 1, bytes.length >> 1);
  await writeFile(object, bytes);
  const walnut = await install(primary, { WALG_FILE_PREFIX: damaged }, "damaged");
  await using recovering = await recover(archived, { walnut });
  assert.equal(recovering.server.outcome, "exited");
  const log = recovering.server.log();
  assert.match(log, new RegExp(`object wal_005/${middle}.zst .* is damaged`));
  assert.match(log, new RegExp(`could not restore file "${middle}" from archive`));
  // The cold copy has the first one.
  for (const name of segments.slice(1).filter((one) => one < middle)) {
    assert.match(log, new RegExp(`restored log file "${name}"`));
  }

  // Once it is whole again, the same server goes on to the end.
  await writeFile(object, await readFile(join(repository, "wal_005", `${middle}.zst`)));
  await recovering.server.start();
  await recovering.server.waitFor("SELECT NOT pg_is_in_recovery()");
  assert.equal(await recovering.server.value("SELECT count(*) FROM filler"), archived.rowCount);
});

test("recovery goes through a change of timeline, and past what the old one left", async () => {
  const { primary, segments, repository } = archived;
  const own = join(primary.directory, "two-timelines");
  await cp(repository, own, { recursive: true });
  await chownTree(own, serverUser());
  const both = await install(primary, { WALG_FILE_PREFIX: own }, "both");
  const middle = segments[Math.floor(segments.length / 2)] ?? "";
  const position = `${Number.parseInt(middle.slice(8, 16), 16)}/${middle.slice(-3)}80000`;
  let onTwo: string[];
  {
    await using promoted = await recover(archived, {
      walnut: both,
      settings: {
        archive_mode: "on",
        archive_command: both.archiveCommand,
        recovery_target_lsn: position,
        recovery_target_action: "promote",
      },
    });
    const { server } = promoted;
    assert.equal(server.outcome, "promoted", server.log());
    await server.query("CREATE TABLE later AS SELECT generate_series(1, 60000) AS id");
    await server.switchWal();
    await server.waitForArchiver();
    onTwo = archivedNames(server).filter((name) => name.startsWith("00000002"));
    assert.ok(onTwo.length > 3, onTwo.join());
  }
  await using recovering = await recover(archived, { walnut: both });
  const { server, calls } = recovering;
  assert.equal(server.outcome, "promoted", server.log());
  assert.equal(await server.value("SELECT count(*) FROM later"), "60000");
  const log = server.log();
  for (const name of onTwo) assert.match(log, new RegExp(`restored log file "${name}"`));
  const called = calls().filter((name) => onTwo.includes(name));
  assert.ok(called.length <= onTwo.length / 2, `${called.join()} of ${onTwo.join()}`);
});

function objectOf(repository: string, name: string): string {
  return join(repository, "wal_005", `${name}.zst`);
}

test("a standby at the end of the archive: one prefetcher, nothing piles up", async () => {
  const { primary, repository, segments } = archived;
  const growing = join(primary.directory, "growing");
  await cp(repository, growing, { recursive: true });
  await chownTree(growing, serverUser());
  const half = Math.floor(segments.length / 2);
  const later = segments.slice(half);
  for (const name of later) await rm(objectOf(growing, name));
  const walnut = await install(primary, { WALG_FILE_PREFIX: growing }, "growing");
  await using recovering = await recover(archived, {
    walnut,
    signal: "standby",
    settings: { wal_retrieve_retry_interval: "100ms" },
  });
  const { server, dataDirectory, spool, calls } = recovering;
  const asked = (name: string | undefined) => calls().filter((one) => one === name).length;
  const tail = (): string => server.log().slice(-2000);
  await until("the standby asks again", () => asked(later[0]) >= 5, tail);
  const [pid, ...others] = prefetcherPids(dataDirectory);
  assert.ok(pid !== undefined && others.length === 0);
  // Nothing of the server is held open: a dropped table's space would not come back.
  const open = readdirSync(`/proc/${pid}/fd`).map((fd) => {
    try {
      return readlinkSync(`/proc/${pid}/fd/${fd}`);
    } catch {
      return "";
    }
  });
  assert.deepEqual(
    open.filter((path) => path.startsWith(`${dataDirectory}/`)),
    [],
  );
  const status: unknown = JSON.parse(
    (await walnut.mustRun("wal-prefetch", dataDirectory, "--status")).stdout,
  );
  assert.ok(typeof status === "object" && status !== null && "ready" in status);
  assert.equal(status.ready, 0);
  assert.deepEqual(readdirSync(join(spool, "prefetch", runOf(spool))), ["server"]);

  // A segment comes, then all the others.
  const [first = "", ...more] = later.slice(0, -1);
  const arrive = async (name: string) => {
    await cp(objectOf(repository, name), `${objectOf(growing, name)}.new`);
    await chownTree(`${objectOf(growing, name)}.new`, serverUser());
    await rename(`${objectOf(growing, name)}.new`, objectOf(growing, name));
  };
  await arrive(first);
  await until("the next one is asked for", () => asked(more[0]) >= 2, tail);
  for (const name of more) await arrive(name);
  await until("the end is asked for", () => asked(later.at(-1)) >= 2, tail);
  assert.deepEqual(prefetcherPids(dataDirectory), [pid]);
  for (const name of [first, ...more])
    assert.match(server.log(), new RegExp(`restored log file "${name}"`));
  const log = await readFile(join(spool, "prefetch.log"), "utf8");
  assert.doesNotMatch(log, /ERROR|WARNING/);
  assert.ok(log.split("\n").length < 10, log);
});

function runOf(spool: string): string {
  return (
    readdirSync(join(spool, "prefetch")).find((name) => /^run-[0-9a-f]+$/.test(name)) ?? "none"
  );
}
