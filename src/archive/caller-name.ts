/**
 * Whose shell tests for notes, as setup's line says: the archiver process, and a hash of the words
 * by which that line starts us. Lines of earlier versions give the process alone.
 */
export type ArchiverName = `${number}` | `${number}-${string}`;

export function isArchiverName(value: unknown): value is ArchiverName {
  return typeof value === "string" && ARCHIVER_NAME.test(value);
}

export const ARCHIVER_NAME = /^\d{1,10}(-[0-9a-f]{8})?$/;

/** Who calls for WAL files, as commands/ready-call.ts names it: `c-` and 16 hex digits. */
export type CallerName = `c-${string}`;

export function isCallerName(value: unknown): value is CallerName {
  return typeof value === "string" && /^c-[0-9a-f]{16}$/.test(value);
}
