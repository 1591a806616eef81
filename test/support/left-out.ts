import { appendFileSync } from "node:fs";

/**
 * Says that a suite can't run on this machine, and why. `npm test` prints these at its end;
 * `.ci/run` fails if there are any.
 */
export function leaveOut(suite: string, reason: string): void {
  const file = process.env["WALNUT_LEFT_OUT"];
  if (file !== undefined) appendFileSync(file, `${JSON.stringify({ suite, reason })}\n`);
}
