import assert from "node:assert/strict";
import { describe, test } from "node:test";
import { findInterrupted } from "../../src/backup/interrupted.ts";
import { RunClaim, type RunFacts } from "../../src/backup/run-claim.ts";
import { bytesSource } from "../../src/io/bytes.ts";
import { describeHolder } from "../../src/io/process-identity.ts";
import { silentLog } from "../../src/io/log.ts";
import { gapKey, partKey, partRecordKey, runClaimKey, sentinelKey } from "../../src/layout/keys.ts";
import { MemoryStorage } from "../support/memory-storage.ts";

const NAME = "base_000000020000000000000010";
const SIGNAL = AbortSignal.timeout(60_000);
const NOW = 1_795_000_000_000;
const CLOCK = { now: () => NOW, monotonicMs: () => 0, sleep: async () => {} };
const ALIVE = describeHolder() ?? "";
const DEAD = ALIVE.replace(/^\d+/, "4194304");
const FACTS: RunFacts = { systemId: 7n, timeline: 2, holder: DEAD, settings: "same" };

async function put(storage: MemoryStorage, key: string, text = "x"): Promise<void> {
  await storage.put(key, bytesSource(Buffer.from(text)), { signal: SIGNAL });
}

async function claim(storage: MemoryStorage, change: Partial<RunFacts> = {}, name = NAME) {
  const world = { storage, clock: CLOCK, log: silentLog, signal: SIGNAL };
  return await RunClaim.take(name, { ...FACTS, ...change }, [], world);
}

async function find(storage: MemoryStorage) {
  const whys: string[] = [];
  const info = (_: string, fields: object = {}) => void whys.push(JSON.stringify(fields));
  const log = { ...silentLog, info };
  const query = { storage, clock: CLOCK, log, signal: SIGNAL, maxAgeMs: 1000 };
  return { found: await findInterrupted({ ...FACTS, holder: ALIVE }, query), why: whys.join(" ") };
}

test("an interrupted backup is found with all that is in its folder", async () => {
  const storage = new MemoryStorage();
  const { key } = await claim(storage);
  await put(storage, partKey(NAME, 7, "zst"));
  await put(storage, partRecordKey(NAME, "part_009.tar.zst"));
  await put(storage, sentinelKey("base_00000002000000000000000F"));
  const { found } = await find(storage);
  assert.equal(found?.name, NAME);
  assert.deepEqual(found?.claims, [key]);
  assert.equal(found?.objects.size, 3);
  assert.equal(found?.usedPartCount, 1009);
});

describe("no backup is resumed", () => {
  const cases: Record<string, [RegExp, (storage: MemoryStorage) => Promise<unknown>]> = {
    "without one": [/there is none/, async () => {}],
    "whose folder has no claim": [/there is none/, (storage) => put(storage, partKey(NAME, 1, ""))],
    "that exists": [
      /there is none/,
      async (storage) => {
        await claim(storage);
        await put(storage, sentinelKey(NAME));
      },
    ],
    "whose process is alive": [/is alive/, (storage) => claim(storage, { holder: ALIVE })],
    "whose process can't be seen": [
      /can't be seen/,
      (storage) => claim(storage, { holder: "1:2:other-boot@pid:[1]" }),
    ],
    "of which one of two runs is alive": [
      /is alive/,
      async (storage) => {
        await claim(storage);
        await claim(storage, { holder: ALIVE });
      },
    ],
    "of another cluster": [/another cluster/, (storage) => claim(storage, { systemId: 8n })],
    "that says another timeline": [/timeline/, (storage) => claim(storage, { timeline: 1 })],
    "named after another timeline": [
      /timeline/,
      (storage) => claim(storage, {}, "base_000000010000000000000010"),
    ],
    "with other settings": [/settings/, (storage) => claim(storage, { settings: "other" })],
    "that is an increment": [
      /no full backup/,
      (storage) => claim(storage, {}, `${NAME}_D_00000002000000000000000A`),
    ],
    "with a later one": [
      /later backup/,
      async (storage) => {
        await claim(storage);
        await put(storage, sentinelKey("base_000000020000000000000011"));
      },
    ],
    "with a later one of an earlier timeline": [
      /later backup/,
      async (storage) => {
        await claim(storage);
        await put(storage, sentinelKey("base_000000010000000000000011"));
      },
    ],
    "begun long ago": [
      /too long ago/,
      (storage) => put(storage, runClaimKey(NAME, NOW - 1001, "0123456789abcdef"), "{}"),
    ],
    "with a claim that is cut off": [
      /can't be understood/,
      (storage) => put(storage, runClaimKey(NAME, NOW, "0123456789abcdef"), '{"process'),
    ],
    "with WAL that was given up since": [
      /given up/,
      async (storage) => {
        await claim(storage);
        await put(storage, gapKey("000000020000000000000012"), "{}");
      },
    ],
  };
  for (const [name, [why, prepare]] of Object.entries(cases)) {
    test(name, async () => {
      const storage = new MemoryStorage();
      await prepare(storage);
      const result = await find(storage);
      assert.equal(result.found, undefined);
      assert.match(result.why, why);
    });
  }
});

describe("right before the sentinel", () => {
  const sizes = new Map([["part_001.tar", 1]]);
  const cases: Record<string, [RegExp | undefined, (storage: MemoryStorage) => Promise<unknown>]> =
    {
      "all is as it was stored": [undefined, async () => {}],
      "another part has come": [
        /part_002.tar is none of its parts/,
        (storage) => put(storage, partKey(NAME, 2, "")),
      ],
      "a part is gone": [
        /part_001.tar is gone/,
        (storage) => storage.delete([partKey(NAME, 1, "")], { signal: SIGNAL }),
      ],
      "a part was overwritten": [
        /has 2 bytes, not the 1/,
        (storage) => put(storage, partKey(NAME, 1, ""), "xx"),
      ],
    };
  for (const [name, [message, disturb]] of Object.entries(cases)) {
    test(name, async () => {
      const storage = new MemoryStorage();
      const held = await claim(storage);
      await put(storage, partKey(NAME, 1, ""));
      await disturb(storage);
      const checked = held.requireParts(sizes);
      if (message === undefined) await checked;
      else await assert.rejects(checked, { name: "RefusedError", message });
    });
  }

  test("another run has taken the folder", async () => {
    const storage = new MemoryStorage();
    const held = await claim(storage);
    await put(storage, partKey(NAME, 1, ""));
    const world = { storage, clock: CLOCK, log: silentLog, signal: SIGNAL };
    const later = await RunClaim.take(NAME, FACTS, [held.key], world);
    await assert.rejects(held.requireParts(sizes), { message: /its claim was removed/ });
    await later.requireParts(sizes);
  });
});
