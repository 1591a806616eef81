import { StorageError } from "../errors.ts";
import type { Clock } from "../io/clock.ts";
import type { Log } from "../io/log.ts";
import type { RetryContext, RetryPolicy } from "../io/retry.ts";
import { sha256Hex } from "../io/runtime.ts";
import { DeferredStorage } from "./deferred.ts";
import { FailoverStorage, type KeyRules } from "./failover.ts";
import { BRISK_SHARE, Health, type HealthRules, type Work } from "./failover-health.ts";
import { type Member, Members } from "./failover-members.ts";
import { RetryingStorage } from "./retrying.ts";
import type { CallOptions, Storage } from "./storage.ts";

/**
 * What a command wants of several stores: see FAILOVER_STORAGES.md. Without fail-over storages all
 * are the same, but for "check", which is of one store and wants to know how it is now.
 */
export type StorageUse = "all" | "archive" | "backup" | "alive" | "check";

/** A store that can be opened. */
export interface StoreToOpen {
  /** "default", or as the user calls it. */
  readonly name: string;
  /** For messages, without credentials. */
  readonly title: string;
  /** All that makes it another store, secrets included. */
  readonly settings: string;
  /** Repeats no calls, but by this policy the parts that it sends. */
  readonly open: (retryPolicy?: RetryPolicy) => Promise<Storage>;
}

export interface FailoverOpenOptions extends CallOptions, RetryContext {
  readonly use: StorageUse;
  readonly health: HealthRules;
  readonly keys: KeyRules;
  readonly probeFolder: string;
  /** Absent: nothing is remembered. */
  readonly cacheDirectory?: string | undefined;
  /** Of a store that nobody stands in for. */
  readonly retryPolicy: RetryPolicy;
  readonly clock: Clock;
  readonly log: Log;
}

/**
 * Opens several stores as one, the first of them first. A store that can't be opened is one that
 * does not answer. Rejects with StorageError if none is alive that the use needs.
 */
export async function openFailover(
  stores: readonly StoreToOpen[],
  options: FailoverOpenOptions,
): Promise<Storage> {
  const { health: rules, clock, log, use, keys, probeFolder } = options;
  const health = await Health.open({
    rules,
    clock,
    log,
    probeFolder,
    path: pathOf(stores, options),
  });
  const members = stores.map((store) => makeMember(store, health, options));
  const common = { health, clock, log, leavesOutDead: use === "archive" || use === "backup" };
  try {
    const chosen = use === "alive" ? await findAlive(members, health, options) : undefined;
    const pinned = use === "backup" ? await findWriter(members, health, options) : undefined;
    return new FailoverStorage(new Members(members, { ...common, chosen, pinned }), keys);
  } catch (error) {
    await new Members(members, common).close();
    throw error;
  }
}

function pathOf(
  stores: readonly StoreToOpen[],
  { cacheDirectory }: FailoverOpenOptions,
): string | undefined {
  if (cacheDirectory === undefined) return undefined;
  const hash = sha256Hex(stores.map(idOf).join("\n")).slice(0, 16);
  return `${cacheDirectory}/stores-${hash}.json`;
}

function idOf({ name, settings }: StoreToOpen): string {
  return `${name}#${sha256Hex(settings).slice(0, 16)}`;
}

function makeMember(store: StoreToOpen, health: Health, options: FailoverOpenOptions): Member {
  const { retryPolicy, health: rules, clock, random, onRetry } = options;
  const { name, title } = store;
  const totalMs = Math.min(rules.checkTimeoutMs * BRISK_SHARE, retryPolicy.totalMs);
  const briskPolicy = { ...retryPolicy, totalMs };
  const inner = new DeferredStorage(title, async () => await store.open(briskPolicy));
  const lasting = new DeferredStorage(title, async () => await store.open(retryPolicy));
  const subject = { id: idOf(store), name, store: inner };
  const context: RetryContext = {
    clock,
    random,
    onRetry: (event) => {
      health.note(subject, "read", false);
      onRetry?.(event);
    },
  };
  return {
    ...subject,
    title,
    brisk: new RetryingStorage(inner, briskPolicy, context),
    patient: new RetryingStorage(lasting, retryPolicy, context),
  };
}

async function findAlive(
  members: readonly Member[],
  health: Health,
  options: FailoverOpenOptions,
): Promise<readonly Member[]> {
  const alive = await checkAll(members, health, { ...options, work: "read" });
  for (const { name } of members.filter((member) => !alive.includes(member))) {
    options.log.warning("a storage does not answer: what it holds is not seen", { storage: name });
  }
  if (alive.length === 0) throw noneAlive(members);
  return alive;
}

async function findWriter(
  members: readonly Member[],
  health: Health,
  options: FailoverOpenOptions,
): Promise<Member> {
  const [first] = await checkAll(members, health, { ...options, work: "write" });
  if (first === undefined) throw noneAlive(members);
  options.log.info(`Backup will be pushed to storage: ${first.name}`);
  return first;
}

async function checkAll(
  members: readonly Member[],
  health: Health,
  { work, signal, health: { isChecked } }: FailoverOpenOptions & { readonly work: Work },
): Promise<readonly Member[]> {
  if (!isChecked) return members;
  const answers = await Promise.all(
    members.map((member) => health.check(member, work, { signal })),
  );
  return members.filter((_, index) => answers[index] === true);
}

function noneAlive(members: readonly Member[]): StorageError {
  return new StorageError(`no storage is alive: ${members.map(({ name }) => name).join(", ")}`, {
    isRetryable: false,
    hint: "The log says what each of them answered. `walnut st check read -t NAME` asks one again.",
  });
}
