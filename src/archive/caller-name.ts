/** Who calls for WAL files, as commands/ready-call.ts names it: `c-` and 16 hex digits. */
export type CallerName = `c-${string}`;

export function isCallerName(value: unknown): value is CallerName {
  return typeof value === "string" && /^c-[0-9a-f]{16}$/.test(value);
}
