import { readFilesMetadata } from "../backup/backup-documents.ts";
import { ObjectNotFoundError, RefusedError, UsageError } from "../errors.ts";
import type { RelationDescription } from "../layout/files-metadata.ts";
import type { CallOptions, Storage } from "../storage/storage.ts";
import type { Catalogue } from "./catalogue.ts";
import type { SoughtRelation } from "./find.ts";

/**
 * The numbers of a relation. A number may be its OID or that of its files; a name is
 * `[database.]schema.table`, or a table of the schema public, and is looked up in what the backups
 * say of names, the newest first. Rejects with RefusedError when none knows the name.
 */
export async function resolveRelation(
  storage: Storage,
  { backups }: Catalogue,
  text: string,
  options: CallOptions,
): Promise<SoughtRelation> {
  if (/^\d{1,10}$/.test(text)) return { oid: Number(text), relfilenode: Number(text) };
  const name = parseName(text);
  const newest = backups.toSorted((one, other) =>
    (one.finishTimeNs ?? 0n) < (other.finishTimeNs ?? 0n) ? 1 : -1,
  );
  for (const backup of newest) {
    const found = await lookUp(storage, backup.name, name, options);
    if (found !== undefined) return found;
  }
  throw new RefusedError(`no backup knows a relation ${text}`, {
    hint:
      "A name is database.schema.table, or schema.table if it is in one database only. Backups " +
      "know the tables that were there when they began; for any other give its OID or the number " +
      "of its files.",
  });
}

interface RelationName {
  readonly database: string | undefined;
  /** "schema.table". */
  readonly relation: string;
}

function parseName(text: string): RelationName {
  const parts = text.split(".");
  const [one = "", two = "", three = ""] = parts;
  if (parts.length > 3 || parts.includes("")) {
    throw new UsageError(`no name of a relation: ${JSON.stringify(text)}`);
  }
  if (parts.length === 3) return { database: one, relation: `${two}.${three}` };
  return { database: undefined, relation: parts.length === 2 ? `${one}.${two}` : `public.${one}` };
}

async function lookUp(
  storage: Storage,
  backup: string,
  { database, relation }: RelationName,
  { signal }: CallOptions,
): Promise<SoughtRelation | undefined> {
  const oids = new Map<string, number>();
  const found = new Map<string, RelationDescription>();
  try {
    for await (const item of readFilesMetadata(storage, backup, { signal })) {
      if (item.kind === "database") oids.set(item.name, item.oid);
      if (item.kind !== "relation") continue;
      if (database !== undefined && item.database !== database) continue;
      const match = withDescendants(item.relation).find(({ name }) => name === relation);
      if (match !== undefined) found.set(item.database, match);
    }
  } catch (error) {
    if (error instanceof ObjectNotFoundError) return undefined;
    throw error;
  }
  const [first, ...others] = found;
  if (first === undefined) return undefined;
  if (others.length > 0) {
    throw new RefusedError(`${relation} is in ${found.size} databases`, {
      hint: `Choose one: ${[...found.keys()].map((name) => `${name}.${relation}`).join(", ")}.`,
    });
  }
  const [name, { oid, relfilenode }] = first;
  return { databaseOid: oids.get(name), oid, relfilenode };
}

function withDescendants(relation: RelationDescription): readonly RelationDescription[] {
  return [relation, ...relation.descendants];
}
