import { OperationError } from "../errors.ts";

/**
 * What a check found wrong.
 *
 * - "damaged": an object is not what was stored, or not what it has to be.
 * - "missing": an object is not there that a restore needs.
 * - "hole": WAL is missing between backups and what follows.
 * - "note": nothing that keeps a restore from working.
 */
export interface Finding {
  readonly kind: "damaged" | "missing" | "hole" | "note";
  /** A key, or the first and last of several segments. */
  readonly subject: string;
  /** As a clause without full stop. */
  readonly text: string;
  readonly backup?: string | undefined;
  /** A mirror whose copy passed the same checks, by its place: 0 is the first mirror. */
  readonly soundIn?: number | undefined;
}

/** Whether anything but a note is among them. */
export function isFailure(findings: readonly Finding[]): boolean {
  return findings.some(({ kind }) => kind !== "note");
}

const OBJECT_FAULTS: ReadonlySet<string> = new Set([
  "format",
  "truncated",
  "damaged",
  "refused",
  "not-found",
  "wrong-key",
]);

/**
 * What an error says of the object that was read. Throws the error again when it is the store's,
 * an abort's or a bug's.
 */
export function faultText(error: unknown): string {
  if (error instanceof RangeError) return error.message;
  if (error instanceof OperationError && OBJECT_FAULTS.has(error.code)) return error.message;
  throw error;
}
