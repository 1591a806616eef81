import {
  finishLsnOf,
  segmentName,
  SIZE,
  startLsnOf,
  type World,
  type WorldBackup,
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
    for (let one: WorldBackup | undefined = backup; one !== undefined;) {
      if (!this.isListed(one.name) || !this.#hasParts(one)) return false;
      if (one.base === undefined) break;
      const base: string = one.base;
      one = this.#world.backups.find(({ name }) => name === base);
      if (one === undefined) return false;
    }
    return this.#canReplay(backup.timeline, backup.segment, backup.lastSegment);
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

  #hasParts({ name, hasControl }: WorldBackup): boolean {
    const part = `basebackups_005/${name}/tar_partitions/part_001.tar.zst`;
    return (
      hasControl && this.#keys.has(part) && this.#keys.has(part.replace("part_001", "pg_control"))
    );
  }

  #canReplay(timeline: number, first: number, last: number): boolean {
    let segment = first;
    while (segment <= last && this.#hasSegment(timeline, segment)) segment += 1;
    if (segment > last) return true;
    return this.#world.timelines.some(
      (child) =>
        child.parent === timeline &&
        child.hasHistory &&
        child.forkSegment >= first &&
        child.forkSegment <= segment &&
        this.#canReplay(child.id, child.forkSegment, last),
    );
  }

  #hasSegment(timeline: number, segment: number): boolean {
    return this.#keys.has(`wal_005/${segmentName(timeline, segment)}.zst`);
  }
}
