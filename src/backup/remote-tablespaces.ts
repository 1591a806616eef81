import type { BaseBackupTablespace } from "../connection/backup-stream.ts";
import { connectPostgres } from "../connection/connect.ts";
import type { ConnectionSettings } from "../connection/target.ts";
import { RefusedError } from "../errors.ts";

/**
 * The server passes over a tablespace whose place it can't find, as one that was dropped meanwhile.
 * Rejects with RefusedError when it still knows one of these, of which it sent nothing.
 */
export async function requireDropped(
  empty: readonly BaseBackupTablespace[],
  connection: ConnectionSettings,
  { signal }: { readonly signal: AbortSignal },
): Promise<void> {
  if (empty.length === 0) return;
  await using session = await connectPostgres(connection, { signal });
  for (const { oid, location } of empty) {
    const found = await session.query("SELECT spcname FROM pg_tablespace WHERE oid = $1", {
      signal,
      values: [oid ?? 0],
    });
    const [row] = found;
    if (row === undefined) continue;
    throw new RefusedError(
      `the server sent nothing of tablespace ${row["spcname"]} (${oid}) at ${location}`,
      { hint: "Is its file system mounted on the server? A backup would lack this tablespace." },
    );
  }
}
