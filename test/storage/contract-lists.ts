import assert from "node:assert/strict";
import { readdir, writeFile } from "node:fs/promises";
import { join } from "node:path";
import { bytesSource, readAll } from "../../src/io/bytes.ts";
import type { ByteSource } from "../../src/io/bytes.ts";
import { compareKeys } from "../../src/storage/key.ts";
import type { ListOptions, ObjectInfo, Storage } from "../../src/storage/storage.ts";
import { patternBytes, patternSource } from "../support/bodies.ts";
import type { FaultProxy } from "../support/fault-proxy.ts";

export interface ListContractOptions {
  /** More than fit in one page of a list: 1,001 unless given. */
  readonly keyCount?: number;
  /** Whether the store takes "\\" for "/", so that no key may have it. */
  readonly refusesBackslash?: boolean;
  /** False where a prefix of "." or ".." is an error instead of an empty list. */
  readonly areDotPrefixesListed?: boolean;
}

/** Makes one test of the suite: a title, and what it does with an empty storage. */
export type Contract = (title: string, body: (storage: Storage) => Promise<void>) => void;

const signal = new AbortController().signal;

/** The keys that `list` yields, in its order. */
export async function keysOf(storage: Storage, prefix: string, options: Partial<ListOptions> = {}) {
  const infos = await Array.fromAsync(storage.list(prefix, { signal, ...options }));
  return infos.map((info: ObjectInfo) => info.key);
}

/** An object, or `[start, end)` of it, as text. */
export async function textOf(storage: Storage, key: string, start?: number, end?: number) {
  const range =
    start === undefined ? {} : { range: { start, ...(end === undefined ? {} : { end }) } };
  return (await readAll(storage.get(key, { signal, ...range }))).toString();
}

/** A body of these characters in UTF-8. */
export function text(value: string): ByteSource {
  return bytesSource(Buffer.from(value));
}

/** Puts small objects, several at a time; each holds its own key. */
export async function putAll(storage: Storage, keys: readonly string[]): Promise<void> {
  const queue = [...keys];
  const worker = async () => {
    for (let key = queue.pop(); key !== undefined; key = queue.pop()) {
      await storage.put(key, text(key), { signal });
    }
  };
  await Promise.all(Array.from({ length: 8 }, worker));
}

/** The first answer to each of some reads is a page of some proxy that says 200: asked again. */
export async function assertPagesAreNoObjects(storage: Storage, proxy: FaultProxy): Promise<void> {
  await storage.put("there", text("content"), { signal });
  const answer = { status: 200, body: "<html>Please log in</html>" };
  const afterPage = async <T>(read: () => Promise<T>): Promise<T> => {
    let isDue = true;
    proxy.rule = () => {
      const fault = isDue ? { answer } : undefined;
      isDue = false;
      return fault;
    };
    return await read();
  };
  assert.equal((await afterPage(() => storage.stat("there", { signal }))).sizeBytes, 7);
  assert.equal(await afterPage(() => textOf(storage, "there")), "content");
  assert.equal(await afterPage(() => textOf(storage, "there", 3, 5)), "te");
  const missing = { name: "ObjectNotFoundError" };
  await assert.rejects(
    afterPage(() => storage.stat("missing", { signal })),
    missing,
  );
  await assert.rejects(
    afterPage(() => textOf(storage, "missing")),
    missing,
  );
}

/** Of bytes that changed on their way no small object gives any, and a large one ends in an error. */
export async function assertChangesAreNoticed(
  storage: Storage,
  proxy: FaultProxy,
  sumName: string,
): Promise<void> {
  await storage.put("small", patternSource(100_000), { signal });
  await storage.put("large", patternSource(2_000_000), { signal });
  const change = (times: number): void => {
    let left = times;
    proxy.rule = ({ method }) =>
      method === "GET" && left-- > 0 ? { corruptByte: 50_000 } : undefined;
  };
  change(1);
  const small = await readAll(storage.get("small", { signal }));
  assert.ok(small.equals(patternBytes(100_000)), "asked for again");
  const wrong = { name: "StorageError", message: new RegExp(`does not have its ${sumName} sum$`) };
  change(1);
  await assert.rejects(readAll(storage.get("large", { signal })), wrong);
  change(Infinity);
  await assert.rejects(readAll(storage.get("small", { signal })), wrong);
  proxy.rule = () => undefined;
}

/** Segments that stores, URLs, XML and sorting tend to spoil. */
const ODD_SEGMENTS = [
  "a b",
  " leading",
  "trailing ",
  "two  blanks",
  "a+b",
  "a%20b",
  "a%2Fb",
  "a&b<c>'d\"",
  "a=b,c;d:e@f",
  "a~b!c*(d)",
  "a#b?c",
  "back\\slash",
  "ümlaut",
  "漢字",
  "\u{1f418} elephant",
  "\uffee half",
  ".hidden",
  "..two dots",
  "x".repeat(200),
];

/** Order, prefixes, positions and pages of `list`; `keyCount` is more than fit in one page. */
export function describeLists(
  contract: Contract,
  { keyCount = 1001, refusesBackslash = false, areDotPrefixesListed = true }: ListContractOptions,
): void {
  const isRefused = (segment: string) => refusesBackslash && segment.includes("\\");
  contract("keys of odd characters come back in byte order", async (storage) => {
    for (const segment of ODD_SEGMENTS.filter(isRefused)) {
      const put = storage.put(segment, text("x"), { signal });
      await assert.rejects(put, { name: "StorageError", isRetryable: false });
      await storage.put(segment.replaceAll("\\", "/"), text("x"), { signal });
      await assert.rejects(storage.stat(segment, { signal }), { name: "ObjectNotFoundError" });
      await assert.rejects(textOf(storage, segment), { name: "ObjectNotFoundError" });
      await storage.delete([segment], { signal });
      assert.equal(await textOf(storage, segment.replaceAll("\\", "/")), "x");
      await storage.delete([segment.replaceAll("\\", "/")], { signal });
    }
    const keys = ODD_SEGMENTS.filter((segment) => !isRefused(segment)).flatMap((segment) => [
      `odd/${segment}`,
      `odd/in ${segment}/${segment}`,
    ]);
    keys.push("odd/f", "odd/f.x", "odd/f0", "odd/g/x", "odd/g-x", "odd/g0", "odd/g!/y");
    await putAll(storage, keys);
    const expected = keys.toSorted((a, b) => Buffer.compare(Buffer.from(a), Buffer.from(b)));
    assert.deepEqual(await keysOf(storage, "odd/"), expected);
    for (const key of keys) {
      assert.equal(await textOf(storage, key), key);
      assert.equal((await storage.stat(key, { signal })).sizeBytes, Buffer.byteLength(key), key);
    }
    const middle = Math.floor(expected.length / 2);
    const rest = await keysOf(storage, "odd/", { startAfter: expected[middle] ?? "" });
    assert.deepEqual(rest, expected.slice(middle + 1));
    await storage.delete(keys, { signal });
    assert.deepEqual(await keysOf(storage, ""), []);
  });

  contract("a prefix is text, not a folder", async (storage) => {
    await putAll(storage, ["wal_005/a", "wal_005/ab", "wal_005/b/c", "wal_0050", "wal"]);
    const rows: [string, string[]][] = [
      ["wal_005/a", ["wal_005/a", "wal_005/ab"]],
      ["wal_005", ["wal_005/a", "wal_005/ab", "wal_005/b/c", "wal_0050"]],
      ["wal_005/", ["wal_005/a", "wal_005/ab", "wal_005/b/c"]],
      ["wal_005/b", ["wal_005/b/c"]],
      ["wal_005/b/", ["wal_005/b/c"]],
      ["wal_005/b/c", ["wal_005/b/c"]],
      ["wal_005/b/c/", []],
      ["missing/folder/", []],
      ["missing", []],
      ["", ["wal", "wal_005/a", "wal_005/ab", "wal_005/b/c", "wal_0050"]],
    ];
    if (areDotPrefixesListed) rows.push(["../", []]);
    for (const [prefix, expected] of rows) {
      assert.deepEqual(await keysOf(storage, prefix), expected, prefix);
    }
  });

  contract("startAfter need not exist and may lie anywhere", async (storage) => {
    const keys = ["a", "b/1", "b/2", "b/3/x", "b/4", "c"];
    await putAll(storage, keys);
    const starts = ["", "a", "b", "b/", "b/2", "b/25", "b/3/", "b/3/x", "b/3/y", "c", "d"];
    for (const startAfter of starts) {
      for (const prefix of ["", "b", "b/", "b/3"]) {
        const expected = keys.filter((key) => key.startsWith(prefix) && key > startAfter);
        const found = await keysOf(storage, prefix, startAfter === "" ? {} : { startAfter });
        assert.deepEqual(found, expected, `${prefix} after ${startAfter}`);
      }
    }
  });

  contract(`${keyCount} keys are listed and deleted over the page's border`, async (storage) => {
    const names = Array.from({ length: keyCount }, (_, index) => `many/${index}`);
    const keys = names.toSorted(compareKeys);
    await putAll(storage, [...keys, "many0", "man"]);
    assert.deepEqual(await keysOf(storage, "many/"), keys);
    const startAfter = keys.at(-2) ?? "";
    assert.deepEqual(await keysOf(storage, "many/", { startAfter }), keys.slice(-1));
    await storage.delete(keys, { signal });
    assert.deepEqual(await keysOf(storage, ""), ["man", "many0"]);
  });
}

/** A file that a put left half-written in a directory of files is told and removed, no more. */
export async function assertHalfWrittenIsTold(storage: Storage, directory: string): Promise<void> {
  await storage.put("a/b", text("x"), { signal });
  const name = "c.zst.tmp.20261121T064500Z-0123456789abcdef";
  await writeFile(join(directory, "a", name), "half");
  assert.deepEqual(await keysOf(storage, ""), ["a/b"]);
  const { upkeep } = storage;
  assert.ok(upkeep !== undefined);
  const found = await Array.fromAsync(upkeep.listUnfinished("a/", { signal }));
  const startedAt = new Date("2026-11-21T06:45:00Z");
  assert.deepEqual(found, [{ key: "a/c.zst", id: name, startedAt }]);
  assert.deepEqual(await Array.fromAsync(upkeep.listUnfinished("b/", { signal })), []);
  for (const put of [...found, ...found]) await upkeep.removeUnfinished(put, { signal });
  assert.deepEqual(await readdir(join(directory, "a")), ["b"]);
}
