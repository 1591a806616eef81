import { writeFile } from "node:fs/promises";
import { join } from "node:path";
import type { ReplicationSession } from "../connection/replication.ts";
import { localFileError } from "../io/system-error.ts";
import { parseTimelineHistory, type TimelineHistory } from "../postgres/timeline-history.ts";
import { formatHistoryName } from "../postgres/wal-file.ts";
import type { Storage } from "../storage/storage.ts";
import type { DeadlineScope } from "./deadline.ts";
import { pushWal, type PushOptions } from "./push.ts";

/** Brings history files from the server to the archive, each once. */
export class HistoryFiles {
  readonly #storage: Storage;
  readonly #directory: string;
  readonly #options: Omit<PushOptions, "signal">;
  readonly #stored = new Map<number, TimelineHistory>();

  constructor(storage: Storage, directory: string, options: Omit<PushOptions, "signal">) {
    this.#storage = storage;
    this.#directory = directory;
    this.#options = options;
  }

  /**
   * The history of a timeline; resolves when the archive holds its file. Rejects with ConflictError
   * when the archive holds another one. A server that lost the file is no reason to stop: then the
   * timeline counts as one without ancestors.
   */
  async bring(
    session: ReplicationSession,
    timeline: number,
    scope: DeadlineScope,
  ): Promise<TimelineHistory> {
    if (timeline === 1) return { timeline, ancestors: [] };
    const known = this.#stored.get(timeline);
    if (known !== undefined) return known;

    const name = formatHistoryName(timeline);
    scope.begin(`asking PostgreSQL for ${name}`);
    const bytes = await session.timelineHistory(timeline, scope);
    if (bytes === undefined) {
      this.#options.log.warning("the server does not have the history of a timeline", { name });
      return { timeline, ancestors: [] };
    }
    const history = parseTimelineHistory(bytes.toString("utf8"), timeline);
    scope.begin(`storing ${name} in ${this.#storage.name}`);
    const path = join(this.#directory, name);
    try {
      await writeFile(path, bytes);
    } catch (error) {
      throw localFileError("write", path, error);
    }
    await pushWal(this.#storage, { path, name }, { ...this.#options, signal: scope.signal });
    this.#stored.set(timeline, history);
    return history;
  }
}
