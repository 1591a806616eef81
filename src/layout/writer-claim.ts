import { FormatError } from "../errors.ts";
import { formatJson, parseJson } from "./json.ts";
import { jsonObject, objectMember } from "./json-value.ts";

/** Who writes a timeline, and how; the object under `writerKey`. */
export interface WriterClaim {
  readonly systemId: bigint;
  readonly timeline: number;
  /** What the administrator called the server; "" if it has no such name. */
  readonly name: string;
  readonly host: string;
  /** Absolute, links resolved. */
  readonly dataDirectory: string;
  /** Device and inode of that directory: "2049:131073". */
  readonly directoryId: string;
  /** Of the running kernel; "" where there is none. */
  readonly bootId: string;
  /** Of its WAL objects, without dot; "" for none. */
  readonly extension: string;
}

/** Text of the object. */
export function formatWriterClaim(claim: WriterClaim): string {
  return formatJson(
    jsonObject([
      ["system_identifier", claim.systemId],
      ["timeline", BigInt(claim.timeline)],
      ["name", claim.name],
      ["host", claim.host],
      ["data_directory", claim.dataDirectory],
      ["directory_id", claim.directoryId],
      ["boot_id", claim.bootId],
      ["extension", claim.extension],
    ]),
  );
}

/** Throws FormatError for any other text. */
export function parseWriterClaim(text: string): WriterClaim {
  const json = parseJson(text);
  const systemId = objectMember(json, "system_identifier");
  const timeline = objectMember(json, "timeline");
  if (typeof systemId !== "bigint" || typeof timeline !== "bigint") {
    throw new FormatError("a writer's claim has no system_identifier or no timeline");
  }
  const textOf = (member: string): string => {
    const value = objectMember(json, member);
    if (typeof value === "string") return value;
    throw new FormatError(`a writer's claim has no ${member}`);
  };
  const extension = textOf("extension");
  if (!/^[a-z0-9]{0,8}$/.test(extension)) {
    throw new FormatError(`a writer's claim has the extension ${JSON.stringify(extension)}`);
  }
  return {
    systemId,
    timeline: Number(timeline),
    name: textOf("name"),
    host: textOf("host"),
    dataDirectory: textOf("data_directory"),
    directoryId: textOf("directory_id"),
    bootId: textOf("boot_id"),
    extension,
  };
}
