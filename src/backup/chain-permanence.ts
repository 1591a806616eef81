import { bytesSource } from "../io/bytes.ts";
import type { BackupName } from "../layout/backup-name.ts";
import { metadataKey } from "../layout/keys.ts";
import { formatMetadata } from "../layout/metadata.ts";
import type { Storage } from "../storage/storage.ts";
import { readMetadata } from "./catalogue.ts";

/**
 * Marks backups as permanent, the oldest first: from a full backup on, so that one that is killed
 * leaves no kept increment on a base that may go. `names` begins with the newest.
 */
export async function markPermanent(
  names: readonly BackupName[],
  { storage, signal }: { readonly storage: Storage; readonly signal: AbortSignal },
): Promise<void> {
  for (const name of names.toReversed()) {
    const metadata = await readMetadata(storage, name, signal);
    if (metadata.isPermanent) continue;
    const text = formatMetadata({ ...metadata, isPermanent: true });
    await storage.put(metadataKey(name), bytesSource(Buffer.from(text)), { signal });
  }
}
