import type { Codec } from "../codec/codec.ts";
import { vouching } from "../codec/table.ts";
import { ObjectExistsError } from "../errors.ts";
import { bytesSource, type ByteSource } from "../io/bytes.ts";
import type { Log } from "../io/log.ts";
import { type ChangeMap, formatChangeMap, mapSegment } from "../layout/change-map.ts";
import { changeMapKey, walKey } from "../layout/keys.ts";
import { deltaName, type DeltaLocation, formatWalDelta } from "../layout/wal-delta.ts";
import { ChangedBlocks } from "../postgres/changed-blocks.ts";
import { lsn } from "../postgres/lsn.ts";
import type { OpenRecord } from "../postgres/wal-record-scan.ts";
import { formatSegmentName, segmentNumberOf } from "../postgres/wal-file.ts";
import type { CallOptions, ObjectKey, Storage } from "../storage/storage.ts";
import { ChangeFold } from "./change-fold.ts";
import { groupSegments, listNotes, readNotes, removeNotes } from "./change-notes.ts";

export interface StoreGroupsOptions extends CallOptions {
  /** Where ChangeNotes keeps them. */
  readonly directory: string;
  readonly codec: Codec;
  /** In the codec's scale. */
  readonly level?: number | undefined;
  readonly codecJobs: number;
  readonly log: Log;
}

/** 64 MiB of WAL-G's list; it is read at once by those who need it. */
const LOCATIONS_MAX = 4 * 1024 * 1024;

/**
 * Stores the change map, and WAL-G's delta, of every group whose notes are complete, and removes
 * the notes. Gives the first segments of these groups. May run any number of times at once and be
 * killed anywhere: see DELTA.md.
 */
export async function storeGroups(
  storage: Storage,
  options: StoreGroupsOptions,
): Promise<readonly string[]> {
  const { directory } = options;
  const stored: string[] = [];
  const names = await listNotes(directory);
  const there = new Set(names);
  const seen = new Set<string>();
  for (const name of names) {
    if (seen.has(name)) continue;
    const notes = await readNotes(directory, name);
    if (notes === undefined) continue;
    const members = groupSegments(notes);
    for (const member of members) seen.add(member);
    if (!members.every((member) => there.has(member))) continue;
    const map = await foldNotes(members, options);
    if (map === undefined) continue;
    await putOnce(storage, changeMapKey(mapSegment(map), options.codec.extension), map, options);
    await storeDelta(storage, map, options);
    // The last one is where the next group's delta begins.
    for (const member of members.slice(0, -1)) await removeNotes(directory, member);
    stored.push(mapSegment(map));
  }
  return stored;
}

/** Undefined when some are gone, or do not fit: then none of them is of use. */
async function foldNotes(
  members: readonly string[],
  { directory, log }: StoreGroupsOptions,
): Promise<ChangeMap | undefined> {
  const fold = new ChangeFold();
  for (const member of members) {
    const notes = await readNotes(directory, member);
    // Somebody else has stored the group meanwhile.
    if (notes === undefined) return undefined;
    fold.add(notes);
  }
  if (fold.holeReason === "") return fold.toMap();
  log.info("no change map of a group", { wal: members[0] ?? "", reason: fold.holeReason });
  for (const member of members) await removeNotes(directory, member);
  return undefined;
}

async function storeDelta(
  storage: Storage,
  map: ChangeMap,
  options: StoreGroupsOptions,
): Promise<void> {
  const name = mapSegment(map);
  const changes = await changesFromBefore(map, options);
  const openRecord = map.open === undefined ? new Uint8Array() : wholeBeginning(map.open);
  const locations = changes === undefined ? undefined : locationsOf(changes);
  if (locations === undefined || openRecord === undefined) {
    options.log.debug("no delta for WAL-G", { wal: name });
    return;
  }
  // WAL-G's list has no sum of its own.
  const packed = vouching(options);
  const key = walKey(deltaName(name), packed.codec.extension);
  await putOnce(storage, key, { locations, openRecord }, packed);
}

/** With the record that begins before the group; undefined when that is not known any more. */
async function changesFromBefore(
  map: ChangeMap,
  { directory }: StoreGroupsOptions,
): Promise<ChangedBlocks | undefined> {
  if (map.continuationBytes === 0) return map.changes;
  const { timeline, startLsn, segmentBytes } = map;
  if (startLsn === 0n) return undefined;
  const number = segmentNumberOf(lsn(startLsn - 1n), segmentBytes);
  const before = await readNotes(directory, formatSegmentName(timeline, number, segmentBytes));
  if (before?.open === undefined) return undefined;
  const fold = new ChangeFold();
  fold.add({ ...before, changes: new ChangedBlocks() });
  fold.add(map);
  return fold.holeReason === "" ? fold.changes : undefined;
}

/** All bytes of the record so far; undefined when not all of them were kept. */
function wholeBeginning({ head, kept = head, pendingBytes }: OpenRecord): Uint8Array | undefined {
  if (head.length < 4) return kept;
  const lengthBytes = new DataView(head.buffer, head.byteOffset).getUint32(0, true);
  return kept.length === lengthBytes - pendingBytes ? kept : undefined;
}

function locationsOf(changes: ChangedBlocks): readonly DeltaLocation[] | undefined {
  const locations: DeltaLocation[] = [];
  for (const { tablespaceOid, databaseOid, relfilenode, blocks } of changes.entries()) {
    for (const { start, end } of blocks.ranges()) {
      if (locations.length + end - start > LOCATIONS_MAX) return undefined;
      for (let block = start; block < end; block += 1) {
        locations.push({ tablespaceOid, databaseOid, relfilenode, block });
      }
    }
  }
  return locations;
}

/** What is there already is what we would write. */
async function putOnce(
  storage: Storage,
  key: ObjectKey,
  content: ChangeMap | Parameters<typeof formatWalDelta>[0],
  { codec, level, codecJobs: jobs, signal }: StoreGroupsOptions,
): Promise<void> {
  const bytes = "locations" in content ? formatWalDelta(content) : formatChangeMap(content);
  const settings = { jobs, signal, ...(level === undefined ? {} : { level }) };
  const body: ByteSource = {
    isReopenable: true,
    open: () => codec.compress(bytesSource(bytes).open(), settings),
  };
  try {
    await storage.put(key, body, { signal, ifAbsent: true });
  } catch (error) {
    if (!(error instanceof ObjectExistsError)) throw error;
  }
}
