import assert from "node:assert/strict";
import { test } from "node:test";
import { fc } from "../support/property.ts";
import { ObjectExistsError, ObjectNotFoundError, StorageError } from "../../src/errors.ts";
import type { StorageUse } from "../../src/storage/failover-open.ts";
import type { Storage } from "../../src/storage/storage.ts";
import { FailoverWorld } from "../support/failover-world.ts";
import { keysOf, text, textOf } from "./contract-lists.ts";

const signal = new AbortController().signal;
const RUNS = process.env["WALNUT_LONG"] === undefined ? 150 : 5000;
const STORES = 3;
const KEYS = ["wal_005/a", "wal_005/b", "wal_005/c", "wal_005/d"];

type Step =
  | { readonly kind: "die" | "revive" | "lose-answers"; readonly store: number }
  | { readonly kind: "put"; readonly key: string; readonly use: StorageUse }
  | { readonly kind: "read" | "delete"; readonly key: string }
  | { readonly kind: "list" };

const store = fc.nat({ max: STORES - 1 });
const key = fc.constantFrom(...KEYS);
const step: fc.Arbitrary<Step> = fc.oneof(
  fc.record({ kind: fc.constantFrom("die", "revive", "lose-answers"), store }),
  fc.record({ kind: fc.constant("put"), key, use: fc.constantFrom<StorageUse>("archive", "all") }),
  fc.record({ kind: fc.constantFrom("read", "delete"), key }),
  fc.record({ kind: fc.constant("list") }),
);

/** What the caller was told, and what may be true besides. */
class Model {
  /** Put, and acknowledged, and not deleted since. */
  readonly acknowledged = new Set<string>();
  /** A put or delete that failed: nobody knows. */
  readonly unknown = new Set<string>();
}

async function take(world: FailoverWorld, model: Model, one: Step): Promise<void> {
  if (one.kind === "die") return world.store(one.store).die();
  if (one.kind === "revive") return world.store(one.store).revive();
  if (one.kind === "lose-answers") {
    const error = new StorageError("the answer was lost", { isRetryable: true });
    world.store(one.store).faulty.fault("put", "every", { kind: "lose-answer", error });
    return;
  }
  await using storage = await world.open({ use: one.kind === "put" ? one.use : "all" });
  if (one.kind === "put") return await put(storage, model, one.key);
  if (one.kind === "delete") return await remove(storage, model, one.key);
  if (one.kind === "read") return await read(storage, model, one.key);
  try {
    const keys = await keysOf(storage, "");
    for (const known of model.acknowledged) assert.ok(keys.includes(known), `${known} is missing`);
    const strange = keys.filter((k) => !model.acknowledged.has(k) && !model.unknown.has(k));
    assert.deepEqual(strange, []);
  } catch (error) {
    if (!(error instanceof StorageError)) throw error;
  }
}

async function put(storage: Storage, model: Model, name: string): Promise<void> {
  try {
    await storage.put(name, text(`content of ${name}`), { signal, ifAbsent: true });
  } catch (error) {
    model.unknown.add(name);
    // Whoever archives compares then, and takes the same content for an acknowledgement.
    if (!(error instanceof ObjectExistsError)) {
      assert.ok(error instanceof StorageError, String(error));
      return;
    }
    if ((await textOf(storage, name).catch(() => "")) !== `content of ${name}`) return;
  }
  model.acknowledged.add(name);
}

async function remove(storage: Storage, model: Model, name: string): Promise<void> {
  model.acknowledged.delete(name);
  model.unknown.add(name);
  try {
    await storage.delete([name], { signal });
    model.unknown.delete(name);
  } catch (error) {
    assert.ok(error instanceof StorageError, String(error));
  }
}

async function read(storage: Storage, model: Model, name: string): Promise<void> {
  try {
    assert.equal(await textOf(storage, name), `content of ${name}`);
    assert.ok(model.acknowledged.has(name) || model.unknown.has(name), `${name} was never put`);
  } catch (error) {
    if (error instanceof ObjectNotFoundError) {
      assert.ok(!model.acknowledged.has(name), `${name} is missing`);
    } else if (!(error instanceof StorageError)) throw error;
  }
}

test("whatever dies when, what was acknowledged is there, and no store away is an empty one", async () => {
  await fc.assert(
    fc.asyncProperty(fc.array(step, { maxLength: 25 }), async (steps) => {
      const world = new FailoverWorld(STORES);
      const model = new Model();
      for (const one of steps) await take(world, model, one);
      for (const each of world.stores) each.revive();
      await using storage = await world.open();
      for (const name of model.acknowledged) {
        assert.equal(await textOf(storage, name), `content of ${name}`);
      }
    }),
    { numRuns: RUNS },
  );
});
