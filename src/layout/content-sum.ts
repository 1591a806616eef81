import { FormatError } from "../errors.ts";
import { formatJson, parseJson } from "./json.ts";
import { jsonObject, objectMember } from "./json-value.ts";

/** What a small WAL file held when PostgreSQL handed it over, before it was compressed. */
export interface ContentSum {
  /** "00000002.history", or a backup's label in the WAL. */
  readonly wal: string;
  readonly sizeBytes: number;
  /** Hex. */
  readonly sha256: string;
}

/** Folder of all sums. Ours. */
export const SUMS_FOLDER = "walnut_005/sums/";

export function contentSumKey(wal: string): string {
  return `${SUMS_FOLDER}${wal}.json`;
}

/** The file that a sum with this key speaks of; undefined for all other keys. */
export function parseContentSumKey(key: string): string | undefined {
  if (!key.startsWith(SUMS_FOLDER) || !key.endsWith(".json")) return undefined;
  return key.slice(SUMS_FOLDER.length, -".json".length);
}

/** Text of the object. */
export function formatContentSum({ wal, sizeBytes, sha256 }: ContentSum): string {
  return `${formatJson(
    jsonObject([
      ["wal", wal],
      ["size", BigInt(sizeBytes)],
      ["sha256", sha256],
    ]),
  )}\n`;
}

/** Throws FormatError for everything that `formatContentSum` does not write. */
export function parseContentSum(text: string): ContentSum {
  const json = parseJson(text);
  const [wal, size, sha256] = ["wal", "size", "sha256"].map((name) => objectMember(json, name));
  if (typeof wal !== "string" || typeof size !== "bigint" || typeof sha256 !== "string") {
    throw new FormatError("a sum lacks wal, size or sha256");
  }
  const sum = { wal, sizeBytes: Number(size), sha256 };
  if (formatContentSum(sum) !== text || !/^[0-9a-f]{64}$/.test(sha256)) {
    throw new FormatError("a sum is not as it was written");
  }
  return sum;
}
