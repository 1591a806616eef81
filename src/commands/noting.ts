import { join } from "node:path";
import type { ChangeNotes } from "../archive/change-notes.ts";
import type { Spool } from "../archive/spool-directory.ts";
import type { Context } from "./command.ts";

/** Where the notes of a data directory's segments are. */
export function notesDirectory(spool: Spool): string {
  return join(spool.path, "changes");
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
