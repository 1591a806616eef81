import assert from "node:assert/strict";
import { test } from "node:test";
import { fc } from "../support/property.ts";
import { StorageError } from "../../src/errors.ts";
import type { ByteSource } from "../../src/io/bytes.ts";
import { systemClock } from "../../src/io/clock.ts";
import { silentLog } from "../../src/io/log.ts";
import { catchUp } from "../../src/storage/mirror-catch-up.ts";
import type { MirroredStorage } from "../../src/storage/mirrored.ts";
import type { CallOptions, PutOptions } from "../../src/storage/storage.ts";
import { type Fault, FaultyStorage } from "../support/faulty-storage.ts";
import { MemoryStorage } from "../support/memory-storage.ts";
import { contentOf, killWriters, mirroredStorage, mirrorQueue } from "../support/mirror.ts";
import { scratchDirectory } from "../support/scratch-directory.ts";
import { text } from "./contract-lists.ts";

const IS_LONG = process.env["WALNUT_LONG"] !== undefined;
const signal = new AbortController().signal;
const gone = new StorageError("connection reset", { isRetryable: false });

const KEYS = ["a", "b", "c/d"];

type Step =
  | { readonly kind: "put"; readonly key: string; readonly isCreate: boolean }
  | { readonly kind: "delete"; readonly keys: readonly string[] }
  /** The mirror goes away, or comes back. */
  | { readonly kind: "outage"; readonly isAway: boolean }
  /** What the primary does with the next call. */
  | { readonly kind: "fault"; readonly fault: "fail" | "lose-answer" }
  /** The process is killed in the next call, before or after the primary did it. */
  | { readonly kind: "crash"; readonly isDone: boolean }
  | { readonly kind: "catch up" };

const key = fc.constantFrom(...KEYS);
const step: fc.Arbitrary<Step> = fc.oneof(
  { weight: 5, arbitrary: fc.record({ kind: fc.constant("put"), key, isCreate: fc.boolean() }) },
  {
    weight: 2,
    arbitrary: fc.record({
      kind: fc.constant("delete"),
      keys: fc.uniqueArray(key, { minLength: 1 }),
    }),
  },
  { weight: 2, arbitrary: fc.record({ kind: fc.constant("outage"), isAway: fc.boolean() }) },
  fc.record({ kind: fc.constant("fault"), fault: fc.constantFrom("fail", "lose-answer") }),
  fc.record({ kind: fc.constant("crash"), isDone: fc.boolean() }),
  fc.record({ kind: fc.constant("catch up") }),
);

/** Its process is killed in a put or delete. */
class CrashingStorage extends FaultyStorage {
  crash: { readonly isDone: boolean; readonly onReached: () => void } | undefined;

  override async put(key: string, body: ByteSource, options: PutOptions): Promise<void> {
    await this.#around(() => super.put(key, body, options));
  }

  override async delete(keys: readonly string[], options: CallOptions): Promise<void> {
    await this.#around(() => super.delete(keys, options));
  }

  async #around(work: () => Promise<void>): Promise<void> {
    const { crash } = this;
    if (crash === undefined) return await work();
    if (crash.isDone) await work().catch(() => {});
    crash.onReached();
    await new Promise<never>(() => {});
  }
}

/** One host with a queue, its processes one after the other. */
class Host {
  readonly primary = new MemoryStorage();
  readonly mirror = new MemoryStorage();
  readonly #scratch = scratchDirectory();
  readonly #options: { readonly policy: "primary" | "all"; readonly notesMax: number };
  #storage: MirroredStorage | undefined;
  #faultyPrimary = new CrashingStorage(this.primary);
  readonly #processes = new Set<MirroredStorage>();
  #isAway = false;
  #next: Extract<Step, { kind: "fault" | "crash" }> | undefined;
  #putCount = 0;

  constructor(options: { readonly policy: "primary" | "all"; readonly notesMax: number }) {
    this.#options = options;
  }

  async run(one: Step): Promise<void> {
    if (one.kind === "outage") this.#isAway = one.isAway;
    else if (one.kind === "fault" || one.kind === "crash") this.#next = one;
    else if (one.kind === "catch up") await this.catchUp(() => Date.now());
    else if (one.kind === "delete") {
      await this.#call("delete", () => this.#open().delete(one.keys, { signal }));
    } else {
      const body = text(`content ${++this.#putCount}`.slice(0, 9 + (this.#putCount % 2)));
      const options = { signal, ifAbsent: one.isCreate };
      await this.#call("put", () => this.#open().put(one.key, body, options));
    }
  }

  async end(): Promise<void> {
    await Promise.all([...this.#processes].map((one) => one[Symbol.asyncDispose]()));
  }

  async catchUp(now: () => number): Promise<void> {
    const clock = { ...systemClock, now };
    const mirror = this.#reachable();
    const options = { clock, log: silentLog, signal };
    await catchUp({ primary: this.primary, mirror }, this.#queue(), options);
  }

  async notes(): Promise<number> {
    return (await this.#queue().status()).notes;
  }

  #queue() {
    return mirrorQueue(this.#scratch.path, this.#options);
  }

  comeBack(): void {
    this.#isAway = false;
  }

  [Symbol.dispose](): void {
    this.#scratch[Symbol.dispose]();
  }

  #reachable(): FaultyStorage {
    const fault: Fault = {
      kind: "before",
      run: () => {
        if (this.#isAway) throw gone;
      },
    };
    const mirror = new FaultyStorage(this.mirror);
    for (const method of ["get", "put", "stat", "list", "delete"] as const) {
      mirror.fault(method, "every", fault);
    }
    return mirror;
  }

  #open(): MirroredStorage {
    const directory = this.#scratch.path;
    if (this.#storage === undefined) {
      const stores = { primary: this.#faultyPrimary, mirror: this.#reachable(), directory };
      this.#storage = mirroredStorage({ ...stores, ...this.#options });
      this.#processes.add(this.#storage);
    }
    return this.#storage;
  }

  /** Errors are answers: what counts is that the stores become equal. */
  async #call(method: "put" | "delete", call: () => Promise<void>): Promise<void> {
    const next = this.#next;
    this.#next = undefined;
    const number = this.#faultyPrimary.count(method) + 1;
    if (next?.kind === "fault") {
      this.#faultyPrimary.fault(method, number, { kind: next.fault, error: gone });
    }
    if (next?.kind !== "crash") return await call().catch(() => {});
    const dead = Promise.withResolvers<void>();
    this.#faultyPrimary.crash = { isDone: next.isDone, onReached: dead.resolve };
    void call().then(dead.resolve, dead.resolve);
    await dead.promise;
    // The next process knows nothing of this one; its background work may still be at it.
    this.#storage = undefined;
    this.#faultyPrimary = new CrashingStorage(this.primary);
    await killWriters(this.#scratch.path);
  }
}

/** Killed behind a put for which there was no note, while the stores are compared. */
const UNNOTED: readonly Step[] = [
  { kind: "delete", keys: ["a"] },
  { kind: "put", key: "a", isCreate: true },
  { kind: "crash", isDone: true },
  { kind: "put", key: "b", isCreate: false },
];

for (const policy of ["primary", "all"] as const) {
  for (const notesMax of [1000, 2]) {
    const title = `policy ${policy}, at most ${notesMax} notes`;
    test(`both are equal after any puts, deletes, outages and crashes: ${title}`, async () => {
      const steps = fc.array(step, { minLength: 1, maxLength: IS_LONG ? 30 : 12 });
      await fc.assert(
        fc.asyncProperty(steps, async (all) => {
          using host = new Host({ policy, notesMax });
          for (const one of all) await host.run(one);
          host.comeBack();
          await host.end();
          await host.catchUp(() => Date.now());
          assert.deepEqual(await contentOf(host.mirror), await contentOf(host.primary));
          await host.catchUp(() => Date.now() + 61_000);
          assert.equal(await host.notes(), 0);
          assert.deepEqual(await contentOf(host.mirror), await contentOf(host.primary));
        }),
        { numRuns: IS_LONG ? 1000 : 40, examples: [[[...UNNOTED]]] },
      );
    });
  }
}
