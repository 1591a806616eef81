/** A fork's segment in several stores: each situation ends as it does for any other segment. */
import assert from "node:assert/strict";
import { existsSync } from "node:fs";
import { mkdir, mkdtemp, readFile, rm } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { describe, test } from "node:test";
import { fetchWal } from "../../src/archive/fetch.ts";
import { fetchForkSegment } from "../../src/archive/fork-segment.ts";
import { codecOf } from "../../src/codec/table.ts";
import { StorageError } from "../../src/errors.ts";
import { bytesSource, readAll } from "../../src/io/bytes.ts";
import { systemClock } from "../../src/io/clock.ts";
import { silentLog } from "../../src/io/log.ts";
import { groupOfKey, isRewrittenKey, PROBE_FOLDER } from "../../src/layout/backup-group.ts";
import { lsn } from "../../src/postgres/lsn.ts";
import { segmentStart } from "../../src/postgres/wal-file.ts";
import { DirectoryStorage } from "../../src/storage/directory.ts";
import { openFailover } from "../../src/storage/failover-open.ts";
import type { Storage } from "../../src/storage/storage.ts";
import { HEALTH_RULES } from "../support/failover-world.ts";
import { SkippingClock } from "../support/fake-clock.ts";
import { FaultyStorage } from "../support/faulty-storage.ts";
import { mirroredStorage } from "../support/mirror.ts";
import { writeWal } from "../support/wal-writer.ts";
import { flipBit } from "./workbench.ts";

const { signal } = new AbortController();
const away = new StorageError("connection refused", { isRetryable: true });

const written = writeWal({ records: Array.from({ length: 200 }, () => ({ dataBytes: 3000 })) });
const [segment] = written.segments;
if (segment === undefined) throw new Error("no segment");
const { name, bytes: content } = segment;
const startLsn = segmentStart(1n, content.length);
const keptBytes = written.records[100]?.next ?? 0;
const end = { timeline: 2, startLsn, endLsn: lsn(startLsn + BigInt(keptBytes)) };
const cut = Buffer.from(content).fill(0, keptBytes);

const packed = await readAll(
  codecOf("zstd").compress(bytesSource(content).open(), { jobs: 1, signal }),
);
const damaged = flipBit(packed, packed.length >> 1);
const WHOLE = `wal_005/${name}.zst`;
const PARTIAL = `wal_005/${name}.partial.zst`;

/** Two directories that are one storage. */
interface Stores extends AsyncDisposable {
  readonly storage: Storage;
  readonly first: FaultyStorage;
  readonly second: FaultyStorage;
  readonly place: string;
}

type Opener = (stores: Pick<Stores, "first" | "second" | "place">) => Promise<Storage>;

const openers: Readonly<Record<string, Opener>> = {
  "a mirror": async ({ first: primary, second: mirror, place }) =>
    mirroredStorage({ primary, mirror, directory: join(place, "queue") }),
  "fail-over stores": async ({ first, second }) => {
    const stores = [first, second].map((store, index) => ({
      name: ["default", "b"][index] ?? "",
      title: store.name,
      settings: String(index),
      open: async () => store,
    }));
    return await openFailover(stores, {
      use: "all",
      health: HEALTH_RULES,
      keys: { groupOf: groupOfKey, isRewritten: isRewrittenKey },
      probeFolder: PROBE_FOLDER,
      cacheDirectory: undefined,
      retryPolicy: { attempts: 3, baseMs: 1, capMs: 1, totalMs: 60_000 },
      clock: new SkippingClock(),
      random: () => 0.5,
      log: silentLog,
      signal,
    });
  },
};

async function openStores(open: Opener): Promise<Stores> {
  const place = await mkdtemp(join(tmpdir(), "walnut-fork-copies-"));
  const openStore = async (folder: string): Promise<FaultyStorage> => {
    await mkdir(join(place, folder));
    return new FaultyStorage(new DirectoryStorage(join(place, folder), systemClock));
  };
  const [first, second] = [await openStore("first"), await openStore("second")];
  for (const store of [first, second]) {
    await store.put("walnut_005/cluster.json", bytesSource(Buffer.from("{}")), { signal });
  }
  const stores = { first, second, place };
  const storage = await open(stores);
  return {
    ...stores,
    storage,
    async [Symbol.asyncDispose]() {
      await storage[Symbol.asyncDispose]();
      await rm(place, { recursive: true, force: true });
    },
  };
}

interface Situation {
  readonly text: string;
  /** Objects of the first store and of the second. */
  readonly objects: readonly Readonly<Record<string, Buffer>>[];
  readonly fault?: (stores: Stores) => void;
  /** "given", or the name of the error. */
  readonly outcome: string;
  /** Where fail-over stores, which hold no copies, end otherwise; null where times decide. */
  readonly failoverOutcome?: string | null;
  /** What a StorageError says. */
  readonly message?: RegExp;
}

const UNPROVED = /^it is not known whether WAL file |^a list of .* failed in b: /;

const situations: readonly Situation[] = [
  {
    text: "damaged in the first store",
    objects: [{ [WHOLE]: damaged }, { [WHOLE]: packed }],
    outcome: "given",
    failoverOutcome: "DamagedError",
  },
  {
    text: "damaged in both",
    objects: [{ [WHOLE]: damaged }, { [WHOLE]: damaged }],
    outcome: "DamagedError",
  },
  {
    text: "damaged on its way, once",
    objects: [{ [WHOLE]: packed }, {}],
    fault: ({ first }) => void first.fault("get", 1, { kind: "corrupt", byte: packed.length >> 1 }),
    outcome: "given",
  },
  {
    text: "damaged, and another store that lacks it",
    objects: [{ [WHOLE]: damaged }, {}],
    outcome: "DamagedError",
  },
  {
    text: "damaged, with an unfinished one beside it",
    objects: [{ [WHOLE]: damaged, [PARTIAL]: packed }, { [WHOLE]: damaged }],
    outcome: "DamagedError",
  },
  {
    text: "unfinished and damaged in the first store",
    objects: [{ [PARTIAL]: damaged }, { [PARTIAL]: packed }],
    outcome: "given",
    failoverOutcome: null,
  },
  {
    text: "unfinished, while a store that may have it whole is away",
    objects: [{ [PARTIAL]: packed }, { [WHOLE]: packed }],
    fault: ({ second }) => void second.fault("list", "every", { kind: "fail", error: away }),
    outcome: "StorageError",
    message: UNPROVED,
  },
  {
    text: "nowhere, while a store is away",
    objects: [{}, {}],
    fault: ({ second }) => void second.fault("list", "every", { kind: "fail", error: away }),
    outcome: "StorageError",
    message: UNPROVED,
  },
  {
    text: "in a store that breaks off once",
    objects: [{ [WHOLE]: packed }, { [WHOLE]: packed }],
    fault: ({ first }) =>
      void first.fault("get", 1, { kind: "fail-after", count: 99, error: away }),
    outcome: "given",
  },
];

async function outcomeOf(
  destination: string,
  work: () => Promise<void>,
): Promise<{ readonly outcome: string; readonly message: string }> {
  try {
    await work();
    return { outcome: "given", message: "" };
  } catch (error) {
    assert.ok(error instanceof Error);
    assert.ok(!existsSync(destination), "it was written all the same");
    return { outcome: error.name, message: error.message };
  }
}

for (const [kind, open] of Object.entries(openers)) {
  describe(kind, () => {
    for (const { text, objects, fault, message, ...situation } of situations) {
      const { outcome: mirrored, failoverOutcome = mirrored } = situation;
      const outcome = kind === "a mirror" ? mirrored : failoverOutcome;
      if (outcome === null) continue;
      for (const isFork of [true, false]) {
        test(`${isFork ? "the fork's segment" : "any segment"}: ${text}`, async () => {
          await using stores = await openStores(open);
          for (const [index, store] of [stores.first, stores.second].entries()) {
            for (const [key, bytes] of Object.entries(objects[index] ?? {})) {
              await store.put(key, bytesSource(bytes), { signal });
            }
          }
          fault?.(stores);
          const { storage, place } = stores;
          const destination = join(place, "RECOVERYXLOG");
          const options = { codecJobs: 1, timeoutMs: 60_000, log: silentLog, signal };
          const cacheDirectory = join(place, "cache");
          const found = await outcomeOf(destination, () =>
            isFork
              ? fetchForkSegment(storage, { name, destination, end }, options)
              : fetchWal(storage, name, destination, { ...options, cacheDirectory }),
          );
          assert.equal(found.outcome, outcome, found.message);
          if (message !== undefined) assert.match(found.message, message);
          if (outcome !== "given") return;
          assert.ok((await readFile(destination)).equals(isFork ? cut : content));
        });
      }
    }
  });
}
