import assert from "node:assert/strict";
import { chmod, mkdtemp, rm, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { once } from "node:events";
import { after, before, test } from "node:test";
import { connectPostgres } from "../../src/connection/connect.ts";
import { estimateClusterBytes } from "../../src/connection/server-facts.ts";
import {
  booleanColumn,
  integerColumn,
  type Session,
  textColumn,
} from "../../src/connection/session.ts";
import { SessionWatch } from "../../src/connection/session-watch.ts";
import type { ConnectionSettings } from "../../src/connection/target.ts";
import { systemClock } from "../../src/io/clock.ts";
import { type Cluster, startCluster } from "../support/postgres.ts";

const signal = AbortSignal.timeout(120_000);
const all: { cluster?: Cluster } = {};

function cluster(): Cluster {
  if (all.cluster === undefined) throw new Error("no cluster");
  return all.cluster;
}

function settings(change: Partial<ConnectionSettings> = {}): ConnectionSettings {
  return {
    host: "127.0.0.1",
    port: cluster().port,
    user: "postgres",
    database: "postgres",
    applicationName: "walnut-test",
    ...change,
  };
}

async function connect(change: Partial<ConnectionSettings> = {}): Promise<Session> {
  return await connectPostgres(settings(change), { signal });
}

before(async () => {
  all.cluster = await startCluster({ major: 17, segmentMiB: 1 });
  await cluster().query("CREATE ROLE keeper LOGIN PASSWORD 'geheim'");
  await cluster().query("CREATE ROLE nobody_special LOGIN");
  const hba = join(cluster().dataDirectory, "pg_hba.conf");
  await writeFile(
    hba,
    "host all keeper 127.0.0.1/32 scram-sha-256\n" +
      "hostssl all nobody_special 127.0.0.1/32 trust\n" +
      "hostnossl all nobody_special 127.0.0.1/32 reject\n" +
      "host all all 127.0.0.1/32 trust\n",
  );
  await cluster().query("SELECT pg_reload_conf()");
});

after(async () => await all.cluster?.[Symbol.asyncDispose]());

test("columns come as PostgreSQL writes them", async () => {
  await using session = await connect();
  const row = await session.row(
    "SELECT 9223372036854775807::int8 AS big, true AS yes, NULL AS nothing, 1.50 AS exact, 7 AS n",
    { signal },
  );
  assert.deepEqual(
    { ...row },
    {
      big: "9223372036854775807",
      yes: "t",
      nothing: null,
      exact: "1.50",
      n: "7",
    },
  );
  assert.equal(booleanColumn(row, "yes"), true);
  assert.equal(integerColumn(row, "n"), 7);
  assert.throws(() => integerColumn(row, "big"), { name: "DatabaseError" });
  assert.throws(() => booleanColumn(row, "n"), { name: "DatabaseError" });
  assert.throws(() => textColumn(row, "nothing"), {
    message: "the server gave no value for nothing",
  });
});

test("values are passed apart from the query", async () => {
  await using session = await connect();
  const values = ["a'b", 5, 2n ** 62n, true, null];
  const sql = "SELECT $1::text AS a, $2::int AS b, $3::int8 AS c, $4::bool AS d, $5::text AS e";
  const row = await session.row(sql, { signal, values });
  assert.deepEqual({ ...row }, { a: "a'b", b: "5", c: "4611686018427387904", d: "t", e: null });
});

test("the session is called by its application's name and has no time limits", async () => {
  await cluster().query("ALTER ROLE postgres SET statement_timeout = '1s'");
  try {
    await using session = await connect();
    const row = await session.row(
      `SELECT current_setting('application_name') AS name,
              current_setting('statement_timeout') AS limit`,
      { signal },
    );
    assert.deepEqual({ ...row }, { name: "walnut-test", limit: "0" });
  } finally {
    await cluster().query("ALTER ROLE postgres RESET statement_timeout");
  }
});

const refused = [
  [
    { port: 1 },
    /^can't connect to PostgreSQL at 127\.0\.0\.1:1 as postgres: .*ECONNREFUSED/,
    /PGHOST/,
  ],
  [
    { host: "/nowhere" },
    /^can't connect to PostgreSQL at \/nowhere, port \d+ as postgres: /,
    /PGHOST/,
  ],
  [{ database: "absent" }, /database "absent" does not exist \(SQLSTATE 3D000\)$/, /PGDATABASE/],
  [{ user: "absent" }, /role "absent" does not exist \(SQLSTATE 28000\)$/, /PGUSER/],
  [{ user: "keeper", password: "wrong" }, /password authentication failed .*28P01/, /PGPASSWORD/],
  [{ user: "keeper", passwordFile: "/nowhere" }, /wants a password of keeper$/, /\/nowhere/],
  [{ sslMode: "require" }, /does not support SSL/, undefined],
  [{ user: "nobody_special" }, /pg_hba.conf rejects connection .*28000/, /pg_hba/],
] as const;

for (const [change, message, hint] of refused) {
  test(`refused with ${JSON.stringify(change)}`, async () => {
    await assert.rejects(connect(change), (error: unknown) => {
      assert.ok(error instanceof Error && "hint" in error);
      assert.equal(error.name, "DatabaseError");
      assert.match(error.message, message);
      if (hint !== undefined) assert.match(String(error.hint), hint);
      assert.doesNotMatch(`${error.message} ${String(error.hint)}`, /geheim|wrong/);
      return true;
    });
  });
}

test("a certificate that can't be read is an error of the configuration", async () => {
  await assert.rejects(connect({ sslRootCertificateFile: "/nowhere.crt" }), {
    name: "ConfigError",
    message: "can't read the certificate /nowhere.crt",
  });
});

test("hosts are tried one after the other", async () => {
  await using session = await connect({ host: "/nowhere,127.0.0.1" });
  assert.equal(session.address, `127.0.0.1:${cluster().port}`);
});

test("the password comes from the settings or from a file that others can't read", async () => {
  const directory = await mkdtemp(join(tmpdir(), "walnut-pass-"));
  try {
    const passwordFile = join(directory, "pass");
    await writeFile(passwordFile, `127.0.0.1:*:*:keeper:geheim\n`, { mode: 0o600 });
    await using byFile = await connect({ user: "keeper", passwordFile });
    await using bySetting = await connect({ user: "keeper", password: "geheim" });
    for (const session of [byFile, bySetting]) {
      assert.equal((await session.row("SELECT user AS name", { signal }))["name"], "keeper");
    }
    await chmod(passwordFile, 0o640);
    await assert.rejects(connect({ user: "keeper", passwordFile }), /may be read by others$/);
  } finally {
    await rm(directory, { recursive: true });
  }
});

test("a failed query tells the server's words and leaves the session usable", async () => {
  await using session = await connect();
  await assert.rejects(session.query("SELECT 1/0", { signal }), {
    name: "DatabaseError",
    message: "query failed: division by zero (SQLSTATE 22012)",
  });
  assert.equal((await session.query("SELECT 1", { signal })).length, 1);
  await assert.rejects(session.row("SELECT 1 WHERE false", { signal }), /gave 0 rows, not 1/);
  await assert.rejects(session.row("VALUES (1), (2)", { signal }), /gave 2 rows, not 1/);
});

test("a missing right comes with the statement that gives it", async () => {
  await using session = await connect({ user: "keeper", password: "geheim" });
  await assert.rejects(session.query("SHOW data_directory", { signal }), (error: unknown) => {
    assert.ok(error instanceof Error && "hint" in error);
    assert.match(String(error.hint), /GRANT pg_monitor/);
    return true;
  });
  assert.equal(await estimateClusterBytes(session, { signal }), undefined);
});

test("an abort ends a query at once", async () => {
  await using session = await connect();
  const stop = new AbortController();
  const reason = new Error("stop");
  const running = session.query("SELECT pg_sleep(60)", { signal: stop.signal });
  stop.abort(reason);
  await assert.rejects(running, reason);
});

test("a killed session tells it, and every query after", async () => {
  await using session = await connect();
  const { pid } = await session.row("SELECT pg_backend_pid() AS pid", { signal });
  const sleeping = session.query("SELECT pg_sleep(60)", { signal });
  const isLost = once(session.lost, "abort");
  await Promise.all([
    cluster().query(`SELECT pg_terminate_backend(${pid})`),
    assert.rejects(sleeping, { name: "DatabaseError", message: /terminating connection/ }),
    isLost,
  ]);
  assert.match(String(session.lost.reason), /PostgreSQL at 127.0.0.1:\d+ ended/);
  await assert.rejects(session.query("SELECT 1", { signal }), { name: "DatabaseError" });
});

test("the watch hears of a killed session", async () => {
  await using session = await connect();
  const { pid } = await session.row("SELECT pg_backend_pid() AS pid", { signal });
  await using watch = new SessionWatch(session, { intervalMs: 0, clock: systemClock, signal });
  const isAborted = once(watch.signal, "abort");
  await cluster().query(`SELECT pg_terminate_backend(${pid})`);
  await isAborted;
  assert.equal(watch.signal.reason.name, "DatabaseError");
});

test("the watch asks again and again, at most 5 s apart", async () => {
  await using session = await connect();
  const asked = Promise.withResolvers<void>();
  const intervals: number[] = [];
  const clock = {
    ...systemClock,
    async sleep(ms: number, options: { readonly signal: AbortSignal }): Promise<void> {
      if (ms > 5000) return await systemClock.sleep(ms, options);
      intervals.push(ms);
      if (intervals.length === 4) {
        asked.resolve();
        await systemClock.sleep(60_000, options);
      }
    },
  };
  await using watch = new SessionWatch(session, { intervalMs: 60_000, clock, signal });
  await asked.promise;
  assert.deepEqual(intervals, [5000, 5000, 5000, 5000]);
  assert.equal(watch.signal.aborted, false);
});

test("the watch notices that nobody answers", async () => {
  await using session = await connect();
  const clock = { ...systemClock, sleep: async () => {} };
  await using watch = new SessionWatch(session, { intervalMs: 1000, clock, signal });
  await once(watch.signal, "abort");
  assert.equal(watch.signal.reason.name, "DatabaseError");
  assert.match(watch.signal.reason.message, /has not answered for 120 s$/);
});
