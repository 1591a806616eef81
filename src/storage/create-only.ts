import { readFile } from "node:fs/promises";
import { join } from "node:path";
import { ObjectExistsError, StorageAccessError } from "../errors.ts";
import { untilAborted } from "../io/abort.ts";
import { writeCacheFile } from "../io/cache-file.ts";
import type { Clock } from "../io/clock.ts";
import type { Log } from "../io/log.ts";
import { sha256Hex } from "../io/runtime.ts";
import type { CallOptions, ObjectKey } from "./storage.ts";

/**
 * How a store takes create-only puts. "obeyed": the second of two fails. "ignored": it replaces the
 * object of the first, so that only a look before shows that there is one. "refused": not at all.
 * "unknown": nobody could find out.
 */
export type CreateOnlyFinding = "obeyed" | "ignored" | "refused" | "unknown";

/** What finding out needs. */
export interface CreateOnlyProbe {
  /** Where the finding is kept; it may be lost. */
  readonly cacheDirectory: string;
  /** Of an object that is there for this only, stays, and may be written by anybody at any time. */
  readonly key: ObjectKey;
}

export interface CreateOnlyOptions {
  /** Of the store. */
  readonly name: string;
  /** Absent where the service is known to obey, or nothing may be kept: nobody asks then. */
  readonly probe?: CreateOnlyProbe | undefined;
  readonly clock: Clock;
  readonly log: Log;
  /** Puts these bytes create-only, by one request. */
  readonly put: (key: ObjectKey, body: Uint8Array, options: CallOptions) => Promise<void>;
  /** Whether a put failed because the store does not know the condition. */
  readonly isRefusal: (error: unknown) => boolean;
}

const PROBE_TEXT = `${JSON.stringify({
  walnut: 1,
  purpose: "shows whether this store lets create-only puts replace an object; it may be deleted",
})}\n`;

const DAY_MS = 86_400_000;
/** A server may be updated, or another one may stand behind its name. */
const FINDING_AGE_MS = 7 * DAY_MS;
/** Rights may be given. */
const UNKNOWN_AGE_MS = DAY_MS;
const PROBE_TIMEOUT_MS = 10_000;
/** After a failure that may pass. */
const NEXT_PROBE_MS = 60_000;

const FINDINGS: readonly CreateOnlyFinding[] = ["obeyed", "ignored", "refused", "unknown"];

/**
 * Finds out, by putting one small object create-only twice, whether a store keeps what is there.
 * Once it is there one request tells. The finding is kept in the cache directory, for a week.
 */
export class CreateOnlyMemory {
  readonly #options: CreateOnlyOptions;
  #finding: CreateOnlyFinding | undefined;
  #asking: Promise<CreateOnlyFinding> | undefined;
  #nextProbeMs = Number.NEGATIVE_INFINITY;

  constructor(options: CreateOnlyOptions) {
    this.#options = options;
    if (options.probe === undefined) this.#finding = "obeyed";
  }

  /** Never rejects but for the signal: what can't be found out is "unknown". */
  async find({ signal }: CallOptions): Promise<CreateOnlyFinding> {
    if (this.#finding !== undefined) return this.#finding;
    this.#asking ??= this.#ask(signal).finally(() => {
      this.#asking = undefined;
    });
    return await untilAborted(this.#asking, signal);
  }

  /** A put has shown it. */
  async noteRefusal(): Promise<void> {
    if (this.#finding !== "refused") await this.#remember("refused");
  }

  async #ask(signal: AbortSignal): Promise<CreateOnlyFinding> {
    const known = await this.#recall();
    if (known !== undefined) {
      this.#finding = known;
      return known;
    }
    const { clock, log, name } = this.#options;
    if (clock.monotonicMs() < this.#nextProbeMs) return "unknown";
    try {
      const limit = AbortSignal.timeout(PROBE_TIMEOUT_MS);
      const finding = await this.#probe(AbortSignal.any([signal, limit]));
      if (finding === "ignored") this.#warn();
      await this.#remember(finding);
      return finding;
    } catch (error) {
      if (error instanceof StorageAccessError) await this.#remember("unknown");
      this.#nextProbeMs = clock.monotonicMs() + NEXT_PROBE_MS;
      const reason = error instanceof Error ? error.message : String(error);
      log.debug("it is not known whether the store keeps objects from being replaced", {
        store: name,
        reason,
      });
      return "unknown";
    }
  }

  async #probe(signal: AbortSignal): Promise<CreateOnlyFinding> {
    const { put, isRefusal, probe } = this.#options;
    const body = Buffer.from(PROBE_TEXT);
    try {
      // Usually it is there. If not, this makes it, and the second one tells.
      for (let time = 1; time <= 2; time += 1) await put(probe?.key ?? "", body, { signal });
      return "ignored";
    } catch (error) {
      if (error instanceof ObjectExistsError) return "obeyed";
      if (isRefusal(error)) return "refused";
      throw error;
    }
  }

  #warn(): void {
    this.#options.log.warning("the store ignores create-only puts: a second writer replaces", {
      store: this.#options.name,
      hint:
        "From now on walnut looks whether an object is there before it writes one. Two servers that " +
        "archive the same file at the same moment can still replace each other's: let one server " +
        "alone archive into this repository, or use a store that obeys conditional writes.",
    });
  }

  async #recall(): Promise<CreateOnlyFinding | undefined> {
    try {
      const text: unknown = JSON.parse(await readFile(this.#path, "utf8"));
      if (typeof text !== "object" || text === null) return undefined;
      const fields = new Map<string, unknown>(Object.entries(text));
      const finding = FINDINGS.find((one) => one === fields.get("create_only"));
      const at = fields.get("at_ms");
      if (fields.get("storage") !== this.#options.name || typeof at !== "number") return undefined;
      const ageMs = this.#options.clock.now() - at;
      const limitMs = finding === "unknown" ? UNKNOWN_AGE_MS : FINDING_AGE_MS;
      return ageMs >= 0 && ageMs < limitMs ? finding : undefined;
    } catch {
      // Nothing is lost: the store is asked.
      return undefined;
    }
  }

  async #remember(finding: CreateOnlyFinding): Promise<void> {
    const { name, probe, clock, log } = this.#options;
    this.#finding = finding;
    if (probe === undefined) return;
    const fields = { storage: name, create_only: finding, at_ms: clock.now() };
    try {
      await writeCacheFile(this.#path, `${JSON.stringify(fields)}\n`);
    } catch (error) {
      const reason = error instanceof Error ? error.message : String(error);
      log.debug("how the store takes create-only puts is not remembered", {
        path: this.#path,
        reason,
      });
    }
  }

  get #path(): string {
    const { name, probe } = this.#options;
    return join(probe?.cacheDirectory ?? "", `create-only-${sha256Hex(name).slice(0, 16)}.json`);
  }
}

/** Whether an endpoint is none of the service itself, which is known to obey. */
export function isOtherServer(endpoint: string | undefined, service: string): boolean {
  if (endpoint === undefined) return false;
  const host = endpoint.replace(/^\w+:\/\//, "").replace(/[:/].*$/, "");
  return host !== service && !host.endsWith(`.${service}`);
}
