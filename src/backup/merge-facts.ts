import { ObjectNotFoundError } from "../errors.ts";
import {
  type CorruptBlocks,
  formatDatabaseBegin,
  formatDatabaseEnd,
  formatRelation,
} from "../layout/files-metadata.ts";
import type { Storage } from "../storage/storage.ts";
import {
  type BackupDocuments,
  readFilesMetadata,
  readManifestLines,
  type ReadDocumentsOptions,
} from "./backup-documents.ts";
import type { DocumentsSpool } from "./documents-spool.ts";
import { parseEntryName } from "./extract-path.ts";
import type { MergePlan } from "./merge-plan.ts";

/** What is known of a file besides its content. */
export interface FileFacts {
  readonly mtimeNs: bigint;
  readonly corruptBlocks?: CorruptBlocks | undefined;
}

/** What the documents say of the files of a merged backup. */
export class MergeFacts {
  readonly #newest: BackupDocuments;
  readonly #corrupt: ReadonlyMap<string, number>;
  /** Of WAL-G's backups; ours have them in the manifest. */
  readonly #times: ReadonlyMap<string, bigint>;

  private constructor(
    newest: BackupDocuments,
    corrupt: ReadonlyMap<string, number>,
    times: ReadonlyMap<string, bigint>,
  ) {
    this.#newest = newest;
    this.#corrupt = corrupt;
    this.#times = times;
  }

  /** Reads the newest backup's documents once more; puts what it knows of databases into `to`. */
  static async read(
    storage: Storage,
    { newest, steps }: MergePlan,
    to: DocumentsSpool,
    options: ReadDocumentsOptions,
  ): Promise<MergeFacts> {
    const { name, manifest } = newest;
    const corrupt = new Map<string, number>();
    for (const { pages, files } of steps) {
      const listed = pages.manifest?.files;
      for (const id of listed?.ids() ?? []) {
        const count = listed?.corruptPagesOfId(id) ?? 0;
        if (count === 0) continue;
        const path = pages.paths.pathOf(id);
        if (!pages.increments.hasId(id) && !files.expected.has(path)) continue;
        corrupt.set(path, (corrupt.get(path) ?? 0) + count);
      }
    }
    const times = new Map<string, bigint>();
    if (manifest !== undefined) {
      for await (const line of readManifestLines(storage, name, options)) {
        if (line.kind === "database") to.addDatabase(line);
      }
    }
    const names = new DatabaseNames(to);
    try {
      for await (const item of readFilesMetadata(storage, name, options)) {
        if (item.kind === "database") names.begin(item.name, item.oid);
        else if (item.kind === "relation") names.add(formatRelation(item.relation));
        else if (item.kind === "file" && manifest === undefined) {
          const path = parseEntryName(item.name);
          times.set(path, item.mtimeNs);
          const count = item.corruptBlocks?.count ?? 0;
          if (count > 0) corrupt.set(path, count);
        }
      }
    } catch (error) {
      if (!(error instanceof ObjectNotFoundError)) throw error;
    }
    names.end();
    return new MergeFacts(newest, corrupt, times);
  }

  /** Damaged pages of all files, at most. */
  get corruptPages(): number {
    return [...this.#corrupt.values()].reduce((sum, count) => sum + count, 0);
  }

  of(path: string): FileFacts {
    const { manifest } = this.#newest;
    const listed = manifest?.files.get(path) ?? manifest?.unchanged.get(path);
    const count = this.#corrupt.get(path);
    return {
      mtimeNs: listed?.mtimeNs ?? this.#times.get(path) ?? 0n,
      corruptBlocks: count === undefined ? undefined : { count, blockNumbers: [] },
    };
  }
}

/** Writes the members of `DatabasesByNames` again. */
class DatabaseNames {
  readonly #to: DocumentsSpool;
  #relationCount: number | undefined;

  constructor(to: DocumentsSpool) {
    this.#to = to;
  }

  begin(name: string, oid: number): void {
    this.end();
    this.#to.addDatabaseText(formatDatabaseBegin(name, oid), true);
    this.#relationCount = 0;
  }

  add(relation: string): void {
    if (this.#relationCount === undefined) return;
    this.#to.addDatabaseText(`${this.#relationCount === 0 ? "" : ","}${relation}`, false);
    this.#relationCount += 1;
  }

  end(): void {
    if (this.#relationCount !== undefined) this.#to.addDatabaseText(formatDatabaseEnd(), false);
    this.#relationCount = undefined;
  }
}
