import type { JsonObject } from "../layout/json-value.ts";

export function timelinePage(_report: JsonObject, _now: Date): string {
  return "";
}
