import assert from "node:assert/strict";
import { createHash } from "node:crypto";
import { test } from "node:test";
import { readAll } from "../../src/io/bytes.ts";
import type { Storage } from "../../src/storage/storage.ts";
import {
  failingSource,
  patternBytes,
  patternSource,
  sha256,
  stallingSource,
} from "../support/bodies.ts";
import { describeLists, keysOf, putAll, text, textOf } from "./contract-lists.ts";
import type { Contract, ListContractOptions } from "./contract-lists.ts";

/** An empty storage for one test. */
export interface OpenedStorage {
  readonly storage: Storage;
  close(): Promise<void>;
}

export interface ContractOptions extends ListContractOptions {
  /** False where a create-only put is a look and then a write: then two writers may both win. */
  readonly isCreateAtomic?: boolean;
  /** True where an object of the same length within the same second is the same version. */
  readonly areVersionsCoarse?: boolean;
  /** False where a delete above or below an object's key is no delete of nothing. */
  readonly areFoldersPassedOver?: boolean;
  /** False where an object is away for a moment while it is replaced: then reads may fail. */
  readonly isReplaceAtomic?: boolean;
  /** False where a get that goes on while its object is replaced may give bytes of both. */
  readonly isGetOfOneVersion?: boolean;
}

const signal = new AbortController().signal;
const MIB = 1024 * 1024;

/** What every storage owes its callers: see the comment of `Storage`. */
export function storageContract(
  name: string,
  open: () => Promise<OpenedStorage>,
  options: ContractOptions = {},
): void {
  const contract = (title: string, body: (storage: Storage) => Promise<void>) => {
    test(`${name}: ${title}`, async () => {
      const opened = await open();
      try {
        await body(opened.storage);
      } finally {
        await opened.close();
      }
    });
  };

  describeObjects(contract, options);
  describeBodies(contract, options);
  describeFailures(contract);
  describeLists(contract, options);
  describeCreation(contract, options);
}

function describeObjects(
  contract: Contract,
  { areVersionsCoarse = false, areFoldersPassedOver = true }: ContractOptions,
): void {
  contract("what was put is seen at once, and replaced as a whole", async (storage) => {
    const before = Date.now();
    await storage.put("wal_005/one", text("first content"), { signal });
    assert.equal(await textOf(storage, "wal_005/one"), "first content");
    const info = await storage.stat("wal_005/one", { signal });
    assert.equal(info.key, "wal_005/one");
    assert.equal(info.sizeBytes, 13);
    assert.ok(Math.abs(info.modifiedAt.getTime() - before) < 60_000, info.modifiedAt.toISOString());

    await storage.put("wal_005/one", text("2nd"), { signal });
    assert.equal(await textOf(storage, "wal_005/one"), "2nd");
    const [listed, ...others] = await Array.fromAsync(storage.list("", { signal }));
    assert.deepEqual(others, []);
    assert.equal(listed?.key, "wal_005/one");
    assert.equal(listed?.sizeBytes, 3);
    assert.ok(Math.abs(listed.modifiedAt.getTime() - before) < 60_000);
    // A store need not tell a sum; one that is told is right.
    const { sum } = await storage.stat("wal_005/one", { signal });
    const md5 = createHash("md5").update("2nd").digest("hex");
    for (const told of [sum, listed.sum]) {
      if (told?.startsWith("md5:") === true) assert.equal(told, `md5:${md5}`);
    }
  });

  contract("a missing key is ObjectNotFoundError, and no error for delete", async (storage) => {
    await storage.put("wal_005/one", text("x"), { signal });
    for (const key of ["two", "wal_005", "wal_005/on", "wal_005/one/deeper", "wal_005/one.zst"]) {
      await assert.rejects(textOf(storage, key), { name: "ObjectNotFoundError" }, key);
      await assert.rejects(textOf(storage, key, 0, 0), { name: "ObjectNotFoundError" }, key);
      await assert.rejects(storage.stat(key, { signal }), { name: "ObjectNotFoundError" }, key);
      const isFolderKey = key === "wal_005" || key === "wal_005/one/deeper";
      if (areFoldersPassedOver || !isFolderKey) await storage.delete([key], { signal });
    }
    assert.equal(await textOf(storage, "wal_005/one"), "x");
  });

  contract("ranges are half-open and cut at the end", async (storage) => {
    await storage.put("ten", text("0123456789"), { signal });
    const rows: [number, number | undefined, string][] = [
      [0, undefined, "0123456789"],
      [0, 1, "0"],
      [3, 5, "34"],
      [9, undefined, "9"],
      [9, 10, "9"],
      [4, 4, ""],
      [8, 400, "89"],
      [10, undefined, ""],
      [10, 20, ""],
      [11, undefined, ""],
    ];
    for (const [start, end, expected] of rows) {
      assert.equal(await textOf(storage, "ten", start, end), expected, `[${start}, ${end})`);
    }
    await assert.rejects(textOf(storage, "ten", 5, 4), RangeError);
  });

  contract("get tells size and version first, and refuses another version", async (storage) => {
    await storage.put("a", text("first"), { signal });
    const opened: { sizeBytes: number; version?: string }[] = [];
    const onOpened = (object: { sizeBytes: number; version?: string }) => opened.push(object);
    await readAll(storage.get("a", { signal, onOpened, range: { start: 1, end: 2 } }));
    assert.equal(opened.length, 1);
    assert.equal(opened[0]?.sizeBytes, 5);
    const version = opened[0]?.version;
    assert.ok(version !== undefined);
    assert.equal(
      (await readAll(storage.get("a", { signal, ifVersion: version }))).toString(),
      "first",
    );

    await storage.put("a", text(areVersionsCoarse ? "longer" : "other"), { signal });
    await assert.rejects(readAll(storage.get("a", { signal, ifVersion: version })), {
      name: "StorageError",
      isRetryable: false,
    });
  });

  contract("keys that are no keys are refused", async (storage) => {
    const temporary = "a.tmp.20261121T064500Z-0123456789abcdef";
    const bad = ["", "/a", "a/", "a//b", ".", "a/../b", "..", "a/./b", "a\0b", "\ud800", temporary];
    for (const key of bad) {
      await assert.rejects(storage.put(key, text("x"), { signal }), /object key .* is refused: it/);
    }
    assert.deepEqual(await keysOf(storage, ""), []);
  });

  contract("delete takes many keys and leaves their neighbours", async (storage) => {
    const doomed = Array.from({ length: 25 }, (_, index) => `d/${index}`);
    await putAll(
      storage,
      [...doomed, "d", "d2/1", "c/1"].filter((key) => key !== "d"),
    );
    await storage.delete([...doomed, "d/none", "e/none"], { signal });
    assert.deepEqual(await keysOf(storage, ""), ["c/1", "d2/1"]);
    await storage.delete([], { signal });
    await storage.delete(["c/1", "d2/1"], { signal });
    assert.deepEqual(await keysOf(storage, ""), []);
    await putAll(storage, ["c/1"]);
    assert.deepEqual(await keysOf(storage, "c/"), ["c/1"]);
  });
}

function describeBodies(
  contract: Contract,
  { isReplaceAtomic = true, isGetOfOneVersion = true }: ContractOptions,
): void {
  const sizes = [0, 1, 5 * MIB - 1, 5 * MIB, 20 * MIB, 20 * MIB + 1, 40 * MIB];
  contract("streams of unknown length arrive as they were", async (storage) => {
    for (const sizeBytes of sizes) {
      await storage.put("a/stream", patternSource(sizeBytes, 7), { signal });
      assert.equal((await storage.stat("a/stream", { signal })).sizeBytes, sizeBytes);
      const stored = await sha256(storage.get("a/stream", { signal }));
      assert.equal(stored, await sha256(patternSource(sizeBytes, 7).open()), `${sizeBytes} bytes`);
    }
    const [start, end] = [19 * MIB, 21 * MIB + 5];
    const part = await readAll(storage.get("a/stream", { signal, range: { start, end } }));
    assert.ok(part.equals(patternBytes(40 * MIB, 7).subarray(start, end)), "a range over parts");
  });

  for (const sizeBytes of [3 * MIB, 23 * MIB]) {
    contract(`a put of ${sizeBytes} bytes tells how far it is, piece by piece`, async (storage) => {
      const told: number[] = [];
      const onSent = (sentBytes: number) => void told.push(sentBytes);
      await storage.put("a/told", patternSource(sizeBytes), { signal, onSent });
      const pieces = told.map((one, index) => one - (told[index - 1] ?? 0));
      assert.ok(Math.max(...pieces) <= 2 * MIB, `pieces of ${pieces.join()}`);
      // What goes with the end of an object need not be told, nor what goes around it.
      const [least, most] = [sizeBytes - MIB / 4, sizeBytes + MIB / 4];
      const last = told.at(-1) ?? 0;
      assert.ok(least <= last && last <= most, `${last} of ${sizeBytes}`);
    });
  }

  contract("an empty object is an object", async (storage) => {
    await storage.put("empty", text(""), { signal });
    assert.equal((await storage.stat("empty", { signal })).sizeBytes, 0);
    assert.equal(await textOf(storage, "empty"), "");
    assert.equal(await textOf(storage, "empty", 0, 10), "");
    assert.deepEqual(await keysOf(storage, ""), ["empty"]);
  });

  contract("readers find the old or the new object, never a mixture", async (storage) => {
    const sizes = [3 * MIB, 1 * MIB];
    const expected = new Set([
      await sha256(patternSource(3 * MIB, 0).open()),
      await sha256(patternSource(1 * MIB, 1).open()),
    ]);
    await storage.put("shared", patternSource(3 * MIB, 0), { signal });
    const writing = new AbortController();
    const write = async () => {
      for (let round = 1; round <= 8; round++) {
        await storage.put("shared", patternSource(sizes[round % 2] ?? 0, round % 2), { signal });
      }
      writing.abort();
    };
    const read = async () => {
      for (let count = 0; !writing.signal.aborted || count === 0; count++) {
        const reading = sha256(storage.get("shared", { signal }));
        const found = await (isReplaceAtomic ? reading : reading.catch(() => undefined));
        if (isGetOfOneVersion) assert.ok(found === undefined || expected.has(found), "a mixture");
      }
    };
    await Promise.all([write(), read(), read()]);
    assert.ok(expected.has(await sha256(storage.get("shared", { signal }))), "a mixture at rest");
  });
}

async function nothingVisible(storage: Storage): Promise<void> {
  assert.deepEqual(await keysOf(storage, ""), []);
  await assert.rejects(storage.stat("a/half", { signal }), { name: "ObjectNotFoundError" });
}

function describeFailures(contract: Contract): void {
  for (const sizeBytes of [10, 26 * MIB]) {
    contract(`an abort ${sizeBytes} bytes into a put leaves nothing`, async (storage) => {
      const controller = new AbortController();
      const reason = new Error("told to stop");
      const source = stallingSource(sizeBytes, () => controller.abort(reason));
      const put = storage.put("a/half", source, { signal: controller.signal });
      await assert.rejects(put, (error) => error === reason);
      await nothingVisible(storage);
    });

    contract(`a body that fails after ${sizeBytes} bytes leaves nothing`, async (storage) => {
      const failure = Object.assign(new Error("no such file"), { code: "ENOENT", errno: -2 });
      const put = storage.put("a/half", failingSource(sizeBytes, failure), { signal });
      await assert.rejects(put, (error) => error === failure);
      await nothingVisible(storage);
    });
  }

  contract("a failed put leaves the old object", async (storage) => {
    await storage.put("a/whole", text("old"), { signal });
    const put = storage.put("a/whole", failingSource(26 * MIB, new Error("gone")), { signal });
    await assert.rejects(put, /gone/);
    assert.equal(await textOf(storage, "a/whole"), "old");
  });

  contract("an aborted signal stops every call with its reason", async (storage) => {
    await storage.put("a", text("kept"), { signal });
    const reason = new Error("told to stop");
    const aborted = { signal: AbortSignal.abort(reason) };
    const calls = [
      storage.put("b", text("x"), aborted),
      storage.stat("a", aborted),
      storage.delete(["a"], aborted),
      readAll(storage.get("a", aborted)),
      Array.fromAsync(storage.list("", aborted)),
    ];
    for (const call of calls) await assert.rejects(call, (error) => error === reason);
    assert.deepEqual(await keysOf(storage, ""), ["a"]);
  });

  contract("an abort in the middle of a get ends it with the reason", async (storage) => {
    await storage.put("a", patternSource(12 * MIB), { signal });
    const controller = new AbortController();
    const reason = new Error("told to stop");
    const read = async () => {
      for await (const _ of storage.get("a", { signal: controller.signal }))
        controller.abort(reason);
    };
    await assert.rejects(read(), (error) => error === reason);
  });

  contract("a get or list that is left early harms nothing", async (storage) => {
    await storage.put("a", patternSource(12 * MIB), { signal });
    await storage.put("b", text("b"), { signal });
    for (let round = 0; round < 5; round++) {
      for await (const _ of storage.get("a", { signal })) break;
      for await (const _ of storage.list("", { signal })) break;
    }
    assert.equal(await textOf(storage, "b"), "b");
  });
}

function describeCreation(contract: Contract, { isCreateAtomic = true }: ContractOptions): void {
  for (const sizeBytes of [10, 26 * MIB]) {
    contract(`a create-only put of ${sizeBytes} bytes never replaces`, async (storage) => {
      await storage.put("wal_005/a", patternSource(sizeBytes, 1), { signal, ifAbsent: true });
      const again = storage.put("wal_005/a", patternSource(sizeBytes, 2), {
        signal,
        ifAbsent: true,
      });
      await assert.rejects(again, {
        name: "ObjectExistsError",
        message: `object wal_005/a already exists in ${storage.name}`,
      });
      const stored = await sha256(storage.get("wal_005/a", { signal }));
      assert.equal(stored, await sha256(patternSource(sizeBytes, 1).open()));
      assert.deepEqual(await keysOf(storage, ""), ["wal_005/a"]);
    });
  }

  if (!isCreateAtomic) return;
  contract("one of eight create-only puts wins", async (storage) => {
    for (const round of [1, 2, 3]) {
      const key = `race/${round}`;
      const puts = Array.from({ length: 8 }, (_, index) =>
        storage.put(key, patternSource(200_000, index), { signal, ifAbsent: true }),
      );
      const results = await Promise.allSettled(puts);
      const winners = results.flatMap(({ status }, index) =>
        status === "fulfilled" ? [index] : [],
      );
      assert.equal(winners.length, 1, `winners of round ${round}: ${winners.join(", ")}`);
      for (const result of results) {
        if (result.status === "rejected") assert.equal(result.reason.name, "ObjectExistsError");
      }
      const stored = await sha256(storage.get(key, { signal }));
      assert.equal(stored, await sha256(patternSource(200_000, winners[0]).open()));
    }
  });
}
