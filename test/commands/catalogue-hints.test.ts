import assert from "node:assert/strict";
import { test } from "node:test";
import { deleteCommand } from "../../src/commands/delete.ts";
import { findCommand } from "../../src/commands/find.ts";
import { walVerify } from "../../src/commands/wal-verify.ts";
import { defaultConfig } from "../../src/config/load.ts";
import { bytesSource } from "../../src/io/bytes.ts";
import { systemClock } from "../../src/io/clock.ts";
import { DirectoryStorage } from "../../src/storage/directory.ts";
import { runCommand } from "../support/command-run.ts";
import { MemoryStorage } from "../support/memory-storage.ts";
import { unpackWalgFixture } from "../support/walg-fixture.ts";

test("what is not there is answered by what is", async () => {
  await using fixture = await unpackWalgFixture("timelines");
  await using storage = new DirectoryStorage(fixture.repository, systemClock);
  const hint = /^There are: base_0{7}1.*, base_0{7}2.*\. Nothing was removed\.$/;
  await assert.rejects(runCommand(deleteCommand, storage, ["target", "base_00000001"]), { hint });
  await assert.rejects(runCommand(deleteCommand, storage, ["before", "2026-11-21"]), {
    hint: /A time is written 2026-11-21T14:03:00Z\./,
  });
  const userData = ["target", "--target-user-data", "nightly"];
  await assert.rejects(runCommand(deleteCommand, storage, userData), {
    name: "UsageError",
    message: /^user data nightly is not JSON: /,
    hint: /double quotes within the shell's: '"monthly"'/,
  });
  const { log } = await runCommand(deleteCommand, storage, ["before", "base_0"]);
  assert.ok(
    log.includes(
      'info: what is older than this backup is to go {"name":"base_000000020000000000000006"}',
    ),
    log.join("\n"),
  );
  await assert.rejects(runCommand(findCommand, storage, ["--xid", "5", "--timeline", "7"]), {
    message: /holds nothing of timeline 7$/,
    hint: "There is WAL of timelines 1, 2.",
  });
  await assert.rejects(runCommand(findCommand, storage, ["--time", "2030-01-01T00:00:00Z"]), {
    message: /no commit on the way to timeline 2 in .* has this time or a later one$/,
  });
  await assert.rejects(runCommand(findCommand, new MemoryStorage(), ["--xid", "5"]), {
    hint: /prefix/,
  });
});

test("wal-verify says of the timeline what that means", async () => {
  const storage = new MemoryStorage();
  const { signal } = new AbortController();
  await storage.put("wal_005/000000020000000000000002", bytesSource(Buffer.of(1)), { signal });
  const words = ["timeline", "--timeline", "1", "--lsn", "0/3000000"];
  await assert.rejects(runCommand(walVerify, storage, words), {
    name: "UnsoundError",
    hint: /^If the archive's timeline is higher, another server was promoted/,
  });
});

test("wal-verify without a server says how to do without", async () => {
  const { postgres } = defaultConfig({ cpuCount: 2 });
  // Nobody listens on port 1.
  const config = { postgres: { ...postgres, host: "127.0.0.1", port: 1 } };
  await assert.rejects(runCommand(walVerify, new MemoryStorage(), ["integrity"], config), {
    name: "DatabaseError",
    hint: /--timeline N --lsn X\/Y/,
  });
});
