import assert from "node:assert/strict";
import { test } from "node:test";
import { findBase } from "../../src/backup/increment-origin.ts";
import { codecOf } from "../../src/codec/table.ts";
import { lsn } from "../../src/postgres/lsn.ts";
import { MemoryStorage } from "../support/memory-storage.ts";
import { collectingLog } from "../support/restoring.ts";

const server = {
  systemId: 7n,
  majorVersion: 17,
  history: { timeline: 1, ancestors: [] },
  currentLsn: lsn(0x5000000n),
  hasChecksums: true,
  hash: "xxh64",
} as const;

test("a base that was asked for in vain, for no increments are allowed, is told of", async () => {
  const log = collectingLog();
  const request = { maxSteps: 0, origin: "latest", isPermanent: false } as const;
  const signal = AbortSignal.timeout(60_000);
  const options = { storage: new MemoryStorage(), zstd: codecOf("zstd"), log, signal };
  assert.equal(await findBase(request, server, options), undefined);
  assert.deepEqual(log.lines, []);
  const from = { kind: "name", name: "base_000000010000000000000099" } as const;
  assert.equal(await findBase({ ...request, from }, server, options), undefined);
  assert.match(
    log.lines.join("\n"),
    /^warning: .*asked for: WALG_DELTA_MAX_STEPS is 0 .*with --type incr it is an increment/,
  );
});
