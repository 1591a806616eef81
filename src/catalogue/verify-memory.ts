import { FormatError, ObjectNotFoundError } from "../errors.ts";
import { bytesSource, readAll } from "../io/bytes.ts";
import type { Hasher } from "../io/hash.ts";
import type { BackupName } from "../layout/backup-name.ts";
import { Fields } from "../layout/fields.ts";
import { isJsonArray, type JsonObject, jsonObject, type JsonValue } from "../layout/json-value.ts";
import { verifyMemoryKey } from "../layout/keys.ts";
import type { CallOptions, ObjectKey, Storage } from "../storage/storage.ts";
import { formatChecked, parseChecked } from "./checked-text.ts";

/** An object as it is stored. */
export interface StoredHash {
  readonly sizeBytes: number;
  readonly xxh64: string;
}

/** Segments `[first, last]` that were proved at the same time, in milliseconds since 1970. */
export interface ProvedRun {
  readonly timeline: number;
  readonly first: number;
  readonly last: number;
  readonly atMs: number;
}

/** What was proved of one backup. */
export interface ProvedBackup {
  /** Every part, at this time or later. */
  readonly allAtMs: number | undefined;
  /** Single parts, by their last component. */
  readonly partsAtMs: ReadonlyMap<string, number>;
}

export interface VerifyMemory {
  /**
   * Documents that never change, as they were when they were first read; also what UnfinishedHashes
   * remembers.
   */
  readonly documents: ReadonlyMap<ObjectKey, StoredHash>;
  readonly backups: ReadonlyMap<BackupName, ProvedBackup>;
  /** By timeline and position, apart from each other. */
  readonly wal: readonly ProvedRun[];
  /** What the store said of objects when they were read whole: see MarkMemory. */
  readonly marks: ReadonlyMap<string, string>;
}

export const NOTHING_PROVED: VerifyMemory = {
  documents: new Map(),
  backups: new Map(),
  wal: [],
  marks: new Map(),
};

const FORMAT_VERSION = 1n;
const MEMORY_BYTES_MAX = 256 * 1024 * 1024;

/** Reads what was proved. Rejects with FormatError when the object is damaged. */
export async function readVerifyMemory(
  storage: Storage,
  hasher: Hasher,
  { signal }: CallOptions,
): Promise<VerifyMemory> {
  try {
    const bytes = await readAll(storage.get(verifyMemoryKey, { signal }), MEMORY_BYTES_MAX);
    return parseVerifyMemory(bytes, hasher);
  } catch (error) {
    if (error instanceof ObjectNotFoundError) return NOTHING_PROVED;
    if (error instanceof RangeError) throw new FormatError(error.message, { cause: error });
    throw error;
  }
}

/** Writes it whole: what another verify wrote meanwhile is lost, and proved again some time. */
export async function writeVerifyMemory(
  storage: Storage,
  memory: VerifyMemory,
  { hasher, signal }: CallOptions & { readonly hasher: Hasher },
): Promise<void> {
  await storage.put(verifyMemoryKey, bytesSource(formatVerifyMemory(memory, hasher)), { signal });
}

export function formatVerifyMemory(memory: VerifyMemory, hasher: Hasher): Buffer {
  const documents = [...memory.documents].map(
    ([key, { sizeBytes, xxh64 }]) => [key, [BigInt(sizeBytes), xxh64]] as const,
  );
  const backups = [...memory.backups].map(([name, { allAtMs, partsAtMs }]) => {
    const parts = [...partsAtMs].map(([part, atMs]) => [part, BigInt(atMs)] as const);
    const all = allAtMs === undefined ? undefined : BigInt(allAtMs);
    return [
      name,
      jsonObject([
        ["all", all],
        ["parts", parts.length === 0 ? undefined : jsonObject(parts)],
      ]),
    ] as const;
  });
  const wal = memory.wal.map(({ timeline, first, last, atMs }) =>
    [timeline, first, last, atMs].map(BigInt),
  );
  const value = jsonObject([
    ["walnut_verified", FORMAT_VERSION],
    ["documents", jsonObject(documents)],
    ["backups", jsonObject(backups)],
    ["wal", wal],
    ["marks", jsonObject([...memory.marks])],
  ]);
  return formatChecked(value, hasher);
}

/** Throws FormatError for anything that we would not have written. */
export function parseVerifyMemory(bytes: Buffer, hasher: Hasher): VerifyMemory {
  const fields = new Fields(verifyMemoryKey, parseChecked(verifyMemoryKey, bytes, hasher));
  const version = fields.required("walnut_verified", fields.uint64("walnut_verified"));
  if (version !== FORMAT_VERSION) {
    throw new FormatError(`${verifyMemoryKey} has version ${version}, we read ${FORMAT_VERSION}`);
  }
  const documents = new Map<ObjectKey, StoredHash>();
  for (const [key, value] of fields.object("documents") ?? []) {
    const [sizeBytes, xxh64] = isJsonArray(value) ? value : [];
    if (typeof xxh64 !== "string") throw new FormatError(`no hash of ${key}`);
    documents.set(key, { sizeBytes: numberOf(sizeBytes), xxh64 });
  }
  const backups = new Map<BackupName, ProvedBackup>();
  for (const [name, value] of fields.object("backups") ?? []) {
    const backup = new Fields(name, value);
    const parts: JsonObject = backup.object("parts") ?? new Map<string, JsonValue>();
    backups.set(name, {
      allAtMs: backup.integer("all"),
      partsAtMs: new Map([...parts].map(([part, at]) => [part, numberOf(at)])),
    });
  }
  const wal = fields.value("wal");
  const marks = new Map<string, string>();
  for (const [group, value] of fields.object("marks") ?? []) {
    if (typeof value !== "string") throw new FormatError(`no marks of ${group}`);
    marks.set(group, value);
  }
  return { documents, backups, wal: isJsonArray(wal) ? wal.map(runOf) : [], marks };
}

function runOf(value: JsonValue): ProvedRun {
  const [timeline, first, last, atMs] = isJsonArray(value) ? value.map(numberOf) : [];
  if (timeline === undefined || first === undefined || last === undefined || atMs === undefined) {
    throw new FormatError(`${verifyMemoryKey} has a run that is none`);
  }
  return { timeline, first, last, atMs };
}

function numberOf(value: JsonValue | undefined): number {
  const number = typeof value === "bigint" ? Number(value) : Number.NaN;
  if (Number.isSafeInteger(number)) return number;
  throw new FormatError(`${verifyMemoryKey} has no number where one should be`);
}

/**
 * What is known of a backup with parts on top that were proved now, of `partCount` if that is
 * known; undefined where nothing is proved.
 */
export function addPartProof(
  known: ProvedBackup | undefined,
  fresh: readonly string[],
  { partCount, atMs }: { readonly partCount: number | undefined; readonly atMs: number },
): ProvedBackup | undefined {
  if (fresh.length === partCount) return { allAtMs: atMs, partsAtMs: new Map() };
  if (known === undefined && fresh.length === 0) return undefined;
  const proved = fresh.map((part) => [part, atMs] as const);
  return { allAtMs: known?.allAtMs, partsAtMs: new Map([...(known?.partsAtMs ?? []), ...proved]) };
}

/** The runs with `proved` on top: newer proofs replace older ones. Neighbours are joined. */
export function addProof(
  wal: readonly ProvedRun[],
  proved: readonly ProvedRun[],
): readonly ProvedRun[] {
  let runs = [...wal];
  for (const fresh of proved) {
    runs = runs.flatMap((run) => without(run, fresh));
    runs.push(fresh);
  }
  const sorted = runs.toSorted(
    (one, other) => one.timeline - other.timeline || one.first - other.first,
  );
  const joined: ProvedRun[] = [];
  for (const run of sorted) {
    const last = joined.at(-1);
    const isNext =
      last?.timeline === run.timeline && last.last + 1 === run.first && last.atMs === run.atMs;
    if (last !== undefined && isNext) joined[joined.length - 1] = { ...last, last: run.last };
    else joined.push(run);
  }
  return joined;
}

function without(run: ProvedRun, cut: ProvedRun): readonly ProvedRun[] {
  if (run.timeline !== cut.timeline || cut.last < run.first || cut.first > run.last) return [run];
  const rest: ProvedRun[] = [];
  if (run.first < cut.first) rest.push({ ...run, last: cut.first - 1 });
  if (run.last > cut.last) rest.push({ ...run, first: cut.last + 1 });
  return rest;
}
