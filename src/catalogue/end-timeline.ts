import { partCodec } from "../backup/part-extract.ts";
import { DamagedError, DeadlineError, OperationError, StorageError } from "../errors.ts";
import { readAll } from "../io/bytes.ts";
import { parsePartKey } from "../layout/keys.ts";
import { parsePgControl, PG_CONTROL_BYTES } from "../postgres/pg-control.ts";
import { readTar } from "../tar/read.ts";
import type { CallOptions, ObjectKey, Storage } from "../storage/storage.ts";
import type { Catalogue, CatalogueBackup } from "./catalogue.ts";

/**
 * Which of these backups ended on another timeline than they began on: those of standbys that
 * followed their primary meanwhile. Only the pg_control in the backup tells, which is read where a
 * timeline was left between a backup's start and its end: of next to none. One that can't be read
 * tells nothing, and the backup's own timeline is taken for the one.
 *
 * @source do_pg_backup_stop, src/backend/access/transam/xlog.c: minRecoveryPointTLI
 */
export async function withEndTimelines(
  storage: Storage,
  { backups, histories }: Pick<Catalogue, "backups" | "histories">,
  options: CallOptions,
): Promise<readonly CatalogueBackup[]> {
  const found: CatalogueBackup[] = [];
  for (const backup of backups) {
    const isLeft = wasLeftWithin(backup, histories);
    const ended = isLeft ? await readEndTimeline(storage, backup, options) : undefined;
    found.push(ended === undefined ? backup : { ...backup, endTimeline: ended });
  }
  return found;
}

function wasLeftWithin(
  { timeline, startLsn = 0n, finishLsn = 0n }: CatalogueBackup,
  histories: Catalogue["histories"],
): boolean {
  return histories.some(({ history }) =>
    history?.ancestors.some(
      (one) => one.timeline === timeline && one.endLsn >= startLsn && one.endLsn < finishLsn,
    ),
  );
}

async function readEndTimeline(
  storage: Storage,
  { folder, timeline }: CatalogueBackup,
  options: CallOptions,
): Promise<number | undefined> {
  const key = [...(folder?.keys() ?? [])].find((one) => parsePartKey(one)?.kind === "control");
  if (key === undefined) return undefined;
  try {
    const { minRecoveryTimeline } = parsePgControl(await readControl(storage, key, options));
    // A primary's has none.
    return minRecoveryTimeline > timeline ? minRecoveryTimeline : undefined;
  } catch (error) {
    const isAway = error instanceof StorageError || error instanceof DeadlineError;
    if (isAway || options.signal.aborted || !(error instanceof OperationError)) throw error;
    return undefined;
  }
}

async function readControl(storage: Storage, key: ObjectKey, options: CallOptions) {
  const { signal } = options;
  const extension = parsePartKey(key)?.extension ?? "";
  const tar = partCodec({ key, extension }).decompress(storage.get(key, options), {
    jobs: 1,
    signal,
  });
  for await (const { kind, sizeBytes, content } of readTar(tar, { isTrailerOptional: true })) {
    if (kind === "file" && sizeBytes === PG_CONTROL_BYTES) return await readAll(content());
  }
  throw new DamagedError(`${key} holds no pg_control`);
}
