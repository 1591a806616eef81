import assert from "node:assert/strict";
import { existsSync, mkdirSync, readFileSync, symlinkSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { test } from "node:test";
import { startDaemon } from "../support/daemon.ts";
import { scratchDirectory } from "../support/scratch-directory.ts";
import { runWalnut } from "../support/walnut.ts";

const HISTORY = "00000002.history";

test("a daemon says that its data directory is none, and serves it once it is", async () => {
  using directory = scratchDirectory();
  const place = (name: string) => join(directory.path, name);
  for (const name of ["data", "store"]) mkdirSync(place(name), { mode: 0o700 });
  await using daemon = await startDaemon({
    dataDirectory: place("data"),
    socketPath: place("walnut.sock"),
    env: { WALG_FILE_PREFIX: place("store"), WALNUT_CACHE_DIR: place("cache") },
  });
  await daemon.logged(/WARNING: .* the data directory has no pg_wal.* hint="Does PGDATA/);

  mkdirSync(place("data/pg_wal/archive_status"), { recursive: true });
  writeFileSync(place(`data/pg_wal/${HISTORY}`), "1\t0/3000000\tno reason\n");
  const answer = await daemon.call({ kind: "push", name: HISTORY });
  assert.deepEqual(answer, { kind: "reply", reply: "O" }, daemon.log());
});

test("a restored copy with the same lines gets nothing through its origin's pg_wal", async () => {
  using directory = scratchDirectory();
  const place = (name: string) => join(directory.path, name);
  for (const name of ["data/pg_wal/archive_status", "copy/pg_wal", "store"]) {
    mkdirSync(place(name), { recursive: true, mode: 0o700 });
  }
  for (const name of ["data", "copy"]) writeFileSync(place(`${name}/PG_VERSION`), "15\n");
  const history = "1\t0/3000000\tno reason\n";
  writeFileSync(place(`data/pg_wal/${HISTORY}`), history);
  const env = { WALG_FILE_PREFIX: place("store"), WALNUT_CACHE_DIR: place("cache") };
  const socketPath = place("walnut.sock");
  await using daemon = await startDaemon({ dataDirectory: place("data"), socketPath, env });
  const call = (cwd: string, ...words: readonly string[]) =>
    runWalnut(["client", socketPath, ...words], { cwd: place(cwd), env });
  const fetch = ["wal-fetch", HISTORY, "pg_wal/RECOVERYHISTORY"];

  // PostgreSQL's own directory has no link in it; that of PGDATA may.
  symlinkSync(place("data"), place("link"));
  const own = await call("link", "wal-push", HISTORY);
  assert.equal(own.code, 0, own.stderr);

  for (const [words, code] of [
    [fetch, 200],
    [["wal-push", HISTORY], 1],
  ] as const) {
    const refused = await call("copy", ...words);
    assert.equal(refused.code, code, refused.stderr);
    assert.match(refused.stderr, /refused .*another data directory\nHINT: .*`walnut setup`/);
  }
  assert.ok(!existsSync(place("data/pg_wal/RECOVERYHISTORY")));

  assert.match(daemon.log(), /client is refused .*the server of another data directory/);

  const itself = await call("copy", ...fetch, "--fallback");
  assert.equal(itself.code, 0, itself.stderr);
  assert.equal(readFileSync(place("copy/pg_wal/RECOVERYHISTORY"), "utf8"), history);
  assert.ok(!existsSync(place("data/pg_wal/RECOVERYHISTORY")));
});
