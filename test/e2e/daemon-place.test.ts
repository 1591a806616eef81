import assert from "node:assert/strict";
import { mkdirSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { test } from "node:test";
import { startDaemon } from "../support/daemon.ts";
import { scratchDirectory } from "../support/scratch-directory.ts";

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
