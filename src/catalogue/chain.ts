import { type BackupName, isIncrementName, parseBackupName } from "../layout/backup-name.ts";
import type { CatalogueBackup } from "./catalogue.ts";

/** Bases after which a chain is taken for a circle. */
const MAX_CHAIN_LENGTH = 10_000;

/** Stands in a chain where it comes back to itself. */
export const CIRCLE = "its chain of bases is a circle";

/** Where the bases of a backup are looked for. */
export interface BackupsByName {
  readonly byName: ReadonlyMap<BackupName, CatalogueBackup>;
}

/** The backup, its base, and so on; a text in the place of what is missing. */
export function chainOf(
  { byName }: BackupsByName,
  backup: CatalogueBackup,
): readonly (CatalogueBackup | string)[] {
  const chain: (CatalogueBackup | string)[] = [backup];
  const seen = new Set<BackupName>([backup.name]);
  let baseName = backup.baseName;
  while (baseName !== undefined && baseName !== "") {
    const base = byName.get(baseName);
    if (base === undefined) return [...chain, `its base ${baseName} is missing`];
    if (seen.has(baseName) || chain.length > MAX_CHAIN_LENGTH) {
      return [...chain, CIRCLE];
    }
    seen.add(baseName);
    chain.push(base);
    baseName = base.baseName;
  }
  return chain;
}

/**
 * Why the backup and its bases could not be restored, WAL aside, as far as a listing shows;
 * undefined if nothing speaks against it.
 */
export function findChainFault(
  backups: BackupsByName,
  backup: CatalogueBackup,
): string | undefined {
  for (const member of chainOf(backups, backup)) {
    if (typeof member === "string") return member;
    const fault = findOwnFault(member);
    if (fault !== undefined) return member === backup ? fault : `its base ${member.name}: ${fault}`;
  }
  return undefined;
}

/** By its sentinel, or by its name where that can't be read. A catch-up backup has no base. */
export function isIncrement({ name, baseName }: CatalogueBackup): boolean {
  return baseName === undefined ? isIncrementName(name) : baseName !== "";
}

/** As `findChainFault`, of the backup alone. */
export function findOwnFault({ name, isReadable, folder }: CatalogueBackup): string | undefined {
  if (!isReadable) return "its sentinel can't be read";
  if (folder === undefined) return "it has no objects but its sentinel";
  // WAL-E's backups have pg_control in an ordinary part.
  if (parseBackupName(name).offset !== undefined) return undefined;
  for (const relativeKey of folder.relativeKeys()) {
    if (/^tar_partitions\/[^/]*pg_control\.tar/.test(relativeKey)) return undefined;
  }
  return "its pg_control.tar is missing";
}
