/** Small documents whose bytes change on their way: they are read again before they are damaged. */
import assert from "node:assert/strict";
import { test } from "node:test";
import { ensureRepositoryIdentity, readRepositoryIdentity } from "../../src/archive/identity.ts";
import { claimTimeline, readWriterClaim } from "../../src/archive/writer-claims.ts";
import { readStoredHistories } from "../../src/catalogue/histories.ts";
import { bytesSource } from "../../src/io/bytes.ts";
import type { Storage } from "../../src/storage/storage.ts";
import { FaultyStorage } from "../support/faulty-storage.ts";
import { MemoryStorage } from "../support/memory-storage.ts";

const { signal } = new AbortController();
const SYSTEM_ID = 7_710_511_401_606_644_801n;
const HISTORY_KEY = "wal_005/00000002.history";
const claim = {
  systemId: SYSTEM_ID,
  timeline: 1,
  name: "one",
  host: "a",
  dataDirectory: "/pg",
  directoryId: "1:1",
  bootId: "",
  extension: "zst",
};

const documents: Readonly<Record<string, (storage: Storage) => Promise<unknown>>> = {
  "the repository's identity": (storage) => readRepositoryIdentity(storage, { signal }),
  "a writer's claim": (storage) => readWriterClaim(storage, 1, { signal }),
  "a timeline's history": async (storage) => {
    const [stored] = await readStoredHistories(storage, [HISTORY_KEY], { signal });
    if (stored?.history === undefined) throw new Error(`damaged: ${stored?.problem}`);
    return stored.history;
  },
};

for (const [name, read] of Object.entries(documents)) {
  test(`${name} that came damaged is read again; one that is so is said to be`, async () => {
    const memory = new MemoryStorage();
    await ensureRepositoryIdentity(memory, SYSTEM_ID, { signal });
    await claimTimeline(memory, claim, { signal });
    const history = Buffer.from("1\t0/A000000\tno recovery target specified\n");
    await memory.put(HISTORY_KEY, bytesSource(history), { signal });
    const wanted = await read(memory);

    const once = new FaultyStorage(memory).fault("get", 1, { kind: "corrupt", byte: 1 });
    assert.deepEqual(await read(once), wanted);
    assert.equal(once.count("get"), 2);

    const always = new FaultyStorage(memory).fault("get", "every", { kind: "corrupt", byte: 1 });
    await assert.rejects(read(always), /damaged/);
    assert.equal(always.count("get"), 2);
  });
}
