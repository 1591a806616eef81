/** What each store says happens to a delete of an object that it holds. */
import assert from "node:assert/strict";
import http from "node:http";
import { test } from "node:test";
import { DeferredStorage } from "../../src/storage/deferred.ts";
import { openStorage } from "../../src/storage/open.ts";
import { PrefixedStorage } from "../../src/storage/prefixed.ts";
import type { HeldDelete, Upkeep } from "../../src/storage/storage.ts";
import { azureConfig } from "../support/azurite.ts";
import { FailoverWorld } from "../support/failover-world.ts";
import { gcsConfig } from "../support/gcs-emulation.ts";
import { MemoryStorage } from "../support/memory-storage.ts";
import { closeHttp, listen } from "../support/listening.ts";

const { signal } = new AbortController();
const options = {
  signal,
  requestTimeoutMs: 60_000,
  uploadConcurrency: 1,
  retryPolicy: { attempts: 2, baseMs: 1, capMs: 1, totalMs: 60_000 },
};

interface Answer {
  readonly status: number;
  readonly headers?: Readonly<Record<string, string>>;
  readonly body?: string;
}

/** A server that says this to everything. */
async function saying({ status, headers = {}, body = "" }: Answer) {
  const server = http.createServer((_, response) => {
    response.writeHead(status, headers);
    response.end(body);
  });
  const port = await listen(server);
  return {
    endpoint: `http://127.0.0.1:${port}`,
    async [Symbol.asyncDispose]() {
      await closeHttp(server);
    },
  };
}

const marks = (policy: string, hold: string) => ({
  "x-ms-has-immutability-policy": policy,
  "x-ms-has-legal-hold": hold,
});
const versionMark = { "x-ms-immutable-storage-with-versioning-enabled": "true" };
const containers: readonly (readonly [string, Answer, HeldDelete | undefined])[] = [
  ["no locks", { status: 200, headers: marks("false", "false") }, "none"],
  ["a policy", { status: 200, headers: marks("true", "false") }, "refused"],
  ["a legal hold", { status: 200, headers: marks("false", "true") }, "refused"],
  ["versions", { status: 200, headers: { ...marks("false", "false"), ...versionMark } }, "hidden"],
  ["nothing", { status: 200 }, undefined],
  ["no permission", { status: 403 }, undefined],
];
for (const [title, answer, expected] of containers) {
  test(`an Azure container that tells of ${title}: ${expected}`, async () => {
    await using server = await saying(answer);
    const account = { account: "a", accessKey: "a2V5", container: "c" };
    const config = azureConfig({ endpoint: `${server.endpoint}/a`, ...account });
    await using storage = await openStorage(config, options);
    assert.equal(await storage.upkeep?.heldDelete?.({ signal }), expected);
  });
}

const json = (body: string): Answer => ({
  status: 200,
  headers: { "content-type": "application/json" },
  body,
});
const buckets: readonly (readonly [string, Answer, HeldDelete | undefined])[] = [
  ["versions", json('{"versioning":{"enabled":true}}'), "hidden"],
  ["none", json("{}"), "refused"],
  ["no permission", { status: 403, body: "{}" }, undefined],
];
for (const [title, answer, expected] of buckets) {
  test(`a bucket of Google's that tells of ${title}: ${expected}`, async () => {
    await using server = await saying(answer);
    const config = gcsConfig({ endpoint: server.endpoint, bucket: "b" });
    await using storage = await openStorage(config, options);
    assert.equal(await storage.upkeep?.heldDelete?.({ signal }), expected);
  });
}

/** "no store": one that has no holds at all. */
type Said = HeldDelete | undefined | "no store";

function upkeepOf(said: Said): Upkeep {
  const holding: Partial<Upkeep> =
    said === "no store" ? {} : { readHold: async () => undefined, heldDelete: async () => said };
  return { async *listUnfinished() {}, removeUnfinished: async () => {}, ...holding };
}

const pairs: readonly (readonly [Said, Said, HeldDelete | undefined])[] = [
  ["none", "none", "none"],
  ["no store", "none", "none"],
  ["refused", "none", "refused"],
  ["refused", undefined, undefined],
  [undefined, "no store", undefined],
  [undefined, "hidden", "hidden"],
  ["hidden", "refused", "hidden"],
];
for (const [first, second, together] of pairs) {
  test(`two stores (${first}, ${second}): ${together}`, async () => {
    for (const said of [
      [first, second],
      [second, first],
    ] as const) {
      const world = new FailoverWorld();
      for (const [index, one] of said.entries()) {
        world.store(index).memory.upkeep = upkeepOf(one);
      }
      await using storage = await world.open();
      assert.equal(await storage.upkeep?.heldDelete?.({ signal }), together);
    }
  });
}

test("a folder of a store, and one that is opened late, say what it says", async () => {
  for (const said of ["none", "refused", "hidden", undefined] as const) {
    const store = new MemoryStorage();
    store.upkeep = upkeepOf(said);
    const folder = new PrefixedStorage(store, "repo");
    assert.equal(await folder.upkeep?.heldDelete?.({ signal }), said);
    const late = new DeferredStorage("late", async () => folder);
    assert.equal(await late.upkeep.heldDelete?.({ signal }), said);
  }
  const plain = new DeferredStorage("late", async () => new MemoryStorage());
  assert.equal(await plain.upkeep.heldDelete?.({ signal }), "none");
});
