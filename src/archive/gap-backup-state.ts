import { readFile, rm } from "node:fs/promises";
import { join } from "node:path";
import { systemErrorCode } from "../errors.ts";
import { writeFileDurably } from "../io/durable.ts";
import { localFileError } from "../io/system-error.ts";
import type { Spool } from "./spool-directory.ts";

/** What is known of the backup that gaps ask for, over crashes; GAP.md tells what for. */
export interface GapBackupState {
  /** That were begun since there is something wanted. */
  readonly attempts: number;
  /** Milliseconds since 1970; none is begun before. 0 = at once. */
  readonly notBeforeMs: number;
  readonly lastError?: string | undefined;
  /** Why nothing is begun now. */
  readonly waitingFor?: string | undefined;
  /** The command that runs, as `describeProcess` names it. */
  readonly commandProcess?: string | undefined;
  /** Gaps for which the command has been run. */
  readonly asked: readonly string[];
}

/** Nothing was begun. */
export const FRESH_STATE: GapBackupState = { attempts: 0, notBeforeMs: 0, asked: [] };

/** The socket that at most one process listens at. */
export function gapBackupSocket({ path }: Pick<Spool, "path">): string {
  return join(path, "backup.sock");
}

/** What the process says goes there. */
export function gapBackupLog({ path }: Pick<Spool, "path">): string {
  return join(path, "gap-backup.log");
}

/** What is no state counts as none. Rejects with LocalFileError. */
export async function readGapBackupState(spool: Pick<Spool, "path">): Promise<GapBackupState> {
  const path = statePath(spool);
  try {
    return parseState(await readFile(path, "utf8"));
  } catch (error) {
    if (systemErrorCode(error) === "ENOENT") return FRESH_STATE;
    throw localFileError("read", path, error);
  }
}

/** Survives a power cut once resolved. Rejects with LocalFileError. */
export async function writeGapBackupState(
  spool: Pick<Spool, "path">,
  state: GapBackupState,
  options: { readonly signal: AbortSignal },
): Promise<void> {
  const text = `${JSON.stringify({ version: 1, ...state })}\n`;
  await writeFileDurably(statePath(spool), Buffer.from(text), options);
}

/** Nothing is wanted any more. */
export async function removeGapBackupState(spool: Pick<Spool, "path">): Promise<void> {
  await rm(statePath(spool), { force: true });
}

function statePath({ path }: Pick<Spool, "path">): string {
  return join(path, "gap-backup.json");
}

function parseState(text: string): GapBackupState {
  let value: unknown;
  try {
    value = JSON.parse(text);
  } catch {
    return FRESH_STATE;
  }
  if (typeof value !== "object" || value === null) return FRESH_STATE;
  const fields = new Map<string, unknown>(Object.entries(value));
  const count = (name: string): number => {
    const figure = fields.get(name);
    return typeof figure === "number" && Number.isFinite(figure) && figure > 0 ? figure : 0;
  };
  const words = (name: string): string | undefined => {
    const field = fields.get(name);
    return typeof field === "string" ? field : undefined;
  };
  const asked = fields.get("asked");
  return {
    attempts: Math.floor(count("attempts")),
    notBeforeMs: count("notBeforeMs"),
    lastError: words("lastError"),
    waitingFor: words("waitingFor"),
    commandProcess: words("commandProcess"),
    asked: Array.isArray(asked) ? asked.filter((one) => typeof one === "string") : [],
  };
}
