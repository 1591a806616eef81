import type { CatalogueBackup } from "../catalogue/catalogue.ts";
import type { BackupName } from "../layout/backup-name.ts";
import type { TimeNs } from "../layout/time.ts";

/**
 * Which backups somebody wants to stay. What those need besides, and what stays whoever wants what,
 * is the plan's matter.
 */
export interface Selection {
  /** Reasons for each backup that stays; those without any go. */
  readonly kept: ReadonlyMap<BackupName, readonly string[]>;
  /** Backups from which on all WAL stays, each with the reason for that. */
  readonly replayFrom: ReadonlyMap<BackupName, string>;
  readonly scope: Scope;
  /** Backups that the user himself named to be removed: even if their documents can't be read. */
  readonly named?: ReadonlySet<BackupName> | undefined;
  /** What the user may rely on, to be checked against the plan; absent where he asked for none. */
  readonly promise?: RestorePromise | undefined;
}

/** What may be removed at all. */
export interface Scope {
  readonly hasBackups: boolean;
  readonly hasUnfinished: boolean;
  readonly hasWal: boolean;
  /** Whether permanent backups may be removed like others. */
  readonly isForced?: boolean;
  /** Whether even what may be a running backup goes. */
  readonly hasRunning?: boolean;
  /** Whether WAL stays for nothing but the backups' own need of it. */
  readonly isBare?: boolean;
}

/** Every time from here on can be restored to, on the newest timeline and those it came from. */
export interface RestorePromise {
  readonly fromNs: TimeNs;
  /** The backup that a restore to that time begins with. */
  readonly backup: BackupName;
}

export const WHOLE_SCOPE: Scope = { hasBackups: true, hasUnfinished: true, hasWal: true };

/** Collects reasons by backup, in the order in which they come. */
export class Reasons {
  readonly #reasons = new Map<BackupName, string[]>();

  add({ name }: Pick<CatalogueBackup, "name">, reason: string): void {
    const reasons = this.#reasons.get(name) ?? [];
    if (!reasons.includes(reason)) reasons.push(reason);
    this.#reasons.set(name, reasons);
  }

  has({ name }: Pick<CatalogueBackup, "name">): boolean {
    return this.#reasons.has(name);
  }

  get all(): ReadonlyMap<BackupName, readonly string[]> {
    return this.#reasons;
  }
}
