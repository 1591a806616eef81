import { existsSync } from "node:fs";
import { dirname, join } from "node:path";
import { FormatError, NotInArchiveError } from "../errors.ts";
import { formatLsn, type Lsn, lsn } from "../postgres/lsn.ts";
import { WalWalker } from "../postgres/wal-record.ts";
import type { CallOptions } from "../storage/storage.ts";
import { inspectLocalWal, readLocalWal } from "./local-wal.ts";

/**
 * A segment is to be given that ends at `endLsn`, before it is full. PostgreSQL puts it in the place
 * of its own in pg_wal, though a standby may have streamed more of it, or an old primary written
 * more: that would be lost, and a promotion would end with a PANIC. Told that there is none,
 * PostgreSQL takes its own.
 *
 * Rejects with NotInArchiveError if the segment in the destination's directory has more records,
 * and with LocalFileError if nobody can tell.
 *
 * @source KeepFileRestoredFromArchive, src/backend/access/transam/xlogarchive.c
 */
export async function requireNoMoreInPlace(
  destination: string,
  { name, endLsn }: { readonly name: string; readonly endLsn: Lsn },
  { signal }: CallOptions,
): Promise<void> {
  const path = join(dirname(destination), name);
  if (!existsSync(path)) return;
  const localEndLsn = await readLocalEnd(path, name, { signal });
  if (localEndLsn === undefined || localEndLsn <= endLsn) return;
  throw new NotInArchiveError(
    `WAL file ${name} is in the archive up to ${formatLsn(endLsn)} only, ` +
      `and in pg_wal up to ${formatLsn(localEndLsn)}`,
  );
}

/** Where its records end; undefined if it is another segment that is to be used again. */
async function readLocalEnd(
  path: string,
  name: string,
  { signal }: CallOptions,
): Promise<Lsn | undefined> {
  try {
    const walker = new WalWalker(name);
    const local = await inspectLocalWal({ path, name }, { signal });
    for await (const chunk of readLocalWal(local, { signal })) {
      walker.push(chunk);
      if (walker.isDone) break;
    }
    const { header, endOfRecords } = walker.finish();
    return lsn(header.startLsn + BigInt(endOfRecords));
  } catch (error) {
    if (error instanceof FormatError) return undefined;
    throw error;
  }
}
