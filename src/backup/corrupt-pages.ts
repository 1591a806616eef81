import { connectPostgres } from "../connection/connect.ts";
import { readDatabaseName, readRelationName } from "../connection/relation-name.ts";
import type { ConnectionSettings } from "../connection/target.ts";
import { CorruptPagesError, OperationError } from "../errors.ts";
import type { Log } from "../io/log.ts";
import { parseRelationPath, type RelationFile } from "../postgres/relation-file.ts";
import type { CorruptFile } from "./page-verifier.ts";
import type { PushedBackup } from "./push-settings.ts";

interface World {
  readonly connection: ConnectionSettings;
  readonly log: Log;
  readonly signal: AbortSignal;
}

/** So many files are named; more of them say no more. */
const MAX_NAMED = 20;

/**
 * Says which pages of the cluster are damaged, by file, block and relation, and rejects with
 * CorruptPagesError if there are any. The backup exists.
 */
export async function requireSoundPages(
  { name, corruptFiles }: PushedBackup,
  world: World,
): Promise<void> {
  if (corruptFiles.length === 0) return;
  for (const { name: file, blocks } of corruptFiles.slice(0, MAX_NAMED)) {
    const more = blocks.count - blocks.blockNumbers.length;
    world.log.error("pages are damaged in the cluster", {
      file: file.slice(1),
      blocks: `${blocks.blockNumbers.join(" ")}${more > 0 ? ` and ${more} more` : ""}`,
      relation: (await relationOf(file, world)) ?? "unknown",
    });
  }
  const count = corruptFiles.reduce((sum, { blocks }) => sum + blocks.count, 0);
  throw new CorruptPagesError(
    `backup ${name} is stored, but ${count} pages in ${corruptFiles.length} files of the cluster ` +
      `have a wrong checksum: ${firstOf(corruptFiles)}`,
    {
      hint:
        "Keep the last backup without damage, by backup-mark if it is to last: an older page there " +
        "may be good. Then look for the cause; the disk is the first suspect.",
    },
  );
}

function firstOf([first]: readonly CorruptFile[]): string {
  if (first === undefined) return "";
  return `first ${first.name.slice(1)} block ${first.blocks.blockNumbers[0]}`;
}

/** As "database schema.relation"; undefined where nobody can tell. */
async function relationOf(
  name: string,
  { connection, signal }: World,
): Promise<string | undefined> {
  const file = parseRelationPath(name.slice(1));
  if (file === undefined) return undefined;
  try {
    return await askRelation(file, connection, signal);
  } catch (error) {
    if (signal.aborted || !(error instanceof OperationError)) throw error;
    return undefined;
  }
}

async function askRelation(
  file: RelationFile,
  connection: ConnectionSettings,
  signal: AbortSignal,
): Promise<string | undefined> {
  await using session = await connectPostgres(connection, { signal });
  if (file.databaseOid === 0) return await readRelationName(session, file, { signal });
  const database = await readDatabaseName(session, file.databaseOid, { signal });
  if (database === undefined) return undefined;
  await using own = await connectPostgres({ ...connection, database }, { signal });
  const relation = await readRelationName(own, file, { signal });
  return relation === undefined ? undefined : `${database} ${relation}`;
}
