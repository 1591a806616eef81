import assert from "node:assert/strict";
import { test } from "node:test";
import { judgeAbsence } from "../../src/archive/absence.ts";
import { bytesSource } from "../../src/io/bytes.ts";
import { parseTimelineHistory } from "../../src/postgres/timeline-history.ts";
import { borrowed } from "../../src/storage/overlay.ts";
import { putAll } from "../storage/contract-lists.ts";
import { MemoryStorage } from "../support/memory-storage.ts";
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

test("a new first storage counts once it was brought the document that says whose it is", async () => {
  const world = new FailoverWorld();
  const identity = "walnut_005/cluster.json";
  await putAll(world.store(1).memory, [newest, identity]);
  await using storage = await world.open();
  const before = await judgeAbsence(storage, absent, { signal });
  assert.match(before?.hint ?? "", /st transfer files walnut_005\/cluster.json --source NAME/);
  await putAll(world.store(0).memory, [identity]);
  await world.store(1).memory.delete([identity], { signal });
  assert.equal(await judgeAbsence(storage, absent, { signal }), undefined);
});

for (const [text, newer, made] of [
  ["the parent of the newer one", "1\t0/3000000\tx\n\n2\t0/5000000\tx\n", "1\t0/3000000\tx\n\n"],
  ["another one", "1\t0/3000000\tx\n", "1\t0/3000000\tx\n"],
] as const) {
  test(`a history that is left out, of ${text}: the hint tells what it is made of`, async () => {
    const storage = new MemoryStorage();
    const put = async (name: string, content: string): Promise<void> =>
      await storage.put(`wal_005/${name}`, bytesSource(Buffer.from(content)), { signal });
    await put("000000010000000000000001", "x");
    await put("00000003.history", newer);
    const asked = { name: "00000002.history", timeline: 1 };
    const hidden = await judgeAbsence(storage, asked, { signal });
    assert.match(hidden?.message ?? "", /00000002.history is not in .*, but 00000003.history is/);
    assert.match(hidden?.hint ?? "", /lower timeline.*st put FILE wal_005\/00000002.history`/s);
    assert.equal(parseTimelineHistory(made, 2).timeline, 2);
    await put("00000002.history", made);
    const beyond = { name: "00000004.history", timeline: 1 };
    assert.equal(await judgeAbsence(storage, beyond, { signal }), undefined);
  });
}
