import { FormatError } from "../errors.ts";
import { formatJson, parseJson } from "./json.ts";
import { jsonObject, objectMember } from "./json-value.ts";

/** Text of the object that says which cluster a repository belongs to; see `identityKey`. */
export function formatIdentity(systemId: bigint): string {
  return formatJson(jsonObject([["system_identifier", systemId]]));
}

/** System identifier that a repository belongs to. Throws FormatError for any other text. */
export function parseIdentity(text: string): bigint {
  // Members are found in any case, as WAL-G finds them; ours has this one only, unless it is damaged.
  const isOurs = text.includes('"system_identifier"');
  const systemId = isOurs ? objectMember(parseJson(text), "system_identifier") : undefined;
  if (typeof systemId !== "bigint" || systemId <= 0n || systemId >= 1n << 64n) {
    throw new FormatError("cluster.json has no system_identifier between 1 and 2^64 - 1");
  }
  return systemId;
}
