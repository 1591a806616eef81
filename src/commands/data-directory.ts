import { UsageError } from "../errors.ts";

/** Throws UsageError when neither an argument nor a setting names the data directory. */
export function requireDirectory(place: string | undefined): string {
  if (place !== undefined) return place;
  throw new UsageError("the data directory is missing", { hint: "Name it, or set PGDATA." });
}
