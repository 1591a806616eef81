import assert from "node:assert/strict";
import { readAll } from "../../src/io/bytes.ts";
import { openStorage } from "../../src/storage/open.ts";
import type { StorageConfig } from "../../src/storage/open.ts";
import type { Storage } from "../../src/storage/storage.ts";
import { patternBytes, patternSource, sha256 } from "../support/bodies.ts";
import { ConnectProxy } from "../support/connect-proxy.ts";
import { type FaultProxy, type FaultRule, first } from "../support/fault-proxy.ts";
import { keysOf, text, textOf } from "./contract-lists.ts";

/** A storage whose requests all go through the proxy. */
interface Behind {
  readonly storage: Storage;
  readonly proxy: FaultProxy;
}

type Matches = (method: string, url: string) => boolean;
type Fault = ReturnType<FaultRule>;

const signal = new AbortController().signal;
const KIB = 1024;
const MIB = 1024 * KIB;

/** A store that is busy twice has the object after the third request. */
export async function assertBusyIsRepeated(
  { storage, proxy }: Behind,
  { matches, busy, method }: { matches: Matches; busy: Fault; method: string },
): Promise<void> {
  proxy.rule = first(2, matches, busy);
  await storage.put("a", patternSource(2 * MIB), { signal });
  assert.equal(proxy.requests.filter((request) => request.method === method).length, 3);
  assert.ok((await readAll(storage.get("a", { signal }))).equals(patternBytes(2 * MIB)));
}

/** Objects of these sizes are stored although connections are reset in the middle of bodies. */
export async function assertResetsAreRepeated(
  { storage, proxy }: Behind,
  { matches, times, sizes }: { matches: Matches; times: number; sizes: readonly number[] },
): Promise<void> {
  for (const sizeBytes of sizes) {
    proxy.rule = first(times, matches, { resetAfterBytes: MIB });
    await storage.put("a", patternSource(sizeBytes), { signal });
    await assertStored(storage, "a", sizeBytes);
  }
}

/** The object has these many bytes of the pattern. */
export async function assertStored(storage: Storage, key: string, sizeBytes: number) {
  const stored = await sha256(storage.get(key, { signal }));
  assert.equal(stored, await sha256(patternSource(sizeBytes).open()), key);
}

/** Who hears that the object exists after a lost answer finds its own. */
export async function assertLostAnswerIsOurs({ storage, proxy }: Behind, matches: Matches) {
  proxy.rule = first(1, matches, { loseAnswer: true });
  const put = storage.put("a", text("mine"), { signal, ifAbsent: true });
  await assert.rejects(put, { name: "ObjectExistsError" });
  assert.equal(await textOf(storage, "a"), "mine");
}

/** A get that is cut every 600,000 bytes goes on behind the last one; answers with its ranges. */
export async function assertGetGoesOn({ storage, proxy }: Behind, matches: Matches) {
  await storage.put("a", patternSource(6 * MIB), { signal });
  proxy.rule = first(10, matches, { truncateAfterBytes: 600_000 });
  assert.ok((await readAll(storage.get("a", { signal }))).equals(patternBytes(6 * MIB)));
  const ranges = proxy.requests.filter(({ headers }) => headers.range !== undefined);
  assert.ok(ranges.length >= 5, `${ranges.length} continuations`);
  return ranges;
}

/** Each call ends by its deadline of 1 s, whatever the store does not answer. */
export async function assertSilenceEnds(
  { storage, proxy }: Behind,
  more: readonly (() => Promise<unknown>)[] = [],
): Promise<void> {
  proxy.rule = () => ({ hang: true });
  const calls = [
    () => storage.put("a", text("x"), { signal, ifAbsent: true }),
    () => storage.stat("a", { signal }),
    () => textOf(storage, "a"),
    () => keysOf(storage, ""),
    () => storage.delete(["a", "b"], { signal }),
    ...more,
  ];
  for (const call of calls) {
    await assert.rejects(call(), { name: "DeadlineError", message: /did not end within 1 s$/ });
  }
  assert.ok(proxy.requests.length >= 2 * calls.length, "each call tried several times");
}

/**
 * Many objects are put, listed, read and deleted while a part of the requests fails. `faultOf` is
 * asked with a number from 0 to 99: a fixed sequence that looks random, the same on each run.
 */
export async function assertRunLosesNothing(
  { storage, proxy }: Behind,
  count: number,
  faultOf: (dice: number) => Fault,
): Promise<void> {
  proxy.rule = ({ number }) => faultOf((number * 7919) % 100);
  const keys = Array.from({ length: count }, (_, index) => `run/${String(index).padStart(3, "0")}`);
  for (const key of keys) await storage.put(key, text(key), { signal, ifAbsent: true });
  assert.deepEqual(await keysOf(storage, "run/"), keys);
  for (const key of keys) assert.equal(await textOf(storage, key), key);
  await storage.delete(keys, { signal });
  assert.deepEqual(await keysOf(storage, "run/"), []);
}

/** A put of a large object ends by its deadline where nobody reads what is sent. */
export async function assertDeafnessEnds(storage: Storage, sizes: readonly number[]) {
  for (const sizeBytes of sizes) {
    await assert.rejects(storage.put("a", patternSource(sizeBytes), { signal }), {
      name: "DeadlineError",
    });
  }
}

/** The same address by a name that only a `ConnectProxy` knows. */
export function farAway(url: string): string {
  return url.replace(/127\.0\.0\.1|localhost/, "far-away");
}

/** A store that is `farAway` is reached through an HTTP proxy; answers with what that was asked. */
export async function assertAllIsProxied(config: StorageConfig): Promise<readonly string[]> {
  await using proxy = await ConnectProxy.start();
  await using storage = await openStorage(config, {
    signal,
    proxy: { http: proxy.url },
    requestTimeoutMs: 20_000,
    uploadConcurrency: 2,
  });
  await storage.put("a", patternSource(300 * KIB), { signal, ifAbsent: true });
  assert.equal((await storage.stat("a", { signal })).sizeBytes, 300 * KIB);
  assert.ok(proxy.passedBytes >= 300 * KIB, `${proxy.passedBytes} bytes went through`);
  return proxy.requests.map(({ line }) => line);
}
