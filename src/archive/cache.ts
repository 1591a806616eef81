import { readFile } from "node:fs/promises";
import { join } from "node:path";
import { writeCacheFile } from "../io/cache-file.ts";
import type { Log } from "../io/log.ts";
import { sha256Hex } from "../io/runtime.ts";
import { reasonOf } from "./outage.ts";

/** Where an archive's memory is kept. */
export interface CachePlace {
  /** Made when it is missing. */
  readonly directory: string;
  /** Which repository: its storage's name. */
  readonly storageName: string;
  readonly log: Log;
}

/** What earlier calls learned about a repository; it saves requests and decides nothing else. */
export interface ArchiveMemory {
  /** Whom the repository belonged to when we last asked. */
  readonly systemId?: bigint;
  /** Under which extension ("" for none) pushes store, and found no other one to collide with. */
  readonly pushExtension?: string;
  /** Extension of the object that the last fetch found. */
  readonly fetchExtension?: string;
  /** The timeline whose history file is in the archive. */
  readonly historyTimeline?: number;
  /** The timeline that this server may write; `writer` describes the server that asked. */
  readonly writerTimeline?: number;
  readonly writer?: string;
}

/** Reads what is remembered: nothing when there is no file or it can't be read. Never rejects. */
export async function readArchiveMemory(place: CachePlace): Promise<ArchiveMemory> {
  try {
    return parse(await readFile(cachePath(place), "utf8"), place.storageName);
  } catch (error) {
    place.log.debug("no archive memory", { reason: reasonOf(error) });
    return {};
  }
}

/**
 * Adds `change` to what is remembered; writes only what is new. Never rejects: a cache that can't
 * be written costs requests. It is not fsynced, so that a crash may empty it.
 */
export async function rememberArchive(
  place: CachePlace,
  known: ArchiveMemory,
  change: ArchiveMemory,
): Promise<void> {
  const memory = { ...known, ...change };
  const text = format(memory, place.storageName);
  if (text === format(known, place.storageName)) return;
  const path = cachePath(place);
  try {
    await writeCacheFile(path, text);
  } catch (error) {
    place.log.debug("archive memory not written", { path, reason: reasonOf(error) });
  }
}

function cachePath({ directory, storageName }: CachePlace): string {
  const hash = sha256Hex(storageName).slice(0, 16);
  return join(directory, `archive-${hash}.json`);
}

function format(memory: ArchiveMemory, storageName: string): string {
  const members = {
    storage: storageName,
    system_identifier: memory.systemId?.toString(),
    push_extension: memory.pushExtension,
    fetch_extension: memory.fetchExtension,
    history_timeline: memory.historyTimeline,
    writer_timeline: memory.writerTimeline,
    writer: memory.writer,
  };
  return `${JSON.stringify(members)}\n`;
}

function parse(text: string, storageName: string): ArchiveMemory {
  const members: unknown = JSON.parse(text);
  if (typeof members !== "object" || members === null) return {};
  const fields = new Map<string, unknown>(Object.entries(members));
  if (fields.get("storage") !== storageName) return {};

  const systemId = fields.get("system_identifier");
  const pushExtension = fields.get("push_extension");
  const fetchExtension = fields.get("fetch_extension");
  const historyTimeline = fields.get("history_timeline");
  const writerTimeline = fields.get("writer_timeline");
  const writer = fields.get("writer");
  return {
    ...(typeof systemId === "string" && /^\d{1,20}$/.test(systemId)
      ? { systemId: BigInt(systemId) }
      : {}),
    ...(isExtension(pushExtension) ? { pushExtension } : {}),
    ...(isExtension(fetchExtension) ? { fetchExtension } : {}),
    ...(isTimeline(historyTimeline) ? { historyTimeline } : {}),
    ...(isTimeline(writerTimeline) && typeof writer === "string" ? { writerTimeline, writer } : {}),
  };
}

function isExtension(value: unknown): value is string {
  return typeof value === "string" && /^[a-z0-9]{0,8}$/.test(value);
}

function isTimeline(value: unknown): value is number {
  return typeof value === "number" && Number.isInteger(value) && value > 0 && value < 2 ** 32;
}
