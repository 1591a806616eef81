import { FormatError, ObjectNotFoundError, OperationError, RefusedError } from "../errors.ts";
import { bytesSource, readAll } from "../io/bytes.ts";
import type { Clock } from "../io/clock.ts";
import type { Log } from "../io/log.ts";
import { randomHex } from "../io/random.ts";
import type { BackupName } from "../layout/backup-name.ts";
import { formatJson, parseJson } from "../layout/json.ts";
import { jsonObject, objectMember } from "../layout/json-value.ts";
import { resumeFolder, runClaimKey, tarFolder } from "../layout/keys.ts";
import type { ObjectKey, Storage } from "../storage/storage.ts";

const ID_BYTES = 8;
const MAX_CLAIM_BYTES = 64 * 1024;
const REMOVE_TIMEOUT_MS = 10_000;

/** Who takes a backup that can be resumed, and of what. */
export interface RunFacts {
  readonly systemId: bigint;
  readonly timeline: number;
  /** As `describeHolder` gives it. */
  readonly holder: string;
  /** All that the parts of one backup must have in common, as text. */
  readonly settings: string;
}

interface World {
  readonly storage: Storage;
  readonly clock: Clock;
  readonly log: Log;
  readonly signal: AbortSignal;
}

/** Our right to store parts in a folder; a run that takes it later takes it from us. */
export class RunClaim {
  readonly #backup: BackupName;
  readonly #key: ObjectKey;
  readonly #world: World;

  private constructor(backup: BackupName, key: ObjectKey, world: World) {
    this.#backup = backup;
    this.#key = key;
    this.#world = world;
  }

  get key(): ObjectKey {
    return this.#key;
  }

  /** Before the first part is stored. `others` are the claims of runs that are over. */
  static async take(
    backup: BackupName,
    facts: RunFacts,
    others: readonly ObjectKey[],
    world: World,
  ): Promise<RunClaim> {
    const { storage, clock, signal } = world;
    const key = runClaimKey(backup, clock.now(), randomHex(ID_BYTES));
    const body = bytesSource(Buffer.from(formatRunFacts(facts)));
    await storage.put(key, body, { signal, ifAbsent: true });
    if (others.length > 0) await storage.delete(others, { signal });
    return new RunClaim(backup, key, world);
  }

  /**
   * Right before the sentinel: rejects with RefusedError unless the claim is ours still and the
   * folder holds these parts, with these sizes, and no others: WAL-G unpacks all there are.
   */
  async requireParts(sizes: ReadonlyMap<string, number>): Promise<void> {
    const { storage, signal } = this.#world;
    await this.#requireHeld();
    const folder = tarFolder(this.#backup);
    const missing = new Set(sizes.keys());
    for await (const { key, sizeBytes } of storage.list(folder, { signal })) {
      const name = key.slice(folder.length);
      if (!missing.delete(name)) throw this.#disturbed(`${key} is none of its parts`);
      const wanted = sizes.get(name);
      const plain = plainBytesOf(storage, key, sizeBytes);
      if (plain === undefined || plain === wanted) continue;
      throw this.#disturbed(`${key} has ${plain} bytes, not the ${wanted} that were stored`);
    }
    const [lost] = missing;
    if (lost !== undefined) throw this.#disturbed(`${folder}${lost} is gone`);
  }

  /** After the sentinel: removes what nobody needs any more, as far as that can be done. */
  async release(): Promise<void> {
    const { storage, log } = this.#world;
    const signal = AbortSignal.timeout(REMOVE_TIMEOUT_MS);
    const folder = resumeFolder(this.#backup);
    try {
      const keys: ObjectKey[] = [];
      for await (const { key } of storage.list(folder, { signal })) keys.push(key);
      if (keys.length > 0) await storage.delete(keys, { signal });
    } catch (error) {
      if (!(error instanceof OperationError) && !signal.aborted) throw error;
      log.warning("what was noted for a resumption is left; it goes with the backup", { folder });
    }
  }

  async #requireHeld(): Promise<void> {
    const { storage, signal } = this.#world;
    try {
      await storage.stat(this.#key, { signal });
    } catch (error) {
      if (!(error instanceof ObjectNotFoundError)) throw error;
      throw this.#disturbed("its claim was removed");
    }
  }

  #disturbed(what: string): RefusedError {
    return new RefusedError(`somebody else changed backup ${this.#backup}: ${what}`, {
      hint: "Nothing was made visible. Take the backup again, once nothing else works on it.",
    });
  }
}

/** Undefined where only reading the object tells. */
export function plainBytesOf(
  storage: Pick<Storage, "readableBytes">,
  key: ObjectKey,
  storedBytes: number,
): number | undefined {
  return storage.readableBytes === undefined
    ? storedBytes
    : storage.readableBytes(key, storedBytes);
}

function formatRunFacts({ systemId, timeline, holder, settings }: RunFacts): string {
  return formatJson(
    jsonObject([
      ["system_identifier", systemId],
      ["timeline", BigInt(timeline)],
      ["process", holder],
      ["settings", settings],
    ]),
  );
}

/** Undefined for a claim that can't be understood; rejects with the store's errors. */
export async function readRunFacts(
  key: ObjectKey,
  { storage, signal }: Pick<World, "storage" | "signal">,
): Promise<RunFacts | undefined> {
  try {
    const json = parseJson(
      (await readAll(storage.get(key, { signal }), MAX_CLAIM_BYTES)).toString(),
    );
    const systemId = objectMember(json, "system_identifier");
    const timeline = objectMember(json, "timeline");
    const holder = objectMember(json, "process");
    const settings = objectMember(json, "settings");
    if (typeof systemId !== "bigint" || typeof timeline !== "bigint") return undefined;
    if (typeof holder !== "string" || typeof settings !== "string") return undefined;
    return { systemId, timeline: Number(timeline), holder, settings };
  } catch (error) {
    if (error instanceof FormatError || error instanceof RangeError) return undefined;
    throw error;
  }
}
