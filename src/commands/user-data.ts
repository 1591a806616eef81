import { FormatError, UsageError } from "../errors.ts";
import { parseJson } from "../layout/json.ts";
import type { JsonValue } from "../layout/json-value.ts";

/** JSON of the user's own; undefined for none. Throws UsageError. */
export function parseUserData(text: string | undefined): JsonValue | undefined {
  if (text === undefined || text === "") return undefined;
  try {
    return parseJson(text);
  } catch (error) {
    if (!(error instanceof FormatError)) throw error;
    throw new UsageError(`user data ${text} is not JSON: ${error.message}`, {
      hint: `A text needs double quotes within the shell's: '"monthly"', and so do names: '{"k":1}'.`,
      cause: error,
    });
  }
}
