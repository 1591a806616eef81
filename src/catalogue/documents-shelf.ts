import { type BackupDocuments, readBackupDocuments } from "../backup/backup-documents.ts";
import { codecOf } from "../codec/table.ts";
import { boundedParallel } from "../io/ordered.ts";
import { collectGarbage } from "../io/runtime.ts";
import type { BackupName } from "../layout/backup-name.ts";
import type { CallOptions, Storage } from "../storage/storage.ts";
import type { BackupFolder } from "./backup-folders.ts";

const MIB = 1024 * 1024;
/** Of documents as they are stored: those of some 400,000 files, which take 30 MiB in memory. */
const SHELF_BYTES = 64 * MIB;
/** Documents of 50,000 files: while larger ones are read, no others are. */
const LARGE_BYTES = 8 * MIB;
const NO_NAMES: ReadonlySet<BackupName> = new Set();

interface ListedBackup {
  readonly name: BackupName;
  readonly folder?: Pick<BackupFolder, "documentBytes"> | undefined;
}

export interface ShelfOptions {
  /** For documents that were read before and can't be read again. */
  readonly onFault: (backup: BackupName, error: unknown) => void;
  /** Backups of which documents are read at the same time. */
  readonly jobs: number;
}

/**
 * Documents of backups while their parts are checked. Those of a million files take 75 MiB, so that
 * no more are held at a time than there is room for; the others are read again when it is their
 * turn.
 */
export class DocumentsShelf {
  readonly #storage: Storage;
  readonly #options: ShelfOptions;
  /** As stored. */
  readonly #sizes: ReadonlyMap<BackupName, number>;
  readonly #held = new Map<BackupName, BackupDocuments>();
  #heldBytes = 0;

  constructor(storage: Storage, backups: readonly ListedBackup[], options: ShelfOptions) {
    this.#storage = storage;
    this.#options = options;
    this.#sizes = new Map(backups.map(({ name, folder }) => [name, folder?.documentBytes ?? 0]));
  }

  /** Takes what was read anyway, if there is room. */
  offer(documents: BackupDocuments): void {
    const { name } = documents;
    const sizeBytes = this.#sizeOf(name);
    if (this.#heldBytes + sizeBytes > SHELF_BYTES) return;
    this.#heldBytes += sizeBytes;
    this.#held.set(name, documents);
  }

  /** Runs `read` for each backup: small ones at the same time, each large one alone. */
  async forEach<T extends { readonly name: BackupName }>(
    backups: readonly T[],
    read: (backup: T, options: CallOptions) => Promise<void>,
    options: CallOptions,
  ): Promise<void> {
    const isLarge = ({ name }: T): boolean => this.#sizeOf(name) > LARGE_BYTES;
    const small = backups.filter((backup) => !isLarge(backup));
    await boundedParallel(small, this.#options.jobs, read, options);
    await boundedParallel(backups.filter(isLarge), 1, read, options);
  }

  /**
   * Runs `use` on all of these backups, as many at a time as there is room for. What it was given
   * is let go as soon as it resolves, before more is read: it must keep nothing of it.
   */
  async inTurn(
    names: readonly BackupName[],
    use: (held: ReadonlyMap<BackupName, BackupDocuments>) => Promise<void>,
    { signal }: CallOptions,
  ): Promise<void> {
    for (const bundle of this.#bundles(names)) {
      this.#keep(new Set(bundle));
      const missing = bundle.filter((name) => !this.#held.has(name)).map((name) => ({ name }));
      await this.forEach(missing, async ({ name }, options) => await this.#read(name, options), {
        signal,
      });
      await use(this.#held);
    }
    // Segments of WAL are read next, which need room, too.
    const sizeBytes = [...this.#held.keys()].reduce((sum, name) => sum + this.#sizeOf(name), 0);
    if (sizeBytes > LARGE_BYTES) this.#keep(NO_NAMES);
  }

  /** Lets the others go, in the map itself: who was given that may still hold it. */
  #keep(names: ReadonlySet<BackupName>): void {
    let droppedBytes = 0;
    for (const name of this.#held.keys()) {
      if (names.has(name)) continue;
      this.#held.delete(name);
      droppedBytes += this.#sizeOf(name);
    }
    if (droppedBytes > LARGE_BYTES) collectGarbage();
  }

  #sizeOf(name: BackupName): number {
    return this.#sizes.get(name) ?? 0;
  }

  async #read(name: BackupName, { signal }: CallOptions): Promise<void> {
    try {
      const options = { zstd: codecOf("zstd"), signal };
      this.#held.set(name, await readBackupDocuments(this.#storage, name, options));
    } catch (error) {
      signal.throwIfAborted();
      this.#options.onFault(name, error);
    }
  }

  *#bundles(names: readonly BackupName[]): Generator<readonly BackupName[], void, undefined> {
    let bundle: BackupName[] = [];
    let sizeBytes = 0;
    for (const name of names) {
      const moreBytes = this.#sizeOf(name);
      if (bundle.length > 0 && sizeBytes + moreBytes > SHELF_BYTES) {
        yield bundle;
        bundle = [];
        sizeBytes = 0;
      }
      bundle.push(name);
      sizeBytes += moreBytes;
    }
    if (bundle.length > 0) yield bundle;
  }
}
