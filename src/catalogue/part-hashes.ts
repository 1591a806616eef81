import { readManifestLines } from "../backup/backup-documents.ts";
import { codecOf } from "../codec/table.ts";
import type { BackupName } from "../layout/backup-name.ts";
import { tarFolder } from "../layout/keys.ts";
import type { CallOptions, ObjectKey, Storage } from "../storage/storage.ts";

/** XXH64 of the bytes of each part, by its key, as our manifests of these backups have it. */
export async function readPartHashes(
  storage: Storage,
  backups: readonly BackupName[],
  { signal }: CallOptions,
): Promise<ReadonlyMap<ObjectKey, string>> {
  const hashes = new Map<ObjectKey, string>();
  const zstd = codecOf("zstd");
  for (const backup of backups) {
    for await (const line of readManifestLines(storage, backup, { zstd, signal })) {
      if (line.kind === "part") hashes.set(`${tarFolder(backup)}${line.name}`, line.xxh64);
    }
  }
  return hashes;
}
