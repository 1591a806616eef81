import { readFile, rm } from "node:fs/promises";
import { join } from "node:path";
import { writeCacheFile } from "../io/cache-file.ts";
import type { Clock } from "../io/clock.ts";
import { ifSystemAllows } from "../io/system-error.ts";
import type { Spool } from "./spool-directory.ts";

/** Attempts that failed sooner cost little more than the process that makes them. */
const SHORT_MS = 1000;
/** How long a failure is believed, in times of what it took to find out. */
const BELIEF_FACTOR = 3;

type Place = Pick<Spool, "path">;

/**
 * Notes that the store did not take a file in `tookMs`: for a while nobody else needs to find that
 * out. Never rejects; where it can't be written, each call finds out for itself.
 */
export async function noteAway(
  spool: Place,
  failure: { readonly tookMs: number; readonly reason: string },
  clock: Clock,
): Promise<void> {
  const { tookMs, reason } = failure;
  if (tookMs < SHORT_MS) return;
  const atMs = clock.now();
  const note = { atMs, untilMs: atMs + BELIEF_FACTOR * tookMs, reason };
  await ifSystemAllows(() => writeCacheFile(pathIn(spool), `${JSON.stringify(note)}\n`));
}

/**
 * Why the store was found to be away, a short while ago by this clock; undefined if it was not.
 * Never rejects.
 */
export async function readAway(spool: Place, clock: Clock): Promise<string | undefined> {
  const text = await ifSystemAllows(() => readFile(pathIn(spool), "utf8"));
  try {
    const note: unknown = JSON.parse(text ?? "null");
    if (typeof note !== "object" || note === null) return undefined;
    const fields = new Map<string, unknown>(Object.entries(note));
    const [atMs, untilMs] = [Number(fields.get("atMs")), Number(fields.get("untilMs"))];
    const nowMs = clock.now();
    return atMs <= nowMs && nowMs < untilMs ? String(fields.get("reason")) : undefined;
  } catch {
    // Torn: nobody waits for it to be durable.
    return undefined;
  }
}

/** The store has taken something. Never rejects. */
export async function forgetAway(spool: Place): Promise<void> {
  await ifSystemAllows(() => rm(pathIn(spool), { force: true }));
}

function pathIn({ path }: Place): string {
  return join(path, "store-away.json");
}
