import assert from "node:assert/strict";
import { test } from "node:test";
import { judgeAbsence } from "../../src/archive/absence.ts";
import { borrowed } from "../../src/storage/overlay.ts";
import { putAll } from "../storage/contract-lists.ts";
import { FailoverWorld } from "../support/failover-world.ts";

const { signal } = new AbortController();
const absent = { name: "00000001000000000000000A" };
const newest = "wal_005/000000010000000000000009.zst";

test("an empty first storage is no end of the archive, whatever the others hold", async () => {
  const world = new FailoverWorld();
  await putAll(world.store(1).memory, [newest]);
  await using storage = await world.open();
  for (const one of [storage, borrowed(storage)]) {
    const judgement = await judgeAbsence(one, absent, { signal });
    assert.match(judgement?.message ?? "", /holds no repository/);
    assert.match(judgement?.hint ?? "", /mounted\?.*--target-storage/s);
  }
});

test("an empty storage behind the first one is as it should be", async () => {
  const world = new FailoverWorld();
  await putAll(world.store(0).memory, [newest]);
  await using storage = await world.open();
  assert.equal(await judgeAbsence(storage, absent, { signal }), undefined);
});
