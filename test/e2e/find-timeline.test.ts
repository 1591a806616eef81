import assert from "node:assert/strict";
import { spawn } from "node:child_process";
import { once } from "node:events";
import { existsSync, readdirSync } from "node:fs";
import { join } from "node:path";
import { test } from "node:test";
import {
  type Cluster,
  initCluster,
  type Major,
  MAJORS,
  restoreCluster,
} from "../support/postgres.ts";
import { DescribedJson } from "../support/described-json.ts";
import { type Installation, install } from "../support/repository.ts";
import { until } from "../support/until.ts";

const RELEASES: readonly Major[] = process.env["WALNUT_LONG"] === undefined ? [18] : MAJORS;

/** Runs commands as somebody would who pastes them into a shell of the server's user. */
async function paste(commands: readonly string[], cluster: Cluster): Promise<void> {
  const child = spawn("sh", ["-e", "-c", commands.join("\n")], {
    ...cluster.user,
    cwd: cluster.directory,
    env: { PATH: process.env["PATH"], HOME: cluster.directory },
    stdio: ["ignore", "ignore", "pipe"],
  });
  let stderr = "";
  child.stderr.setEncoding("utf8").on("data", (text: string) => (stderr += text));
  await once(child, "close");
  assert.equal(child.exitCode, 0, stderr);
}

async function restored(
  cluster: Cluster,
  walnut: Installation,
  { directory, sql }: { readonly directory: string; readonly sql: string },
): Promise<string> {
  const server = await restoreCluster(directory, {
    major: cluster.major,
    signal: "recovery",
    restoreCommand: walnut.restoreCommand,
  });
  try {
    assert.equal(server.outcome, "promoted", server.log());
    return await server.value(sql);
  } finally {
    await server[Symbol.asyncDispose]();
  }
}

for (const major of RELEASES) {
  test(`what timeline and find say of PostgreSQL ${major} is what a restore has`, async () => {
    await using cluster = await initCluster({
      major,
      segmentMiB: 1,
      settings: { archive_mode: "on", autovacuum: "off" },
    });
    const repository = await cluster.makeDirectory("repository");
    const walnut = await install(cluster, { WALNUT_FILE_PREFIX: repository });
    await cluster.configure({ archive_command: walnut.archiveCommand });
    await cluster.start();
    await cluster.query("create table marker (id bigserial, at timestamptz default now())");
    await cluster.query("create table filler (id serial)");
    await cluster.query("create table victim as select generate_series(1, 500) as id");
    await walnut.mustRun("backup-push", cluster.dataDirectory);
    await cluster.query("insert into victim select generate_series(501, 600)");
    await cluster.query("begin; drop table victim; insert into marker default values; commit");
    // Archiving notes commits after every 16 segments, before anybody asks for them.
    while (!(await cluster.switchWal()).endsWith("F")) {
      await cluster.query("insert into filler default values");
    }
    const index = join(repository, "walnut_005", "index");
    await until("commits are noted", () => existsSync(index) && readdirSync(index).length > 0);
    await cluster.query("insert into marker default values");
    const lastXid = await cluster.value(
      "insert into marker default values returning txid_current()",
    );
    await cluster.switchWal();
    await cluster.waitForArchiver();

    const report = JSON.parse((await walnut.mustRun("timeline", "--json")).stdout);
    const [{ windows, backups, holes }] = report.timelines;
    assert.deepEqual([backups.length, holes, windows.length], [1, [], 1]);
    assert.equal(String(windows[0].last_xid), lastXid);

    const dropped = join(cluster.directory, "before the drop");
    const found = JSON.parse(
      (await walnut.mustRun("find", "--relation", "public.victim", "--json", "--to", dropped))
        .stdout,
    );
    assert.equal(found.matches.at(-1).effect, major < 15 ? "files removed" : "dropped");
    await paste(found.restore.commands, cluster);
    // A copy has it all as well.
    const place = { WALNUT_FILE_PREFIX: await cluster.makeDirectory("copied") };
    const copy = await install(cluster, place, "copy");
    const sides = ["--from", walnut.configFile, "--to", copy.configFile];
    await walnut.mustRun("copy", ...sides, "--with-history");
    const end = join(cluster.directory, "to the end");
    await copy.mustRun("backup-fetch", end, "LATEST");
    const sql = "select count(*) || ' ' || current_setting('archive_mode') from victim";
    assert.equal(await restored(cluster, walnut, { directory: dropped, sql }), "600 off");
    const last = "select xmin::text from marker order by id desc limit 1";
    assert.equal(await restored(cluster, copy, { directory: end, sql: last }), lastXid);

    const described = new DescribedJson("verify.md", "### find --json");
    const answer = async (...words: readonly string[]) => {
      const { stdout } = await walnut.mustRun("find", ...words, "--json");
      described.check(stdout);
      return JSON.parse(stdout);
    };
    described.check(JSON.stringify(found));
    // Before the backup: nothing leads there.
    assert.equal((await answer("--lsn", "0/0")).restore, null);
    const byXid = await answer("--xid", lastXid);
    assert.deepEqual(described.missing, []);
    assert.equal(byXid.matches[0].lsn, windows[0].to.lsn);
    const atEnd = await answer("--time", windows[0].to.time);
    assert.equal(atEnd.matches[0].lsn, windows[0].to.lsn);
    const verified = JSON.parse((await walnut.mustRun("verify", "--full", "--json")).stdout);
    assert.deepEqual([verified.status, verified.findings], ["OK", []]);
  });
}
