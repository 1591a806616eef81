import { FormatError, ObjectNotFoundError, StorageAccessError, StorageError } from "../errors.ts";
import { bytesSource, readAll } from "../io/bytes.ts";
import type { Hasher } from "../io/hash.ts";
import { Fields } from "../layout/fields.ts";
import { type JsonObject, jsonObject } from "../layout/json-value.ts";
import { commitIndexKey } from "../layout/keys.ts";
import { formatTime } from "../layout/time.ts";
import { formatLsn, parseLsn } from "../postgres/lsn.ts";
import { formatSegmentName } from "../postgres/wal-file.ts";
import type { CallOptions, ObjectKey, Storage } from "../storage/storage.ts";
import { formatChecked, parseChecked } from "./checked-text.ts";
import type { CommitPoint, CommitSummary } from "./commit-scan.ts";
import type { StoredHash } from "./verify-memory.ts";

/** What is noted of one segment. A pure function of its bytes: whoever notes it notes the same. */
export interface IndexEntry {
  /** 24 digits. */
  readonly segment: string;
  readonly commits: CommitSummary;
  /** Whether a commit that began in the segment before is among them, if there is one. */
  readonly isExact: boolean;
  /** The object that was read, and its stored bytes; absent when a local file was read. */
  readonly key?: ObjectKey | undefined;
  readonly stored?: StoredHash | undefined;
}

/** Segments that share an index object. */
export const GROUP_SEGMENTS = 64;

const FORMAT_VERSION = 1n;
const GROUP_BYTES_MAX = 1024 * 1024;

/** Number of the first segment of the group that a segment belongs to. */
export function groupStart(number: number): number {
  return Math.floor(number / GROUP_SEGMENTS) * GROUP_SEGMENTS;
}

/** The index object of a group; see src/catalogue/INDEX.md. */
export function indexKey(timeline: number, number: number, segmentBytes: number): ObjectKey {
  const first = formatSegmentName(timeline, BigInt(groupStart(number)), segmentBytes);
  return commitIndexKey(first);
}

export function formatGroup(entries: Iterable<IndexEntry>, hasher: Hasher): Buffer {
  const sorted = [...entries].toSorted((one, other) => (one.segment < other.segment ? -1 : 1));
  const value = jsonObject([
    ["walnut_index", FORMAT_VERSION],
    ["segments", jsonObject(sorted.map((entry) => [entry.segment, formatEntry(entry)]))],
  ]);
  return formatChecked(value, hasher);
}

function formatEntry({ commits, isExact, key, stored }: IndexEntry): JsonObject {
  return jsonObject([
    ["commits", BigInt(commits.count)],
    ["first", commits.first === undefined ? undefined : formatPoint(commits.first)],
    ["last", commits.last === undefined ? undefined : formatPoint(commits.last)],
    ["latest", commits.latestNs === undefined ? undefined : formatTime(commits.latestNs, 0)],
    ["removing", BigInt(commits.removingCount)],
    ["exact", isExact],
    ["key", key],
    ["size", stored === undefined ? undefined : BigInt(stored.sizeBytes)],
    ["xxh64", stored?.xxh64],
  ]);
}

function formatPoint({ lsn, timeNs, xid }: CommitPoint): JsonObject {
  return jsonObject([
    ["lsn", formatLsn(lsn)],
    ["time", formatTime(timeNs, 0)],
    ["xid", BigInt(xid)],
  ]);
}

/** By segment. Throws FormatError for anything that we would not have written. */
export function parseGroup(bytes: Buffer, hasher: Hasher): ReadonlyMap<string, IndexEntry> {
  const fields = new Fields("index of commits", parseChecked("index of commits", bytes, hasher));
  const version = fields.required("walnut_index", fields.uint64("walnut_index"));
  if (version !== FORMAT_VERSION) {
    throw new FormatError(`index of commits has version ${version}, we read ${FORMAT_VERSION}`);
  }
  const entries = new Map<string, IndexEntry>();
  for (const [segment, value] of fields.object("segments") ?? []) {
    entries.set(segment, parseEntry(segment, new Fields(segment, value)));
  }
  return entries;
}

function parseEntry(segment: string, fields: Fields): IndexEntry {
  const sizeBytes = fields.integer("size");
  const xxh64 = fields.string("xxh64");
  const isStored = sizeBytes !== undefined && xxh64 !== undefined;
  return {
    segment,
    commits: {
      count: fields.required("commits", fields.integer("commits")),
      first: parsePoint(fields.object("first")),
      last: parsePoint(fields.object("last")),
      latestNs: fields.time("latest"),
      removingCount: fields.required("removing", fields.integer("removing")),
    },
    isExact: fields.required("exact", fields.boolean("exact")),
    key: fields.string("key"),
    stored: isStored ? { sizeBytes, xxh64 } : undefined,
  };
}

function parsePoint(value: JsonObject | undefined): CommitPoint | undefined {
  if (value === undefined) return undefined;
  const fields = new Fields("commit", value);
  return {
    lsn: parseLsn(fields.required("lsn", fields.string("lsn"))),
    timeNs: fields.required("time", fields.time("time")),
    xid: fields.required("xid", fields.integer("xid")),
  };
}

/** Of two notes about a segment the one that knows more; `fresh` where they know as much. */
export function mergeEntries(known: IndexEntry | undefined, fresh: IndexEntry): IndexEntry {
  if (known === undefined) return fresh;
  const commits = known.isExact && !fresh.isExact ? known : fresh;
  const proof = fresh.stored === undefined ? known : fresh;
  const { key, stored } = proof;
  return { ...commits, key, stored };
}

interface Group {
  readonly key: ObjectKey;
  readonly entries: Map<string, IndexEntry>;
  readonly fresh: Map<string, IndexEntry>;
}

/** Groups that are held at the same time: those that one job stands in. */
const GROUPS_HELD_MAX = 32;

/**
 * Index objects, read when they are asked for and written when they are left. A damaged one counts
 * as not there and is written anew; `onDamage` is told of it.
 */
export class CommitIndex {
  readonly #storage: Storage;
  readonly #segmentBytes: number;
  readonly #hasher: Hasher;
  readonly #options: CallOptions;
  readonly #mustWrite: boolean;
  readonly #groups = new Map<ObjectKey, Group>();
  onDamage: (key: ObjectKey, reason: string) => void = () => {};

  /** `mustWrite`: a store that is away or full is an error, and no reason to write nothing. */
  constructor(
    storage: Storage,
    segmentBytes: number,
    {
      hasher,
      mustWrite = false,
      signal,
    }: CallOptions & { readonly hasher: Hasher; readonly mustWrite?: boolean },
  ) {
    this.#storage = storage;
    this.#segmentBytes = segmentBytes;
    this.#hasher = hasher;
    this.#options = { signal };
    this.#mustWrite = mustWrite;
  }

  async find(timeline: number, number: number): Promise<IndexEntry | undefined> {
    const group = await this.#group(timeline, number);
    const name = formatSegmentName(timeline, BigInt(number), this.#segmentBytes);
    return group.fresh.get(name) ?? group.entries.get(name);
  }

  /** Kept until `flush`. */
  async note(timeline: number, number: number, entry: IndexEntry): Promise<void> {
    const group = await this.#group(timeline, number);
    const known = group.fresh.get(entry.segment) ?? group.entries.get(entry.segment);
    const merged = mergeEntries(known, entry);
    if (isSameEntry(known, merged)) return;
    group.fresh.set(entry.segment, merged);
  }

  /** Writes what was noted; where the store may only be read or is full, nothing. */
  async flush(): Promise<void> {
    for (const group of this.#groups.values()) await this.#write(group);
  }

  async #group(timeline: number, number: number): Promise<Group> {
    const key = indexKey(timeline, number, this.#segmentBytes);
    const held = this.#groups.get(key);
    if (held !== undefined) return held;
    const [oldest] = this.#groups.values();
    if (this.#groups.size >= GROUPS_HELD_MAX && oldest !== undefined) {
      await this.#write(oldest);
      this.#groups.delete(oldest.key);
    }
    const group = { key, entries: await this.#read(key), fresh: new Map<string, IndexEntry>() };
    this.#groups.set(key, group);
    return group;
  }

  async #read(key: ObjectKey): Promise<Map<string, IndexEntry>> {
    try {
      const bytes = await readAll(this.#storage.get(key, this.#options), GROUP_BYTES_MAX);
      return new Map(parseGroup(bytes, this.#hasher));
    } catch (error) {
      if (error instanceof ObjectNotFoundError) return new Map();
      if (!(error instanceof FormatError) && !(error instanceof RangeError)) throw error;
      this.onDamage(key, error.message);
      return new Map();
    }
  }

  /** What another process wrote meanwhile is kept. */
  async #write({ key, entries, fresh }: Group): Promise<void> {
    if (fresh.size === 0) return;
    const merged = new Map(await this.#read(key));
    for (const [segment, entry] of fresh) {
      const both = mergeEntries(merged.get(segment), entry);
      merged.set(segment, both);
      entries.set(segment, both);
    }
    const body = bytesSource(formatGroup(merged.values(), this.#hasher));
    try {
      await this.#storage.put(key, body, this.#options);
    } catch (error) {
      // It is learned again next time: who asks must get an answer from a store that is full, too.
      const isLeft = error instanceof StorageError && !this.#mustWrite;
      if (!isLeft && !(error instanceof StorageAccessError)) throw error;
    }
    fresh.clear();
  }
}

function isSameEntry(known: IndexEntry | undefined, fresh: IndexEntry): boolean {
  return (
    known !== undefined &&
    known.isExact === fresh.isExact &&
    known.key === fresh.key &&
    known.stored?.xxh64 === fresh.stored?.xxh64 &&
    known.commits.count === fresh.commits.count
  );
}
