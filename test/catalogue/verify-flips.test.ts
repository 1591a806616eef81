import assert from "node:assert/strict";
import { test } from "node:test";
import { type VerifyOptions, verifyRepository } from "../../src/catalogue/verify.ts";
import { bytesSource } from "../../src/io/bytes.ts";
import { systemClock } from "../../src/io/clock.ts";
import type { MemoryStorage } from "../support/memory-storage.ts";
import { type Random, seededRandom } from "../support/random.ts";
import { putSyntheticRepository } from "../support/synthetic-repository.ts";

const FLIPS = process.env["WALNUT_LONG"] === undefined ? 10 : 200;
const options: VerifyOptions = {
  level: "full",
  jobs: 4,
  codecJobs: 1,
  isRelearning: false,
  clock: systemClock,
  onProgress: () => {},
  signal: AbortSignal.timeout(600_000),
};

async function put(storage: MemoryStorage, key: string, bytes: Buffer): Promise<void> {
  await storage.put(key, bytesSource(bytes), { signal: options.signal });
}

function copyOf(storage: MemoryStorage): ReadonlyMap<string, Buffer> {
  return new Map(
    storage.keys.map((key) => [key, Buffer.from(storage.bytesOf(key) ?? Buffer.alloc(0))]),
  );
}

/** In turn: every object as likely as any other, every byte as likely as any other. */
function pickKey(objects: ReadonlyMap<string, Buffer>, random: Random, index: number): string {
  const keys = [...objects.keys()];
  if (index % 2 === 0) return keys[Math.floor(random.next() * keys.length)] ?? "";
  const total = [...objects.values()].reduce((sum, { length }) => sum + length, 0);
  let left = random.next() * total;
  return keys.find((key) => (left -= objects.get(key)?.length ?? 0) < 0) ?? "";
}

/** Nothing but an earlier proof tells what stood in a text without any checksum. */
function withoutBareHistories(objects: ReadonlyMap<string, Buffer>): ReadonlyMap<string, Buffer> {
  return new Map([...objects].filter(([key]) => !/\.history(\.br|\.lzma)?$/.test(key)));
}

for (const memory of ["with", "without"] as const) {
  test(`verify --full finds a flipped bit anywhere, ${memory} an earlier proof`, async () => {
    const random = seededRandom();
    const storage = await putSyntheticRepository(random);
    if (memory === "with") {
      for (const round of [1, 2]) {
        const { findings } = await verifyRepository(storage, options);
        assert.deepEqual(findings, [], `clean, round ${round}`);
      }
    }
    const objects = copyOf(storage);
    const flipped = memory === "with" ? objects : withoutBareHistories(objects);
    for (let index = 0; index < FLIPS; index += 1) {
      const key = pickKey(flipped, random, index);
      const bytes = Buffer.from(objects.get(key) ?? Buffer.alloc(0));
      const at = Math.floor(random.next() * bytes.length);
      const bit = Math.floor(random.next() * 8);
      bytes[at] = (bytes[at] ?? 0) ^ (1 << bit);
      await put(storage, key, bytes);
      const { findings } = await verifyRepository(storage, options);
      const what = `seed ${random.seed}: bit ${bit} of byte ${at} of ${key} (${bytes.length} bytes)`;
      assert.ok(
        findings.some(({ kind }) => kind !== "note"),
        what,
      );
      for (const [known, content] of objects) await put(storage, known, content);
      if (memory === "without") {
        const fresh = storage.keys.filter((found) => !objects.has(found));
        await storage.delete(fresh, { signal: options.signal });
      }
    }
  });
}
