import { ObjectExistsError, OperationError } from "../errors.ts";
import { nodeCrypto } from "../io/builtin.ts";
import { bytesSource } from "../io/bytes.ts";
import type { Log } from "../io/log.ts";
import { contentSumKey, formatContentSum } from "../layout/content-sum.ts";
import type { CallOptions, Storage } from "../storage/storage.ts";
import { type LocalWal, readLocalWal } from "./local-wal.ts";

/**
 * Stores the sum of a file that was archived just now: of text that holds no sum of its own, where
 * not every compression vouches for it. `walnut verify` reads it. Never rejects, not even when it
 * is aborted: the file is safe, and what is lacking is one proof.
 */
export async function putContentSum(
  storage: Storage,
  { local, isNew }: { readonly local: LocalWal; readonly isNew: boolean },
  { signal, log }: CallOptions & { readonly log: Log },
): Promise<void> {
  const hash = nodeCrypto().createHash("sha256");
  try {
    for await (const chunk of readLocalWal(local, { signal })) hash.update(chunk);
    const { name: wal, sizeBytes } = local;
    const text = formatContentSum({ wal, sizeBytes, sha256: hash.digest("hex") });
    const body = bytesSource(Buffer.from(text));
    await storage.put(contentSumKey(wal), body, { signal, ifAbsent: !isNew });
  } catch (error) {
    if (error instanceof ObjectExistsError || signal.aborted) return;
    if (!(error instanceof OperationError)) throw error;
    log.warning("the sum of a file could not be stored beside it", {
      wal: local.name,
      reason: error.message,
    });
  }
}
