import { join } from "node:path";
import type { ChangeNotes } from "../archive/change-notes.ts";
import { type Spool, spoolDirectory } from "../archive/spool-directory.ts";
import { OperationError } from "../errors.ts";
import type { Context } from "./command.ts";

/** Where the notes of a data directory's segments are. */
export function notesDirectory(spool: Spool): string {
  return join(spool.path, "changes");
}

/** The same of a data directory, if its segments are noted and a spool can be had. */
export async function findNotesDirectory(
  { config, log }: Pick<Context, "config" | "log">,
  dataDirectory: string,
): Promise<string | undefined> {
  const { isNotingChanges, spoolDirectory: configured } = config.archiveQueue;
  if (!isNotingChanges) return undefined;
  try {
    const { cacheDirectory } = config;
    return notesDirectory(await spoolDirectory({ dataDirectory, configured, cacheDirectory }));
  } catch (error) {
    if (!(error instanceof OperationError)) throw error;
    log.warning("notes of changes can't be read", { reason: error.message });
    return undefined;
  }
}

/**
 * What notes the changes of pushed segments, if that is wanted; it starts `wal-delta` where a group
 * is complete.
 */
export async function openChangeNotes(
  { config, clock, log, self }: Context,
  { dataDirectory, spool }: { readonly dataDirectory: string; readonly spool: Spool },
): Promise<ChangeNotes | undefined> {
  if (!config.archiveQueue.isNotingChanges) return undefined;
  const { ChangeNotes } = await import("../archive/change-notes.ts");
  const onGroup = (): void => {
    self?.startDetached(["wal-delta", dataDirectory], join(spool.path, "changes.log"));
  };
  return new ChangeNotes({ directory: notesDirectory(spool), onGroup, clock, log });
}
