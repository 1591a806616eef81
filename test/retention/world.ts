import { fc } from "../support/property.ts";
import { bytesSource } from "../../src/io/bytes.ts";
import { formatMetadata } from "../../src/layout/metadata.ts";
import { formatSentinel } from "../../src/layout/sentinel.ts";
import { formatTimelineHistory } from "../../src/postgres/timeline-history.ts";
import { lsn } from "../../src/postgres/lsn.ts";
import { changeControl } from "../support/control-file.ts";
import { MemoryStorage } from "../support/memory-storage.ts";
import { postgresBytes } from "../support/postgres-fixtures.ts";
import { tarArchive } from "../support/tar-archive.ts";

/** Times of the worlds are counted back from here. */
export const NOW_MS = Date.UTC(2026, 10, 21, 12);
export const SIZE = 16 * 1024 * 1024;
const HOUR_MS = 3_600_000;

/** A timeline as somebody lived it: when it left which other one, and how far it went. */
export interface WorldTimeline {
  readonly id: number;
  /** 0 for the first. */
  readonly parent: number;
  /** Segment within which it left its parent. */
  readonly forkSegment: number;
  /** First segment that was never written. */
  readonly endSegment: number;
  readonly holes: readonly number[];
  readonly hasHistory: boolean;
}

export interface WorldBackup {
  readonly name: string;
  readonly timeline: number;
  readonly segment: number;
  readonly lastSegment: number;
  readonly base: string | undefined;
  readonly startMs: number;
  readonly finishMs: number;
  readonly isPermanent: boolean;
  readonly corruptPages: number;
  readonly hasControl: boolean;
  readonly isSentinelThere: boolean;
  /** On which a standby's backup ended, if its primary was replaced meanwhile. */
  readonly endTimeline?: number;
}

export interface World {
  readonly timelines: readonly WorldTimeline[];
  readonly backups: readonly WorldBackup[];
}

const hex = (value: number): string => value.toString(16).toUpperCase().padStart(8, "0");

export function segmentName(timeline: number, segment: number): string {
  return `${hex(timeline)}${hex(Math.floor(segment / 256))}${hex(segment % 256)}`;
}

interface Dice {
  /** Of 0 to `end` - 1. */
  below(end: number): number;
  isLucky(share: number): boolean;
}

/** Numbers of one run of the generator: what fast-check shrinks. */
function dice(numbers: readonly number[]): Dice {
  let at = 0;
  const next = (): number => {
    at += 1;
    return (numbers[(at - 1) % numbers.length] ?? 0) / 10_000;
  };
  return {
    below: (end) => Math.floor(next() * Math.max(1, end)),
    isLucky: (share) => next() < share,
  };
}

/** Random repositories: timelines that fork, holes, chains, pins, damage, leftovers. */
export const worlds: fc.Arbitrary<World> = fc
  .record({
    numbers: fc.array(fc.integer({ min: 0, max: 9999 }), { minLength: 60, maxLength: 160 }),
    timelineCount: fc.constantFrom(1, 1, 2, 2, 3, 4),
    backupCount: fc.integer({ min: 0, max: 12 }),
  })
  .map(({ numbers, timelineCount, backupCount }) => {
    const roll = dice(numbers);
    const timelines = makeTimelines(roll, timelineCount);
    return { timelines, backups: makeBackups(roll, timelines, backupCount) };
  });

function makeTimelines(roll: Dice, count: number): readonly WorldTimeline[] {
  const timelines: WorldTimeline[] = [];
  for (let id = 1; id <= count; id += 1) {
    const parent = timelines[roll.below(timelines.length)];
    const forkSegment =
      parent === undefined
        ? 250
        : parent.forkSegment + roll.below(parent.endSegment - parent.forkSegment);
    const endSegment = forkSegment + 2 + roll.below(20);
    const holes = Array.from({ length: roll.isLucky(0.3) ? 2 : 0 }, () =>
      Math.floor(forkSegment + roll.below(endSegment - forkSegment)),
    );
    const hasHistory = id === 1 ? false : !roll.isLucky(0.1);
    timelines.push({ id, parent: parent?.id ?? 0, forkSegment, endSegment, holes, hasHistory });
  }
  return timelines;
}

function makeBackups(
  roll: Dice,
  timelines: readonly WorldTimeline[],
  count: number,
): readonly WorldBackup[] {
  const backups: WorldBackup[] = [];
  for (let index = 0; index < count; index += 1) {
    const timeline = timelines[roll.below(timelines.length)];
    if (timeline === undefined) break;
    const first = timeline.forkSegment + (timeline.id === 1 ? 0 : 1);
    const rolled = first + roll.below(timeline.endSegment - first);
    // A name that ends in zeros does not tell the size of segments.
    const segment = rolled % 256 === 0 ? rolled + 1 : rolled;
    const lastSegment = segment + roll.below(3);
    const bases = backups.filter((one) => one.timeline === timeline.id && one.segment < segment);
    const base = roll.isLucky(0.5) ? bases[roll.below(bases.length)] : undefined;
    const baseDigits = base === undefined ? "" : `_D_${base.name.slice(5, 29)}`;
    const name = `base_${segmentName(timeline.id, segment)}${baseDigits}`;
    if (backups.some((one) => one.name.slice(0, 29) === name.slice(0, 29))) continue;
    // Later positions are later times, by and large: clocks differ by some hours.
    const startMs = NOW_MS - (330 - segment - timeline.id) * 12 * HOUR_MS - roll.below(6) * HOUR_MS;
    const finishMs = startMs + ((lastSegment - segment) * 12 + 1) * HOUR_MS;
    backups.push({
      name,
      timeline: timeline.id,
      segment,
      lastSegment,
      base: base?.name,
      startMs,
      finishMs,
      isPermanent: roll.isLucky(0.15),
      corruptPages: roll.isLucky(0.1) ? 3 : 0,
      hasControl: !roll.isLucky(0.05),
      isSentinelThere: !roll.isLucky(0.12),
    });
  }
  return backups;
}

/** Everything of a world as objects: keys and contents. */
export function objectsOf({ timelines, backups }: World): Map<string, string> {
  const objects = new Map<string, string>();
  for (const timeline of timelines) addTimeline(objects, timeline, timelines);
  for (const backup of backups) addBackup(objects, backup, backups);
  objects.set("walnut_005/cluster.json", '{"system_identifier":7000000000000000001}');
  objects.set("somebody/else", "x");
  objects.set("wal_005/notes.txt", "x");
  return objects;
}

function addTimeline(
  objects: Map<string, string>,
  timeline: WorldTimeline,
  timelines: readonly WorldTimeline[],
): void {
  const { id, forkSegment, endSegment, holes, hasHistory } = timeline;
  for (let segment = forkSegment; segment < endSegment; segment += 1) {
    if (holes.includes(segment)) continue;
    const key = `wal_005/${segmentName(id, segment)}`;
    objects.set(`${key}.zst`, "x");
    if (segment % 7 === 0) objects.set(`${key}.00000028.backup.zst`, "x");
    if (segment % 16 === 0) objects.set(`${key}_delta.zst`, "x");
  }
  objects.set(`wal_005/${segmentName(id, endSegment)}.partial.zst`, "x");
  if (hasHistory) objects.set(`wal_005/${hex(id)}.history`, historyText(timeline, timelines));
}

function historyText(timeline: WorldTimeline, timelines: readonly WorldTimeline[]): string {
  const ancestors = [];
  let child: WorldTimeline | undefined = timeline;
  while (child !== undefined && child.parent !== 0) {
    const { parent, forkSegment }: WorldTimeline = child;
    const endLsn = lsn(BigInt(forkSegment) * BigInt(SIZE) + 4096n);
    ancestors.unshift({ timeline: parent, endLsn, reason: "no recovery target specified" });
    child = timelines.find(({ id }) => id === parent);
  }
  return formatTimelineHistory({ timeline: timeline.id, ancestors });
}

export function startLsnOf({ segment }: WorldBackup): bigint {
  return BigInt(segment) * BigInt(SIZE) + 40n;
}

export function finishLsnOf({ lastSegment }: WorldBackup): bigint {
  return BigInt(lastSegment) * BigInt(SIZE) + 4000n;
}

function addBackup(
  objects: Map<string, string>,
  backup: WorldBackup,
  backups: readonly WorldBackup[],
): void {
  const { name, base, isPermanent } = backup;
  const folder = `basebackups_005/${name}/`;
  objects.set(`${folder}tar_partitions/part_001.tar.zst`, "x");
  if (backup.hasControl) objects.set(`${folder}tar_partitions/pg_control.tar`, controlOf(backup));
  const common = {
    startTimeNs: BigInt(backup.startMs) * 1_000_000n,
    finishTimeNs: BigInt(backup.finishMs) * 1_000_000n,
    hostname: "h",
    dataDirectory: "/d",
    pgVersion: 170_004,
    startLsn: startLsnOf(backup),
    finishLsn: finishLsnOf(backup),
    isPermanent,
    systemId: 7_000_000_000_000_000_001n,
    uncompressedBytes: 1,
    compressedBytes: 1,
  };
  const parent = backups.find((one) => one.name === base);
  if (!backup.isSentinelThere) return;
  objects.set(`${folder}metadata.json`, formatMetadata(common));
  objects.set(`${folder}files_metadata.json`, "{}");
  objects.set(
    `basebackups_005/${name}_backup_stop_sentinel.json`,
    formatSentinel({
      ...common,
      base:
        parent === undefined
          ? undefined
          : {
              name: parent.name,
              startLsn: startLsnOf(parent),
              fullName: parent.name,
              stepCount: 1,
            },
      isFilesMetadataDisabled: false,
      own: backup.corruptPages > 0 ? { corruptPages: backup.corruptPages } : undefined,
    }),
  );
}

/** What a listing can't show, where it matters. */
function controlOf({ endTimeline }: WorldBackup): string {
  if (endTimeline === undefined) return "x";
  const bytes = changeControl(postgresBytes(17, "pg_control.running"), {
    minRecoveryTimeline: endTimeline,
  });
  return tarArchive({ name: "global/pg_control", content: bytes }).toString("latin1");
}

/** Puts the objects in this order. */
export async function storageOf(
  objects: ReadonlyMap<string, string>,
  order: readonly string[] = [...objects.keys()],
): Promise<MemoryStorage> {
  const storage = new MemoryStorage();
  const signal = AbortSignal.timeout(60_000);
  for (const key of order) {
    await storage.put(key, bytesSource(Buffer.from(objects.get(key) ?? "", "latin1")), { signal });
  }
  return storage;
}
