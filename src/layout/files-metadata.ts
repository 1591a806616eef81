import { FormatError } from "../errors.ts";
import type { BackupName } from "./backup-name.ts";
import { Fields } from "./fields.ts";
import { type JsonPath, readJsonValues } from "./json-reader.ts";
import { isJsonArray, isJsonObject, jsonObject, type JsonValue } from "./json-value.ts";
import { formatTime, parseTime, type TimeNs } from "./time.ts";

/** One member of `Files`: a regular file, directory or link, by its tar entry's name. */
export interface FileDescription {
  readonly name: string;
  /** The parts hold only the changed pages; the rest is in the base. */
  readonly isIncremented: boolean;
  /** Unchanged since the base: the parts hold nothing of it. */
  readonly isSkipped: boolean;
  readonly mtimeNs: TimeNs;
  /** Pages with a wrong checksum; absent when none was found or none was looked for. */
  readonly corruptBlocks?: CorruptBlocks | undefined;
  /** Rows changed in the relation, as far as it was counted. */
  readonly updatesCount: bigint;
}

export interface CorruptBlocks {
  readonly count: number;
  /** Ascending, relative to the file; not all of them unless it was asked for. */
  readonly blockNumbers: readonly number[];
}

/** A relation of a database, for partial restores. */
export interface RelationDescription {
  /** "schema.name". */
  readonly name: string;
  readonly oid: number;
  /** Name of its files; 0 for a partitioned table, which has none. */
  readonly relfilenode: number;
  /** All its partitions and other descendants. */
  readonly descendants: readonly RelationDescription[];
}

/** What a reader of files_metadata.json is told, in the order of the text. */
export type FilesMetadataItem =
  | ({ readonly kind: "file" } & FileDescription)
  | { readonly kind: "member"; readonly part: string; readonly name: string }
  | { readonly kind: "database"; readonly name: string; readonly oid: number }
  | {
      readonly kind: "relation";
      readonly database: string;
      readonly relation: RelationDescription;
    };

/** `"name":{...}`: one member of `Files`; `offsetMinutes` is the local zone's at that time. */
export function formatFileDescription(file: FileDescription, offsetMinutes: number): string {
  const corrupt = file.corruptBlocks;
  const corruptText =
    corrupt === undefined
      ? ""
      : `,"CorruptBlocks":${JSON.stringify({
          CorruptBlocksCount: corrupt.count,
          SomeCorruptBlocks: corrupt.blockNumbers,
        })}`;
  return (
    `${JSON.stringify(file.name)}:{"IsIncremented":${file.isIncremented}` +
    `,"IsSkipped":${file.isSkipped},"MTime":"${formatTime(file.mtimeNs, offsetMinutes)}"` +
    `${corruptText},"UpdatesCount":${file.updatesCount}}`
  );
}

/** Begins one member of `DatabasesByNames`: relations joined by commas follow, then the end. */
export function formatDatabaseBegin(name: string, oid: number): string {
  return `${JSON.stringify(name)}:{"oid":${oid},"tables_new":{`;
}

/** `"schema.name":{...}`: one relation of a database. */
export function formatRelation(relation: RelationDescription): string {
  const { name, oid, relfilenode, descendants } = relation;
  const subtables =
    descendants.length === 0
      ? ""
      : `,"subtables":{${descendants.map((child) => formatRelation(child)).join(",")}}`;
  return `${JSON.stringify(name)}:{"oid":${oid},"relfilenode":${relfilenode}${subtables}}`;
}

export function formatDatabaseEnd(): string {
  return "}}";
}

/** Text of one group: its members joined by commas, cut anywhere; empty if there are none. */
type MembersText = AsyncIterable<Uint8Array>;

export interface FilesMetadataText {
  /** Results of `formatFileDescription`. */
  readonly files: MembersText;
  /** `"part_001.tar.zst":["/","/base"]`: the entries of each part. */
  readonly parts: MembersText;
  /** Databases as `formatDatabaseBegin`, `formatRelation` and `formatDatabaseEnd` write them. */
  readonly databases: MembersText;
}

/** Bytes of files_metadata.json; a group without members is left out, as WAL-G does. */
export async function* formatFilesMetadata(text: FilesMetadataText): AsyncGenerator<Uint8Array> {
  let separator = "{";
  for (const [group, members] of [
    ["Files", text.files],
    ["TarFileSets", text.parts],
    ["DatabasesByNames", text.databases],
  ] as const) {
    let isEmpty = true;
    for await (const piece of members) {
      if (isEmpty) yield Buffer.from(`${separator}"${group}":{`);
      isEmpty = false;
      yield piece;
    }
    if (isEmpty) continue;
    yield Buffer.from("}");
    separator = ",";
  }
  yield Buffer.from(separator === "{" ? "{}" : "}");
}

/**
 * Reads files_metadata.json of any release in memory for one entry (for `DatabasesByNames`, one
 * relation with its partitions). Throws FormatError or TruncatedError.
 */
export async function* parseFilesMetadata(
  backup: BackupName,
  bytes: AsyncIterable<Uint8Array>,
): AsyncGenerator<FilesMetadataItem> {
  const document = `files_metadata.json of ${backup}`;
  for await (const { path, value } of readJsonValues(bytes, isEntered)) {
    const item = itemOf(document, path, value);
    if (item !== undefined) yield item;
  }
}

/** The same for the members that a version 1 sentinel holds. */
export function* parseEmbeddedFilesMetadata(
  backup: BackupName,
  metadata: JsonValue,
): Generator<FilesMetadataItem> {
  const document = `sentinel of ${backup}`;
  for (const { path, value } of walkValues([], metadata)) {
    const item = itemOf(document, path, value);
    if (item !== undefined) yield item;
  }
}

function* walkValues(
  path: JsonPath,
  value: JsonValue,
): Generator<{ readonly path: JsonPath; readonly value: JsonValue }> {
  if (isEntered(path) && isJsonObject(value)) {
    for (const [name, member] of value) yield* walkValues([...path, name], member);
  } else if (isEntered(path) && isJsonArray(value)) {
    for (const item of value) yield* walkValues([...path, ""], item);
  } else {
    yield { path, value };
  }
}

function isEntered(path: JsonPath): boolean {
  const [group, , third] = path;
  if (group === undefined) return true;
  switch (group.toLowerCase()) {
    case "files":
      return path.length === 1;
    case "tarfilesets":
      return path.length <= 2;
    case "databasesbynames":
      return path.length <= 2 || (path.length === 3 && third?.toLowerCase() === "tables_new");
    default:
      return false;
  }
}

function itemOf(
  document: string,
  [group = "", second = "", third = "", fourth = ""]: JsonPath,
  value: JsonValue,
): FilesMetadataItem | undefined {
  switch (group.toLowerCase()) {
    case "files":
      return second === "" && value === null ? undefined : fileItem(document, second, value);
    case "tarfilesets":
      if (value === null) return undefined;
      if (typeof value === "string") return { kind: "member", part: second, name: value };
      throw new FormatError(`TarFileSets of ${document} has an entry that is no string`);
    case "databasesbynames":
      if (third.toLowerCase() === "oid") {
        const oid = new Fields(document, jsonObject([["oid", value]])).integer("oid");
        return { kind: "database", name: second, oid: oid ?? 0 };
      }
      if (third.toLowerCase() !== "tables_new" || fourth === "") return undefined;
      return { kind: "relation", database: second, relation: relationOf(fourth, value) };
    default:
      return undefined;
  }
}

function fileItem(document: string, name: string, value: JsonValue): FilesMetadataItem {
  const fields = new Fields(`${name} in ${document}`, value);
  return {
    kind: "file",
    name,
    isIncremented: fields.boolean("IsIncremented") ?? false,
    isSkipped: fields.boolean("IsSkipped") ?? false,
    mtimeNs: parseTime(fields.required("MTime", fields.string("MTime"))),
    corruptBlocks: corruptBlocksOf(fields),
    updatesCount: fields.uint64("UpdatesCount") ?? 0n,
  };
}

function corruptBlocksOf(fields: Fields): CorruptBlocks | undefined {
  const value = fields.object("CorruptBlocks");
  if (value === undefined) return undefined;
  const corrupt = new Fields("CorruptBlocks", value);
  const numbers = corrupt.value("SomeCorruptBlocks");
  return {
    count: corrupt.integer("CorruptBlocksCount") ?? 0,
    blockNumbers: isJsonArray(numbers) ? numbers.map(Number) : [],
  };
}

function relationOf(name: string, value: JsonValue): RelationDescription {
  const fields = new Fields(`relation ${name}`, value);
  const descendants = fields.object("subtables") ?? new Map<string, JsonValue>();
  return {
    name,
    oid: fields.integer("oid") ?? 0,
    relfilenode: fields.integer("relfilenode") ?? 0,
    descendants: [...descendants].map(([child, member]) => relationOf(child, member)),
  };
}
