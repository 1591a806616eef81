import { readdir } from "node:fs/promises";
import { join } from "node:path";
import { storeGroups } from "../../src/archive/change-groups.ts";
import { ChangeNotes } from "../../src/archive/change-notes.ts";
import { codecOf } from "../../src/codec/table.ts";
import { systemClock } from "../../src/io/clock.ts";
import { silentLog } from "../../src/io/log.ts";
import type { BackupWorld } from "./backup-world.ts";

/** Change maps are made of groups of so many segments. */
const GROUP_SEGMENTS = 16;

/** Change maps of what the server has archived, as wal-push makes them. */
export class ChangeMaps {
  /** Notes of groups that are not complete. */
  readonly directory: string;
  readonly #noted = new Set<string>();

  constructor({ cluster }: BackupWorld) {
    this.directory = join(cluster.directory, "changes");
  }

  async store({ cluster, repository, storage }: BackupWorld): Promise<void> {
    await cluster.waitForArchiver();
    const { directory } = this;
    const log = silentLog;
    const signal = AbortSignal.timeout(120_000);
    const notes = new ChangeNotes({ directory, onGroup: () => {}, clock: systemClock, log });
    const archive = join(repository, "wal_005");
    for (const name of (await readdir(archive)).toSorted()) {
      if (!/^[0-9A-F]{24}$/.test(name) || this.#noted.has(name)) continue;
      await notes.around({ path: join(archive, name), name }, async () => {}, { signal });
      this.#noted.add(name);
      if (this.#noted.size % GROUP_SEGMENTS !== 0) continue;
      await storeGroups(storage, { directory, codec: codecOf("zstd"), codecJobs: 1, log, signal });
    }
    await storeGroups(storage, { directory, codec: codecOf("zstd"), codecJobs: 1, log, signal });
  }
}
