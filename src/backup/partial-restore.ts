import {
  DamagedError,
  FormatError,
  ObjectNotFoundError,
  RefusedError,
  UsageError,
} from "../errors.ts";
import type { BackupName } from "../layout/backup-name.ts";
import {
  type FilesMetadataItem,
  parseEmbeddedFilesMetadata,
  type RelationDescription,
} from "../layout/files-metadata.ts";
import { filesMetadataKey } from "../layout/keys.ts";
import { parseRelationPath } from "../postgres/relation-file.ts";
import type { Storage } from "../storage/storage.ts";
import { readFilesMetadata, readSentinel } from "./backup-documents.ts";

/** One name of `--restore-only`, in which "*" stands for any characters. */
export interface RestoreChoice {
  /** As it was given. */
  readonly text: string;
  readonly database: RegExp;
  /** Of "schema.name"; absent: all of the database. */
  readonly relation?: RegExp | undefined;
}

/** What of a backup is restored, and what is not. */
export interface PartialRestore {
  /** By path below the data directory. True for all that a server needs to start. */
  isWanted(path: string): boolean;
  /** Databases of which only the catalogs are restored. */
  readonly leftOut: readonly string[];
  /** Databases of which only some tables are restored. */
  readonly reduced: readonly string[];
  /** Databases that nobody chose, restored because the backup does not tell their catalogs apart. */
  readonly unlisted: readonly string[];
  /** False where the backup does not tell which indexes the chosen tables have: WAL-G's. */
  readonly hasIndexes: boolean;
}

/**
 * Objects that initdb made have lower oids: template1, template0, postgres, and all catalogs.
 *
 * @source FirstNormalObjectId, src/include/access/transam.h
 */
const FIRST_USER_OID = 16_384;

/** Reads `db`, `db/table` (in public), `db/schema.table`, `db/schema/table`, joined by commas. */
export function parseRestoreOnly(text: string): readonly RestoreChoice[] {
  return text.split(",").map((choice) => {
    const [database = "", first, second, ...surplus] = choice.trim().split("/");
    const names = [database, first, second].filter((name) => name !== undefined);
    if (surplus.length > 0 || names.includes("")) {
      throw new UsageError(`--restore-only has ${JSON.stringify(choice)}`, {
        hint: "It takes db, db/table, db/schema.table or db/schema/table, joined by commas.",
      });
    }
    return {
      text: choice.trim(),
      database: patternOf(database),
      relation: relationOf(first, second),
    };
  });
}

function relationOf(first: string | undefined, second: string | undefined): RegExp | undefined {
  if (first === undefined) return undefined;
  if (second !== undefined) return patternOf(`${first}.${second}`);
  return patternOf(first.includes(".") ? first : `public.${first}`);
}

function patternOf(name: string): RegExp {
  const literals = name.split("*").map((part) => part.replaceAll(/[\\^$.*+?()[\]{}|]/g, "\\$&"));
  return new RegExp(`^${literals.join(".*")}$`, "s");
}

/**
 * Finds out which files the chosen databases and tables have, by the names that the backup lists.
 * Throws RefusedError if it lists none, or if a choice fits nothing.
 */
export async function planPartialRestore(
  storage: Storage,
  backup: BackupName,
  choices: readonly RestoreChoice[],
  options: { readonly signal: AbortSignal },
): Promise<PartialRestore> {
  const databases = new Map<string, DatabaseChoice>();
  try {
    for await (const item of readItems(storage, backup, options)) {
      if (item.kind !== "database" && item.kind !== "relation") continue;
      const name = item.kind === "database" ? item.name : item.database;
      const database = databases.get(name) ?? new DatabaseChoice(name, choices);
      databases.set(name, database);
      if (item.kind === "database") database.oid = item.oid;
      else database.add(item.relation);
    }
  } catch (error) {
    if (error instanceof ObjectNotFoundError) throw withoutNames(backup, error);
    if (!(error instanceof FormatError)) throw error;
    throw new DamagedError(`${filesMetadataKey(backup)} is damaged: ${error.message}`, {
      hint: "Without it tables can't be told apart: restore everything.",
      cause: error,
    });
  }
  if (databases.size === 0) throw withoutNames(backup);
  const all = [...databases.values()];
  for (const choice of choices) requireMatch(backup, choice, all);
  return new ChosenFiles(all);
}

function withoutNames(backup: BackupName, cause?: unknown): RefusedError {
  return new RefusedError(`backup ${backup} does not list its databases and tables`, {
    hint:
      "It was made without files_metadata.json, or with WALG_DISABLE_PARTIAL_RESTORE. Restore " +
      "everything.",
    cause,
  });
}

async function* readItems(
  storage: Storage,
  backup: BackupName,
  { signal }: { readonly signal: AbortSignal },
): AsyncGenerator<FilesMetadataItem> {
  const { embeddedFilesMetadata: embedded } = await readSentinel(storage, backup, { signal });
  if (embedded !== undefined) yield* parseEmbeddedFilesMetadata(backup, embedded);
  else yield* readFilesMetadata(storage, backup, { signal });
}

function requireMatch(
  backup: BackupName,
  choice: RestoreChoice,
  databases: readonly DatabaseChoice[],
): void {
  const matching = databases.filter(({ name }) => choice.database.test(name));
  if (matching.length === 0) {
    throw new RefusedError(`no database of backup ${backup} is ${JSON.stringify(choice.text)}`, {
      hint: `It has ${databases.map(({ name }) => name).join(", ")}. Nothing was restored.`,
    });
  }
  if (choice.relation === undefined || matching.some(({ found }) => found.has(choice))) return;
  throw new RefusedError(`no table of backup ${backup} is ${JSON.stringify(choice.text)}`, {
    hint:
      "Tables are db/table in the schema public, or db/schema.table; upper and lower case count. " +
      "Nothing was restored.",
  });
}

/** What is chosen of one database, while its relations are read. */
class DatabaseChoice {
  readonly name: string;
  /** 0 until it is known. */
  oid = 0;
  /** Choices of tables that fit one. */
  readonly found = new Set<RestoreChoice>();
  /** Names of files that are restored, besides those of catalogs that still have their first. */
  readonly files = new Set<number>();
  readonly #isChosen: boolean;
  readonly #tables: readonly RestoreChoice[];
  #count = 0;
  /** Chosen tables, with what the backup says that belongs to them. */
  readonly #chosen = new Map<number, ReadonlySet<number>>();
  /** TOAST tables and their indexes, by the oid of the table that has it. */
  readonly #toast = new Map<number, RelationDescription[]>();

  constructor(name: string, choices: readonly RestoreChoice[]) {
    this.name = name;
    const matching = choices.filter(({ database }) => database.test(name));
    this.#isChosen = matching.some(({ relation }) => relation === undefined);
    this.#tables = matching.filter(({ relation }) => relation !== undefined);
  }

  add(relation: RelationDescription): void {
    this.#count += 1;
    // A catalog that was rewritten has another file name, and no database opens without it.
    if (relation.oid < FIRST_USER_OID) this.files.add(relation.relfilenode);
    if (this.#tables.length === 0) return;
    const [, table] = /^pg_toast\.pg_toast_(\d+)(?:_index)?$/.exec(relation.name) ?? [];
    if (table !== undefined) {
      this.#toast.set(Number(table), [...(this.#toast.get(Number(table)) ?? []), relation]);
    }
    this.#choose(relation);
  }

  #choose(relation: RelationDescription): void {
    const matching = this.#tables.filter((choice) => choice.relation?.test(relation.name));
    for (const choice of matching) this.found.add(choice);
    if (matching.length > 0) this.#take(relation);
    for (const descendant of relation.descendants) this.#choose(descendant);
  }

  #take(relation: RelationDescription): void {
    this.files.add(relation.relfilenode);
    this.#chosen.set(relation.oid, new Set(relation.descendants.map(({ oid }) => oid)));
    for (const descendant of relation.descendants) this.#take(descendant);
  }

  /** "whole" also for what initdb made, and where nothing tells what a server can't do without. */
  get fate(): "chosen" | "system" | "unlisted" | "reduced" | "left out" {
    if (this.#isChosen) return "chosen";
    if (this.oid < FIRST_USER_OID) return "system";
    if (this.#count === 0) return "unlisted";
    return this.found.size > 0 ? "reduced" : "left out";
  }

  /** Adds the TOAST tables of what was chosen; false if the backup itself did not tell of them. */
  finish(): boolean {
    let isTold = true;
    for (const [oid, descendants] of this.#chosen) {
      for (const toast of this.#toast.get(oid) ?? []) {
        this.files.add(toast.relfilenode);
        if (!descendants.has(toast.oid)) isTold = false;
      }
    }
    return isTold;
  }
}

class ChosenFiles implements PartialRestore {
  readonly leftOut: readonly string[];
  readonly reduced: readonly string[];
  readonly unlisted: readonly string[];
  readonly hasIndexes: boolean;
  /** By database; all files of others are restored. */
  readonly #files: ReadonlyMap<number, ReadonlySet<number>>;

  constructor(databases: readonly DatabaseChoice[]) {
    const named = (wanted: DatabaseChoice["fate"]) =>
      databases.filter(({ fate }) => fate === wanted);
    const names = (wanted: DatabaseChoice["fate"]) => named(wanted).map(({ name }) => name);
    this.leftOut = names("left out");
    this.reduced = names("reduced");
    this.unlisted = names("unlisted");
    this.hasIndexes = named("reduced")
      .map((database) => database.finish())
      .every(Boolean);
    const partial = [...named("left out"), ...named("reduced")];
    this.#files = new Map(partial.map(({ oid, files }) => [oid, files]));
  }

  isWanted(path: string): boolean {
    const file = parseRelationPath(path);
    if (file === undefined || file.relfilenode < FIRST_USER_OID) return true;
    return this.#files.get(file.databaseOid)?.has(file.relfilenode) ?? true;
  }
}
