import { FormatError } from "../errors.ts";
import { Fields } from "./fields.ts";
import { type JsonObject, jsonObject, type JsonValue } from "./json-value.ts";

/** Where the tablespaces of a backup were. */
export interface TablespaceSpec {
  /** Data directory that the links are in. */
  readonly basePrefix: string;
  readonly tablespaces: readonly Tablespace[];
}

/** One link in pg_tblspc. */
export interface Tablespace {
  /** Its oid as text, by which the link is named. */
  readonly name: string;
  /** Target of the link, without "/" at its end. */
  readonly location: string;
  /** "pg_tblspc/16385", below the base prefix. */
  readonly link: string;
}

/** The `Spec` member of a sentinel: names sorted as text, so that numbers come first. */
export function formatTablespaceSpec(spec: TablespaceSpec): JsonObject {
  const members: [string, JsonValue][] = spec.tablespaces.map(({ name, location, link }) => [
    name,
    jsonObject([
      ["loc", location],
      ["link", link],
    ]),
  ]);
  members.push(["base_prefix", spec.basePrefix]);
  members.push(["tablespaces", spec.tablespaces.map(({ name }) => name)]);
  return jsonObject(members.toSorted(([left], [right]) => compareBytes(left, right)));
}

/** Reads `Spec`, or the content of a --restore-spec file. Throws FormatError. */
export function parseTablespaceSpec(value: JsonValue): TablespaceSpec {
  const fields = new Fields("tablespace spec", value);
  const basePrefix = fields.required("base_prefix", fields.string("base_prefix"));
  const names = fields.strings("tablespaces") ?? [];
  const tablespaces = names.map((name) => {
    const member = fields.value(name);
    if (member === undefined) throw new FormatError(`tablespace spec has no ${name}`);
    const tablespace = new Fields(`tablespace ${name}`, member);
    return {
      name,
      location: tablespace.required("loc", tablespace.string("loc")),
      link: tablespace.required("link", tablespace.string("link")),
    };
  });
  return { basePrefix, tablespaces };
}

function compareBytes(left: string, right: string): number {
  return Buffer.compare(Buffer.from(left), Buffer.from(right));
}
