import { codecOf } from "../codec/table.ts";
import { DamagedError, ObjectNotFoundError } from "../errors.ts";
import type { BackupName } from "../layout/backup-name.ts";
import { tarFolder } from "../layout/keys.ts";
import { readSoundly } from "../storage/copies.ts";
import type { ObjectKey, Storage } from "../storage/storage.ts";
import {
  type BackupDocuments,
  readBackupDocuments,
  type ReadDocumentsOptions,
  type SharedDocuments,
} from "./backup-documents.ts";
import { PathTable } from "./path-table.ts";
import type { ChainMember } from "./restore-plan.ts";

/** Longer chains are taken for circles. */
const MAX_CHAIN_LENGTH = 10_000;

/** The backup, its base, and so on to the full backup. */
export async function readChain(
  storage: Storage,
  backup: BackupName,
  { signal }: { readonly signal: AbortSignal },
): Promise<readonly ChainMember[]> {
  const zstd = codecOf("zstd");
  const paths = new PathTable();
  const chain: ChainMember[] = [];
  let name: BackupName | undefined = backup;
  while (name !== undefined && name !== "") {
    const above = chain.at(-1)?.documents;
    const documents = await readMember(storage, backup, name, { zstd, paths, above, signal });
    const partKeys: ObjectKey[] = [];
    if (documents.manifest === undefined) {
      for await (const { key } of storage.list(tarFolder(name), { signal })) partKeys.push(key);
    }
    chain.push({ documents, partKeys, paths });
    if (chain.length > MAX_CHAIN_LENGTH) {
      throw new DamagedError(
        `the chain of backup ${backup} has more than ${MAX_CHAIN_LENGTH} bases`,
      );
    }
    name = documents.sentinel.base?.name;
  }
  return chain;
}

async function readMember(
  storage: Storage,
  backup: BackupName,
  name: BackupName,
  options: ReadDocumentsOptions & SharedDocuments,
): Promise<BackupDocuments> {
  try {
    return await readSoundly(storage, (one) => readBackupDocuments(one, name, options));
  } catch (error) {
    if (!(error instanceof ObjectNotFoundError) || name === backup) throw error;
    throw new DamagedError(`base ${name} of backup ${backup} is missing in ${storage.name}`, {
      hint: "Restore a backup from before this one, or another chain.",
      cause: error,
    });
  }
}
