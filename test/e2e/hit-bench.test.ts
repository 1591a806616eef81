/** `npm run bench -- --only hit` still finds what it measures. */
import assert from "node:assert/strict";
import { chmodSync, mkdirSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { test } from "node:test";
import { compareHits } from "../../scripts/bench/hit-bench.ts";
import { postgresBytes } from "../support/postgres-fixtures.ts";
import { scratchDirectory } from "../support/scratch-directory.ts";
import { walnutShellCommand } from "../support/walnut.ts";
import { writeWal } from "../support/wal-writer.ts";

test("the bench of hits measures calls that find their work done", async () => {
  using scratch = scratchDirectory();
  const home = scratch.path;
  const dataDirectory = join(home, "data");
  const segmentDirectory = join(home, "segments");
  for (const path of [join(dataDirectory, "global"), segmentDirectory]) {
    mkdirSync(path, { recursive: true });
  }
  const control = Buffer.from(postgresBytes(15, "pg_control.running"));
  writeFileSync(join(dataDirectory, "global", "pg_control"), control);
  const records = Array.from({ length: 4 }, () => ({ dataBytes: 1024 * 1024 }));
  const { segments } = writeWal({ systemId: control.readBigUInt64LE(0), records });
  for (const { name, bytes } of segments) writeFileSync(join(segmentDirectory, name), bytes);
  // The bench knows a program by one word.
  const binary = join(home, "walnut");
  writeFileSync(binary, `#!/bin/sh\nexec ${walnutShellCommand()} "$@"\n`);
  chmodSync(binary, 0o755);

  const place = { home, dataDirectory, segmentDirectory, port: "1", user: "nobody" };
  const names = segments.map(({ name }) => name).slice(0, 4);
  const rows = await compareHits(place, binary, { rounds: 1, segments: names });
  assert.deepEqual(
    rows.map(({ name }) => name.replace(/,.*/, "")),
    ["sh -c true", "restore_command", "restore_command", "archive_command", "archive_command"],
  );
});
