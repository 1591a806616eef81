import { FormatError } from "../errors.ts";
import { formatJson, parseJson } from "./json.ts";
import { type JsonObject, jsonObject, type JsonValue, objectMember } from "./json-value.ts";

/** One of two contents of a WAL file, and where it comes from. */
export interface CollidedSide {
  readonly sizeBytes: number;
  /** Hex. */
  readonly sha256: string;
  /** Of a segment. */
  readonly endOfRecords: number | undefined;
  /** Of a segment: as its header says. */
  readonly systemId: bigint | undefined;
}

/** What is known of a file in quarantine; the object beside it. */
export interface CollisionNote {
  /** As PostgreSQL calls it. */
  readonly wal: string;
  /** Of the file itself, as it was kept. */
  readonly objectKey: string;
  readonly pushedBy: string | undefined;
  readonly content: CollidedSide;
  readonly archivedAs: string;
  /** Who writes the timeline. */
  readonly archivedBy: string | undefined;
  readonly archivedContent: CollidedSide;
}

/** Who the two servers are, as far as a note says; for messages. */
export type CollisionParties = Readonly<
  Record<"systemId" | "pushedBy" | "archivedSystemId" | "archivedBy", string | undefined>
>;

/** Whose the two contents are, for messages. Clusters are told apart only where they differ. */
export function partiesText(parties: CollisionParties): string {
  const { archivedSystemId, systemId, archivedBy = "unknown", pushedBy = "unknown" } = parties;
  if (archivedSystemId !== systemId) {
    const [there = "unknown", here = "unknown"] = [archivedSystemId, systemId];
    return `archived from cluster ${there}, timeline of ${archivedBy}; brought from cluster ${here} by ${pushedBy}`;
  }
  if (archivedBy === pushedBy) return `both under the name of ${pushedBy}`;
  return `the timeline is written by ${archivedBy}; brought by ${pushedBy}`;
}

/** Text of the object. */
export function formatCollisionNote(note: CollisionNote): string {
  const { content, archivedContent } = note;
  return `${formatJson(
    jsonObject([
      ["wal", note.wal],
      ["object", note.objectKey],
      ["pushed_by", note.pushedBy],
      ["system_identifier", content.systemId],
      ["content", sideOf(content)],
      ["archived_as", note.archivedAs],
      ["archived_by", note.archivedBy],
      ["archived_system_identifier", archivedContent.systemId],
      ["archived_content", sideOf(archivedContent)],
    ]),
  )}\n`;
}

/** Throws FormatError for what is no JSON object. */
export function parseCollisionParties(text: string): CollisionParties {
  const json = parseJson(text);
  if (objectMember(json, "wal") === undefined) throw new FormatError("a collision names no WAL");
  return {
    systemId: show(objectMember(json, "system_identifier")),
    pushedBy: show(objectMember(json, "pushed_by")),
    archivedSystemId: show(objectMember(json, "archived_system_identifier")),
    archivedBy: show(objectMember(json, "archived_by")),
  };
}

function show(value: JsonValue | undefined): string | undefined {
  return typeof value === "string" || typeof value === "bigint" ? String(value) : undefined;
}

function sideOf({ sizeBytes, sha256, endOfRecords }: CollidedSide): JsonObject {
  return jsonObject([
    ["size", BigInt(sizeBytes)],
    ["sha256", sha256],
    ["end_of_records", endOfRecords === undefined ? undefined : BigInt(endOfRecords)],
  ]);
}
