import { StorageError } from "../../src/errors.ts";
import type { Clock } from "../../src/io/clock.ts";
import { type Log, silentLog } from "../../src/io/log.ts";
import { groupOfKey, isRewrittenKey, PROBE_FOLDER } from "../../src/layout/backup-group.ts";
import { openFailover, type StorageUse } from "../../src/storage/failover-open.ts";
import type { HealthRules } from "../../src/storage/failover-health.ts";
import type { Storage } from "../../src/storage/storage.ts";
import { SkippingClock } from "./fake-clock.ts";
import { FaultyStorage, type StorageMethod } from "./faulty-storage.ts";
import { MemoryStorage } from "./memory-storage.ts";

/** WAL-G's numbers. */
export const HEALTH_RULES: HealthRules = {
  isChecked: true,
  checkTimeoutMs: 30_000,
  checkBytes: 100,
  lifetimeMs: 15 * 60_000,
  aliveLimit: 0.99,
  deadLimit: 0.88,
  alphaAlive: { min: 0.01, max: 0.05 },
  alphaDead: { min: 0.1, max: 0.5 },
};

const METHODS: readonly StorageMethod[] = ["get", "put", "stat", "list", "delete"];

/** A store in memory that can be away. */
export class WorldStore {
  readonly memory = new MemoryStorage();
  readonly faulty = new FaultyStorage(this.memory);

  /** From now on every call fails like a refused connection; `methods` for some of them. */
  die(methods: readonly StorageMethod[] = METHODS): void {
    const error = new StorageError("connection refused", { isRetryable: true });
    for (const method of methods) this.faulty.fault(method, "every", { kind: "fail", error });
  }

  revive(): void {
    for (const method of METHODS) {
      this.faulty.fault(method, "every", { kind: "before", run: () => {} });
    }
  }
}

export interface WorldOptions {
  readonly use?: StorageUse;
  readonly health?: Partial<HealthRules>;
  readonly clock?: Clock;
  readonly cacheDirectory?: string;
  readonly log?: Log;
}

/** Several stores in memory: "default", "b", "c" and so on. */
export class FailoverWorld {
  readonly stores: readonly WorldStore[];

  constructor(count = 2) {
    this.stores = Array.from({ length: count }, () => new WorldStore());
  }

  store(index: number): WorldStore {
    const store = this.stores[index];
    if (store === undefined) throw new RangeError(`no store ${index}`);
    return store;
  }

  async open({
    use = "all",
    health,
    clock,
    cacheDirectory,
    log,
  }: WorldOptions = {}): Promise<Storage> {
    const names = ["default", "b", "c", "d"];
    const stores = this.stores.map(({ faulty }, index) => ({
      name: names[index] ?? String(index),
      title: `memory://${index}`,
      settings: String(index),
      open: async () => faulty,
    }));
    return await openFailover(stores, {
      use,
      health: { ...HEALTH_RULES, ...health },
      keys: { groupOf: groupOfKey, isRewritten: isRewrittenKey },
      probeFolder: PROBE_FOLDER,
      cacheDirectory,
      retryPolicy: { attempts: 3, baseMs: 1, capMs: 1, totalMs: 60_000 },
      clock: clock ?? new SkippingClock(),
      random: () => 0.5,
      log: log ?? silentLog,
      signal: new AbortController().signal,
    });
  }
}
