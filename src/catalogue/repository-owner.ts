import { readRepositoryIdentity } from "../archive/identity.ts";
import type { CallOptions, Storage } from "../storage/storage.ts";
import type { Catalogue } from "./catalogue.ts";

/**
 * System identifier of the cluster that the repository belongs to: what its backups say, else our
 * own object, which is there before the first of them. Undefined while neither is.
 *
 * Rejects with DamagedError where that object can't be read.
 */
export async function repositoryOwner(
  storage: Storage,
  { backups }: Pick<Catalogue, "backups">,
  options: CallOptions,
): Promise<bigint | undefined> {
  const owner = backups.find(({ systemId }) => systemId !== undefined)?.systemId;
  return owner ?? (await readRepositoryIdentity(storage, options));
}
