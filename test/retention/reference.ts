import {
  finishLsnOf,
  segmentName,
  SIZE,
  startLsnOf,
  type World,
  type WorldBackup,
  type WorldTimeline,
} from "./world.ts";

/**
 * What PostgreSQL and a restore would need, simulated on the keys of a repository: written without
 * a look at the code under test, and by other means. Segments are walked one by one, and which
 * timeline follows which is known from the world, not from history files.
 */
export class Reference {
  readonly #world: World;
  readonly #keys: ReadonlySet<string>;

  constructor(world: World, keys: Iterable<string>) {
    this.#world = world;
    this.#keys = new Set(keys);
  }

  /** Backups that a list shows. */
  get listed(): readonly WorldBackup[] {
    return this.#world.backups.filter(({ name }) => this.isListed(name));
  }

  isListed(name: string): boolean {
    return this.#keys.has(`basebackups_005/${name}_backup_stop_sentinel.json`);
  }

  /** Parts of the whole chain, and WAL up to the end of the backup. */
  canRestore(backup: WorldBackup): boolean {
    return (
      this.#chainOf(backup).every(
        (one) => one !== undefined && this.isListed(one.name) && this.#hasParts(one),
      ) &&
      this.#world.timelines.some(({ id, hasHistory }) => {
        const line = this.#lineTo(id).filter((one) => one.id >= backup.timeline);
        // What left its timeline before it ended never makes it consistent.
        const left = line[1]?.forkSegment ?? Infinity;
        const isOn = line[0]?.id === backup.timeline && backup.lastSegment <= left;
        // The history of the timeline that is asked for names all those before it.
        const canAsk = id === backup.timeline || hasHistory;
        return isOn && canAsk && this.#canReplay(line, backup.segment, backup.lastSegment);
      })
    );
  }

  /** No damaged pages in the whole chain. */
  isClean(backup: WorldBackup): boolean {
    return this.#chainOf(backup).every((one) => one?.corruptPages === 0);
  }

  /** The backup and its bases; undefined for one that there is not. */
  #chainOf(backup: WorldBackup): readonly (WorldBackup | undefined)[] {
    const { base } = backup;
    if (base === undefined) return [backup];
    const found = this.#world.backups.find(({ name }) => name === base);
    return [backup, ...(found === undefined ? [undefined] : this.#chainOf(found))];
  }

  /**
   * Every segment that replay can come to from this backup, as names: on its own timeline and on
   * each that left a reached one after the backup was consistent.
   */
  reachable(backup: WorldBackup): ReadonlySet<string> {
    const reached = new Set<string>();
    const isConsistentAt = (segment: number): boolean =>
      BigInt(segment) * BigInt(SIZE) + 4096n >= finishLsnOf(backup);
    const follow = (timeline: number, from: number): void => {
      for (let segment = from; this.#hasSegment(timeline, segment); segment += 1) {
        reached.add(segmentName(timeline, segment));
      }
      for (const child of this.#world.timelines) {
        if (child.parent !== timeline || !isConsistentAt(child.forkSegment)) continue;
        const isThere = reached.has(segmentName(timeline, child.forkSegment - 1));
        if (isThere || child.forkSegment <= from) follow(child.id, child.forkSegment);
      }
    };
    follow(backup.timeline, Number(startLsnOf(backup) / BigInt(SIZE)));
    return reached;
  }

  /**
   * Segments behind the backup's end that replay comes to on the way to the newest timeline, whole
   * and without a break from the backup's first on; undefined if it does not come to its end.
   */
  reachableOnLine(backup: WorldBackup): readonly string[] | undefined {
    const line = this.#lineTo(this.#world.timelines.at(-1)?.id ?? 0);
    const at = line.findIndex(({ id }) => id === backup.timeline);
    const left = line[at + 1]?.forkSegment ?? Infinity;
    if (at < 0 || backup.lastSegment > left) return undefined;
    const holders = (segment: number) =>
      line.filter(
        ({ id, forkSegment }, index) =>
          forkSegment <= segment &&
          segment <= (line[index + 1]?.forkSegment ?? Infinity) &&
          this.#hasSegment(id, segment),
      );
    const isThere = (segment: number): boolean =>
      holders(segment).at(-1) === line.findLast(({ forkSegment }) => forkSegment <= segment);
    for (let segment = backup.segment; segment <= backup.lastSegment; segment += 1) {
      // Up to the fork an older timeline's file does as well.
      if (holders(segment).length === 0) return undefined;
    }
    const reached: string[] = [];
    for (let segment = backup.lastSegment; isThere(segment); segment += 1) {
      const timeline = holders(segment).at(-1)?.id ?? 0;
      if (segment > backup.lastSegment) reached.push(segmentName(timeline, segment));
    }
    return reached;
  }

  /** From the first timeline to this one. */
  #lineTo(timeline: number): readonly WorldTimeline[] {
    const found = this.#world.timelines.find(({ id }) => id === timeline);
    return found === undefined ? [] : [...this.#lineTo(found.parent), found];
  }

  /** Names of the timeline's whole segments that are there, ascending. */
  segmentsOf(timeline: number): readonly string[] {
    const start = `wal_005/${segmentName(timeline, 0).slice(0, 8)}`;
    return [...this.#keys]
      .filter((key) => key.startsWith(start) && /\/[0-9A-F]{24}\.zst$/.test(key))
      .map((key) => key.slice(8, 32))
      .toSorted();
  }

  #hasParts({ name, hasControl }: WorldBackup): boolean {
    const parts = `basebackups_005/${name}/tar_partitions/`;
    return (
      hasControl &&
      this.#keys.has(`${parts}part_001.tar.zst`) &&
      this.#keys.has(`${parts}pg_control.tar`)
    );
  }

  #canReplay([timeline, ...later]: readonly WorldTimeline[], first: number, last: number): boolean {
    if (timeline === undefined) return false;
    const left = later[0]?.forkSegment ?? Infinity;
    let segment = first;
    while (segment <= Math.min(last, left) && this.#hasSegment(timeline.id, segment)) segment += 1;
    if (segment > last) return true;
    return first <= left && left <= segment && this.#canReplay(later, left, last);
  }

  #hasSegment(timeline: number, segment: number): boolean {
    return this.#keys.has(`wal_005/${segmentName(timeline, segment)}.zst`);
  }
}
