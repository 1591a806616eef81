import assert from "node:assert/strict";
import { describe, test } from "node:test";
import { fc } from "../support/property.ts";
import { readCatalogue } from "../../src/catalogue/catalogue.ts";
import { CommitFinder } from "../../src/catalogue/commit-finder.ts";
import { type VerifyOptions, verifyRepository } from "../../src/catalogue/verify.ts";
import {
  addProof,
  formatVerifyMemory,
  NOTHING_PROVED,
  parseVerifyMemory,
  type ProvedRun,
} from "../../src/catalogue/verify-memory.ts";
import { chooseSample, type VerifyItem } from "../../src/catalogue/verify-plan.ts";
import { walView } from "../../src/catalogue/wal-view.ts";
import { verify } from "../../src/commands/verify.ts";
import { StorageAccessError, StorageError } from "../../src/errors.ts";
import { bytesSource } from "../../src/io/bytes.ts";
import { systemClock } from "../../src/io/clock.ts";
import { createHasher } from "../../src/io/hash.ts";
import { parseSegmentName } from "../../src/postgres/wal-file.ts";
import { runCommand } from "../support/command-run.ts";
import { FakeClock } from "../support/fake-clock.ts";
import { MemoryStorage } from "../support/memory-storage.ts";
import { postgresBytes, postgresFacts } from "../support/postgres-fixtures.ts";
import { seededRandom } from "../support/random.ts";
import { putSyntheticRepository } from "../support/synthetic-repository.ts";

const signal = AbortSignal.timeout(300_000);
const options: VerifyOptions = {
  level: "quick",
  jobs: 4,
  codecJobs: 1,
  isRelearning: false,
  clock: systemClock,
  onProgress: () => {},
  signal,
};

/** Made once: to compress with every codec takes longer than to check. */
const original = putSyntheticRepository(seededRandom());

async function freshRepository(): Promise<MemoryStorage> {
  const source = await original;
  const storage = new MemoryStorage();
  for (const key of source.keys) {
    await storage.put(key, bytesSource(Buffer.from(source.bytesOf(key) ?? [])), { signal });
  }
  return storage;
}

describe("a quick verify", () => {
  const cases = [
    {
      name: "a part that is gone",
      gone: /00000022\/tar_partitions\/part_002/,
      kinds: ["missing"],
      text: /the manifest lists it/,
    },
    {
      name: "a segment that a backup needs",
      gone: /wal_005\/000000010000000000000022/,
      kinds: ["missing", "hole"],
      text: /needs to become consistent/,
    },
    {
      name: "a sentinel's metadata that is another's",
      swapped: [/00000021\/metadata.json/, /00000022\/metadata.json/],
      kinds: ["damaged", "damaged"],
      text: /start_lsn is not that of the sentinel/,
    },
    {
      name: "our manifest of another backup",
      swapped: [/00000021\/walnut_manifest/, /00000022\/walnut_manifest/],
      kinds: ["damaged"],
      text: /is that of base_000000010000000000000022/,
    },
  ];
  for (const { name, gone, swapped, kinds, text } of cases) {
    test(`finds ${name}`, async () => {
      const storage = await freshRepository();
      const keyOf = (pattern: RegExp | undefined) =>
        storage.keys.find((key) => pattern?.test(key) === true) ?? "";
      if (gone !== undefined) await storage.delete([keyOf(gone)], { signal });
      const other = storage.bytesOf(keyOf(swapped?.[1]));
      if (other !== undefined)
        await storage.put(keyOf(swapped?.[0]), bytesSource(other), { signal });
      const { findings } = await verifyRepository(storage, options);
      const faults = findings.filter(({ kind }) => kind !== "note");
      for (const kind of kinds)
        assert.ok(
          faults.some((fault) => fault.kind === kind),
          kind,
        );
      assert.ok(
        faults.some((fault) => text.test(fault.text)),
        JSON.stringify(faults),
      );
    });
  }

  test("of a repository without damage ends with 0, with damage not", async () => {
    const storage = await freshRepository();
    const { stdout } = await runCommand(verify, storage, ["--quick"]);
    assert.match(stdout, /^store checksums .*\nverified names and documents: 5 backups, .*: OK\n$/);
    await storage.delete([storage.keys.find((key) => key.includes("part_001")) ?? ""], { signal });
    await assert.rejects(runCommand(verify, storage, ["--quick"]), {
      name: "UnsoundError",
      message: "verify found 1 fault",
    });
  });
});

describe("a place without backups and WAL", () => {
  for (const flags of [["--quick"], [], ["--full"], ["--json"]]) {
    test(`is not sound, and stays as it is: verify ${flags.join(" ")}`, async () => {
      const storage = new MemoryStorage();
      const refused = {
        name: "RefusedError",
        message: "there is no backup and no WAL in memory://test",
        hint: /prefix/,
      };
      await assert.rejects(runCommand(verify, storage, flags), refused);
      assert.deepEqual(storage.keys, []);
      // What walnut itself noted is nothing that could be restored.
      for (const key of ["walnut_005/cluster.json", "elsewhere/basebackups_005/x"]) {
        await storage.put(key, bytesSource(Buffer.from("{}")), { signal });
      }
      await assert.rejects(runCommand(verify, storage, flags), refused);
      assert.equal(storage.keys.length, 2);
    });
  }
});

function isPayload(key: string): boolean {
  return /tar_partitions|^wal_005\/[0-9A-F]{24}(\.\w+)?$/.test(key);
}

/** What the JSON of a quick verify says of checksums. */
async function countsOf(storage: MemoryStorage): Promise<string | undefined> {
  const { stdout } = await runCommand(verify, storage, ["--quick", "--json"]);
  return /"store_checksums": (\{[^}]*\})/.exec(stdout)?.[1]?.replaceAll(/\s/g, "");
}

describe("a quick verify where the store tells checksums", () => {
  test("says of what it knows none, and of what the store tells none", async () => {
    const storage = await freshRepository();
    const count = storage.keys.filter(isPayload).length;
    const zeros = '{"same":0,"changed":0,"not_read_before":0,"not_told":0}';
    const only = (member: string) => zeros.replace(`"${member}":0`, `"${member}":${count}`);
    assert.equal(await countsOf(storage), only("not_told"));
    storage.tellsSums = true;
    assert.equal(await countsOf(storage), only("not_read_before"));
    await verifyRepository(storage, { ...options, level: "full" });
    assert.equal(await countsOf(storage), only("same"));
    const { stdout } = await runCommand(verify, storage, ["--quick"]);
    assert.match(stdout, new RegExp(`parts and segments: ${count} are as they were when walnut`));
    // Sizes are another kind of sum: what was read in a store that tells more is not comparable.
    storage.tellsSums = false;
    assert.equal(await countsOf(storage), only("not_told"));
  });

  test("finds one changed bit in parts and segments, as it reads what changed", async () => {
    const storage = await freshRepository();
    storage.tellsSums = true;
    await verifyRepository(storage, { ...options, level: "full" });
    const some = storage.keys.filter(isPayload).filter((_, index) => index % 7 === 0);
    for (const key of some) {
      const bytes = storage.bytesOf(key);
      assert.ok(bytes !== undefined);
      const at = bytes.length >> 1;
      bytes.writeUInt8(bytes.readUInt8(at) ^ 1, at);
      const { findings, read } = await verifyRepository(storage, options);
      const subjects = findings.filter(({ kind }) => kind === "damaged");
      assert.ok(subjects.length > 0 && subjects.every(({ subject }) => subject === key), key);
      assert.ok(read.bytes > 0);
      bytes.writeUInt8(bytes.readUInt8(at) ^ 1, at);
    }
    const { findings } = await verifyRepository(storage, options);
    assert.deepEqual(findings, []);
  });

  test("says so when there is too much to read again", async () => {
    const storage = await freshRepository();
    storage.tellsSums = true;
    await verifyRepository(storage, { ...options, level: "full" });
    const parts = storage.keys.filter((key) => key.includes("tar_partitions/part_"));
    for (const key of parts) {
      const bytes = storage.bytesOf(key);
      bytes?.writeUInt8(bytes.readUInt8(9) ^ 1, 9);
    }
    const { findings } = await verifyRepository(storage, { ...options, budgetBytes: 1 });
    assert.equal(findings.length, 2);
    assert.match(
      findings[1]?.text ?? "",
      new RegExp(`of it and ${parts.length - 2} others than when it was read; too much`),
    );
  });

  test("takes what was stored anew and is the same for what it is", async () => {
    const storage = await freshRepository();
    const full = { ...options, level: "full" } as const;
    storage.tellsSums = true;
    await verifyRepository(storage, full);
    // As after a copy by another tool, which gives objects ETags of another kind.
    const list = storage.list.bind(storage);
    storage.list = async function* (prefix, listOptions) {
      for await (const info of list(prefix, listOptions)) {
        yield { ...info, sum: `md5:${"0".repeat(32)}` };
      }
    };
    const first = await verifyRepository(storage, options);
    assert.deepEqual(first.findings, []);
    assert.ok(first.marks.changed > 0 && first.read.bytes > 0);
    const second = await verifyRepository(storage, options);
    assert.deepEqual([second.marks.changed, second.read.bytes], [0, 0]);
  });
});

/** A millisecond passes whenever something was read. */
class SteppingClock extends FakeClock {
  #steps = 0;

  step(): void {
    this.#steps += 1;
  }

  override now(): number {
    return super.now() + this.#steps;
  }
}

describe("a sample", () => {
  test("of any budget proves everything in the end", async () => {
    const storage = await freshRepository();
    const sample = { ...options, level: "sample", budgetBytes: 400_000 } as const;
    let rounds = 0;
    for (let isProved = false; !isProved; rounds += 1) {
      const { findings, oldestProofMs } = await verifyRepository(storage, sample);
      assert.deepEqual(findings, []);
      isProved = oldestProofMs !== 0;
      assert.ok(rounds < 50);
    }
    assert.ok(rounds > 1);
  });

  test("of any time proves everything in the end, WAL as well as parts", async () => {
    for (const [budgetMs, jobs] of [
      [0, 4],
      [4, 1],
    ] as const) {
      const storage = await freshRepository();
      const others = storage.keys.filter((key) => /005\/base_0{8}1\d{14}2[1-4]/.test(key));
      await storage.delete(others, { signal });
      const clock = new SteppingClock();
      const onProgress = () => clock.step();
      const sample = { ...options, level: "sample", budgetMs, clock, onProgress, jobs } as const;
      let rounds = 0;
      for (let isProved = false; !isProved; rounds += 1) {
        const { findings, read, there, oldestProofMs } = await verifyRepository(storage, sample);
        assert.deepEqual(findings, []);
        assert.ok(read.bytes > 0 && read.bytes < there.bytes);
        isProved = oldestProofMs !== 0;
        assert.ok(rounds < 50);
      }
      assert.ok(rounds > 1);
    }
  });

  for (const error of [
    new StorageAccessError("read only"),
    new StorageError("no space left", { isRetryable: false }),
  ]) {
    test(`where nothing can be written (${error.message}) says so, and is no failure`, async () => {
      const storage = await freshRepository();
      storage.put = () => Promise.reject(error);
      const { stdout } = await runCommand(verify, storage, []);
      assert.match(
        stdout,
        /note .*verified.json what was proved can't be kept: (read only|no space)/,
      );
      assert.match(stdout, /: OK\n$/);
    });
  }

  test("takes what was never proved first, then the oldest proof, and keeps to its budget", () => {
    const items = fc.uniqueArray(
      fc.record({ part: fc.string({ minLength: 1 }), sizeBytes: fc.nat({ max: 100 }) }),
      { selector: ({ part }) => part, minLength: 1 },
    );
    fc.assert(
      fc.property(
        items,
        fc.array(fc.nat({ max: 5 })),
        fc.nat({ max: 500 }),
        fc.nat({ max: 3 }),
        (some, times, budget, suspectCount) => {
          const all = some.map((one, place): VerifyItem => ({
            kind: "part",
            backup: "b",
            place,
            mark: 0,
            ...one,
          }));
          const partsAtMs = new Map(some.map(({ part }, index) => [part, times[index] ?? 0]));
          const backups = new Map([["b", { allAtMs: undefined, partsAtMs }]]);
          const memory = { ...NOTHING_PROVED, backups };
          const suspects = new Set(all.slice(0, suspectCount));
          const chosen = chooseSample(all, { memory, suspects }, budget);
          const sum = chosen.reduce((bytes, { sizeBytes }) => bytes + sizeBytes, 0);
          assert.ok(chosen.length === 1 || sum <= budget);
          const ageOf = (item: VerifyItem) => {
            if (suspects.has(item)) return -1;
            return item.kind === "part" ? (partsAtMs.get(item.part) ?? 0) : 0;
          };
          const oldest = Math.min(...all.map(ageOf));
          assert.equal(chosen[0] === undefined ? -2 : ageOf(chosen[0]), oldest);
        },
      ),
    );
  });
});

describe("the memory of what was proved", () => {
  const runs: fc.Arbitrary<readonly ProvedRun[]> = fc.array(
    fc
      .record({
        timeline: fc.integer({ min: 1, max: 2 }),
        first: fc.nat({ max: 30 }),
        length: fc.nat({ max: 8 }),
        atMs: fc.nat({ max: 3 }),
      })
      .map(({ timeline, first, length, atMs }) => ({
        timeline,
        first,
        last: first + length,
        atMs,
      })),
  );

  test("holds for each segment the newest proof that was added", () => {
    fc.assert(
      fc.property(runs, (proofs) => {
        const expected = new Map<string, number>();
        let wal: readonly ProvedRun[] = [];
        for (const proof of proofs) {
          wal = addProof(wal, [proof]);
          for (let number = proof.first; number <= proof.last; number += 1) {
            expected.set(`${proof.timeline}/${number}`, proof.atMs);
          }
        }
        const actual = new Map<string, number>();
        for (const { timeline, first, last, atMs } of wal) {
          for (let number = first; number <= last; number += 1) {
            assert.ok(!actual.has(`${timeline}/${number}`));
            actual.set(`${timeline}/${number}`, atMs);
          }
        }
        assert.deepEqual(actual, expected);
      }),
    );
  });

  test("is read as it was written", async () => {
    const hasher = await createHasher("xxh64");
    const memory = {
      documents: new Map([["a/b", { sizeBytes: 5, xxh64: "0123456789abcdef" }]]),
      backups: new Map([
        ["base_1", { allAtMs: 5, partsAtMs: new Map<string, number>() }],
        ["base_2", { allAtMs: undefined, partsAtMs: new Map([["part_001.tar", 7]]) }],
      ]),
      wal: [{ timeline: 1, first: 2, last: 9, atMs: 3 }],
      marks: new Map([["base_1", "0000000120000001"]]),
    };
    const bytes = formatVerifyMemory(memory, hasher);
    assert.deepEqual(parseVerifyMemory(bytes, hasher), memory);
    bytes[5] = 0x41;
    assert.throws(() => parseVerifyMemory(bytes, hasher), { name: "FormatError" });
  });
});

test("the commits of an unfinished segment count where a restore would be given it", async () => {
  const { first, middle, last } = postgresFacts(17).segments;
  const storage = new MemoryStorage();
  for (const [name, key] of [
    [first, first],
    [middle, middle],
    [last, `${last}.partial`],
  ] as const) {
    await storage.put(`wal_005/${key}`, bytesSource(postgresBytes(17, name)), { signal });
  }
  const catalogue = await readCatalogue(storage, { signal });
  const place = { catalogue, view: walView(catalogue) };
  const finder = await CommitFinder.open(storage, place, { jobs: 1, codecJobs: 1, signal });
  const { timeline, segmentNumber } = parseSegmentName(last, place.view.segmentBytes);
  const history = { timeline, ancestors: [] };
  const found = await finder.partialCommits(history, Number(segmentNumber));
  assert.ok((found?.count ?? 0) > 0);
  assert.equal(await finder.partialCommits(history, Number(segmentNumber) + 1), undefined);
});
