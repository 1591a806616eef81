import { FormatError, RefusedError } from "../errors.ts";
import { Fields } from "../layout/fields.ts";
import { formatJson, parseJson } from "../layout/json.ts";
import { isJsonArray, jsonObject, type JsonValue } from "../layout/json-value.ts";
import { parseEntryName } from "./extract-path.ts";
import { CONTROL_PATH } from "./restore-marker.ts";

const MODE_MASK = 0o7777;

/** What follows about one path; "file" and "pages" have data frames behind it. */
export type CatchUpEntry =
  | { readonly kind: "directory"; readonly path: string; readonly mode: number }
  /** There and unchanged. */
  | { readonly kind: "same"; readonly path: string }
  | CatchUpFile;

export interface CatchUpFile {
  /** "pages": an increment, in the form that backups have them; "file": the whole content. */
  readonly kind: "file" | "pages";
  readonly path: string;
  readonly mode: number;
  /** Of the data that follows. */
  readonly sizeBytes: number;
}

/** A tablespace as the sender has it. */
export interface CatchUpTablespace {
  readonly oid: string;
  readonly location: string;
  /** By how much the receiver's files in it will grow. */
  readonly growthBytes: number;
}

/** What the sender says before the first entry. */
export interface CatchUpStart {
  /** Size of all files of the cluster: so much is read, not sent. */
  readonly totalBytes: number;
  /** By how much the receiver's files will grow, those in tablespaces not counted. */
  readonly growthBytes: number;
  readonly tablespaces: readonly CatchUpTablespace[];
}

/** What both ends count; has to be equal at the end. */
export interface CatchUpSummary {
  readonly entryCount: number;
  readonly dataBytes: number;
  /** XXH64 of all entries with their data. */
  readonly digest: string;
}

export function formatEntry(entry: CatchUpEntry): Buffer {
  const { kind, path } = entry;
  return encode([
    [kind, path],
    ["mode", kind === "same" ? undefined : BigInt(entry.mode)],
    ["size", kind === "file" || kind === "pages" ? BigInt(entry.sizeBytes) : undefined],
  ]);
}

/** Throws FormatError for a path that may not be written, and for anything else unexpected. */
export function parseEntry(payload: Buffer): CatchUpEntry {
  const fields = decode("catch-up entry", payload);
  for (const kind of ["same", "directory", "file", "pages"] as const) {
    const name = fields.string(kind);
    if (name === undefined) continue;
    const path = parseEntryName(name);
    if (kind === "same") return { kind, path };
    const mode = count(fields, "mode");
    if (mode > MODE_MASK) throw new FormatError(`catch-up entry has no permission bits: ${mode}`);
    if (kind === "directory") return { kind, path, mode };
    if (path === "") throw new FormatError("catch-up entry makes a file of the data directory");
    return { kind, path, mode, sizeBytes: count(fields, "size") };
  }
  throw new FormatError("catch-up entry is of no known kind");
}

/** Whether the entry is the file that comes last and makes the directory startable. */
export function isControlEntry(entry: CatchUpEntry): boolean {
  return entry.path === CONTROL_PATH;
}

export function formatStart({ totalBytes, growthBytes, tablespaces }: CatchUpStart): Buffer {
  return encode([
    ["total", BigInt(totalBytes)],
    ["growth", BigInt(growthBytes)],
    [
      "tablespaces",
      tablespaces.map((one) =>
        jsonObject([
          ["oid", one.oid],
          ["location", one.location],
          ["growth", BigInt(one.growthBytes)],
        ]),
      ),
    ],
  ]);
}

export function parseStart(payload: Buffer): CatchUpStart {
  const fields = decode("catch-up start", payload);
  const list = fields.value("tablespaces");
  if (!isJsonArray(list)) throw new FormatError("catch-up start has no list of tablespaces");
  return {
    totalBytes: count(fields, "total"),
    growthBytes: count(fields, "growth"),
    tablespaces: list.map((value) => {
      const one = new Fields("tablespace of a catch-up start", value);
      const oid = text(one, "oid");
      if (!/^[1-9][0-9]{0,9}$/.test(oid)) throw new FormatError(`no tablespace's oid: ${oid}`);
      return { oid, location: text(one, "location"), growthBytes: count(one, "growth") };
    }),
  };
}

export function formatSummary({ entryCount, dataBytes, digest }: CatchUpSummary): Buffer {
  return encode([
    ["entries", BigInt(entryCount)],
    ["bytes", BigInt(dataBytes)],
    ["xxh64", digest],
  ]);
}

export function parseSummary(payload: Buffer): CatchUpSummary {
  const fields = decode("catch-up summary", payload);
  return {
    entryCount: count(fields, "entries"),
    dataBytes: count(fields, "bytes"),
    digest: text(fields, "xxh64"),
  };
}

/** Throws FormatError when the two ends have not seen the same. */
export function requireSameSummary(mine: CatchUpSummary, theirs: CatchUpSummary): void {
  for (const name of ["entryCount", "dataBytes", "digest"] as const) {
    if (mine[name] === theirs[name]) continue;
    throw new FormatError(
      `the two ends differ in ${name}: ${mine[name]} here, ${theirs[name]} at the other end`,
    );
  }
}

/** Why an end gives up, for the other one. */
export function formatFailure(message: string, hint: string | undefined): Buffer {
  return encode([
    ["message", message],
    ["hint", hint],
  ]);
}

/** What the other end gave up for. */
export function parseFailure(payload: Buffer): RefusedError {
  const fields = decode("catch-up error", payload);
  const hint = fields.string("hint");
  return new RefusedError(`the other end says: ${text(fields, "message")}`, hint ? { hint } : {});
}

/** A file that the receiver had when it was whole. */
export interface ListedFile {
  readonly path: string;
  readonly sizeBytes: number;
}

/** One line of a list of files. */
export function formatListedFile({ path, sizeBytes }: ListedFile): string {
  return `${sizeBytes} ${path}\n`;
}

/** Reads whole lines. Throws FormatError for what `formatListedFile` does not write. */
export function* parseListedFiles(lines: string): Generator<ListedFile> {
  for (let at = 0; at < lines.length;) {
    const end = lines.indexOf("\n", at);
    const line = end === -1 ? lines.slice(at) : lines.slice(at, end);
    const match = /^(0|[1-9][0-9]{0,14}) ([^\n]+)$/.exec(line);
    if (end === -1 || match === null) {
      throw new FormatError(`list of files has the line ${JSON.stringify(line.slice(0, 200))}`);
    }
    yield { sizeBytes: Number(match[1]), path: parseEntryName(match[2] ?? "") };
    at = end + 1;
  }
}

function encode(members: readonly (readonly [string, JsonValue | undefined])[]): Buffer {
  return Buffer.from(formatJson(jsonObject(members)));
}

function decode(what: string, payload: Buffer): Fields {
  return new Fields(what, parseJson(payload.toString()));
}

function count(fields: Fields, name: string): number {
  const value = fields.required(name, fields.integer(name));
  if (value < 0) throw new FormatError(`${name} is negative: ${value}`);
  return value;
}

function text(fields: Fields, name: string): string {
  return fields.required(name, fields.string(name));
}
