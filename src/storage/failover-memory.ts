import { readFile } from "node:fs/promises";
import { writeCacheFile } from "../io/cache-file.ts";

/** What is known of one store for one kind of work. */
export interface Status {
  /** Between 0 and 1. */
  readonly aliveness: number;
  readonly isAlive: boolean;
  /** Milliseconds since 1970. */
  readonly updatedMs: number;
}

/** By the store's id and the kind of work: "default#1f… write". */
export type HealthMemory = Map<string, Status>;

/** Nobody has so many stores; what is longer is not ours. */
const FILE_BYTES_MAX = 1024 * 1024;

/** What is remembered: nothing where the file is missing or can't be read. Never rejects. */
export async function readHealth(path: string, nowMs: number): Promise<HealthMemory> {
  try {
    return parseHealth(await readFile(path, "utf8"), nowMs);
  } catch {
    // Nothing is lost: a store counts as alive until it fails.
    return new Map();
  }
}

/** Writes what is known; of a store that another process knows more recently, that. */
export async function writeHealth(
  path: string,
  memory: HealthMemory,
  nowMs: number,
): Promise<void> {
  const merged = new Map(memory);
  for (const [key, theirs] of await readHealth(path, nowMs)) {
    const ours = merged.get(key);
    if (ours === undefined || theirs.updatedMs > ours.updatedMs) merged.set(key, theirs);
  }
  await writeCacheFile(path, formatHealth(merged));
}

/** The content of the file. */
export function formatHealth(memory: HealthMemory): string {
  const members = [...memory].map(([key, { aliveness, isAlive, updatedMs }]) => [
    key,
    { aliveness, alive: isAlive, updated: updatedMs },
  ]);
  return `${JSON.stringify(Object.fromEntries(members))}\n`;
}

/**
 * Entries that say what can't be are left out, and those of the future: the clock was turned back.
 * Throws SyntaxError for what is no JSON.
 */
export function parseHealth(text: string, nowMs: number): HealthMemory {
  const memory: HealthMemory = new Map();
  if (text.length > FILE_BYTES_MAX) return memory;
  const members: unknown = JSON.parse(text);
  if (typeof members !== "object" || members === null) return memory;
  for (const [key, member] of Object.entries(members)) {
    const status = parseStatus(member);
    if (status !== undefined && status.updatedMs <= nowMs) memory.set(key, status);
  }
  return memory;
}

function parseStatus(member: unknown): Status | undefined {
  if (typeof member !== "object" || member === null) return undefined;
  const fields = new Map<string, unknown>(Object.entries(member));
  const aliveness = fields.get("aliveness");
  const isAlive = fields.get("alive");
  const updatedMs = fields.get("updated");
  if (typeof aliveness !== "number" || !(aliveness >= 0 && aliveness <= 1)) return undefined;
  if (typeof isAlive !== "boolean") return undefined;
  if (typeof updatedMs !== "number" || !Number.isFinite(updatedMs)) return undefined;
  return { aliveness, isAlive, updatedMs };
}
