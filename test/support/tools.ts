import { spawn } from "node:child_process";
import { accessSync, constants } from "node:fs";
import { delimiter, join } from "node:path";
import { leaveOut } from "./left-out.ts";

/** Whether a program of this name is installed. */
export function hasTool(name: string): boolean {
  const folders = (process.env["PATH"] ?? "").split(delimiter);
  return folders.some((folder) => {
    try {
      accessSync(join(folder, name), constants.X_OK);
      return folder !== "";
    } catch {
      return false;
    }
  });
}

/** Like hasTool, and says so at the end of `npm test` if `suite` is left out for want of it. */
export function needsTool(suite: string, name: string): boolean {
  if (hasTool(name)) return true;
  leaveOut(suite, `${name} is not installed`);
  return false;
}

/** Gives what a program prints when it is given `input`; throws unless it ends with 0. */
export async function runTool(
  name: string,
  words: readonly string[],
  input: Uint8Array,
): Promise<Buffer> {
  const child = spawn(name, words, { stdio: "pipe" });
  const output: Buffer[] = [];
  const errors: Buffer[] = [];
  child.stdout.on("data", (chunk: Buffer) => output.push(chunk));
  child.stderr.on("data", (chunk: Buffer) => errors.push(chunk));
  // A program that refuses its input may end before it has read all of it.
  child.stdin.on("error", () => {});
  child.stdin.end(input);
  const code = await new Promise<number | null>((resolve, reject) => {
    child.on("error", reject);
    child.on("close", resolve);
  });
  if (code !== 0)
    throw new Error(`${name} ended with ${code}: ${Buffer.concat(errors).toString()}`);
  return Buffer.concat(output);
}
