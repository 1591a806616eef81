import { statSync } from "node:fs";
import { join } from "node:path";
import {
  DamagedError,
  FormatError,
  ObjectExistsError,
  ObjectNotFoundError,
  RefusedError,
  systemErrorCode,
} from "../errors.ts";
import { bytesSource, readAll } from "../io/bytes.ts";
import { writerKey } from "../layout/keys.ts";
import { formatWriterClaim, parseWriterClaim, type WriterClaim } from "../layout/writer-claim.ts";
import { readSoundly } from "../storage/copies.ts";
import type { CallOptions, Storage } from "../storage/storage.ts";
import { isSameWriter, showWriter, type Writer } from "./writer.ts";

const CLAIM_BYTES_MAX = 64 * 1024;

/** Who writes a timeline; undefined while nobody has claimed it. */
export async function readWriterClaim(
  storage: Storage,
  timeline: number,
  { signal }: CallOptions,
): Promise<WriterClaim | undefined> {
  const key = writerKey(timeline);
  try {
    return await readSoundly(storage, async (one) => {
      const bytes = await readAll(one.get(key, { signal }), CLAIM_BYTES_MAX);
      return parseWriterClaim(bytes.toString("utf8"));
    });
  } catch (error) {
    if (error instanceof ObjectNotFoundError) return undefined;
    if (!(error instanceof FormatError) && !(error instanceof RangeError)) throw error;
    throw new DamagedError(`object ${key} in ${storage.name} is damaged: ${error.message}`, {
      cause: error,
      hint:
        "It says which server writes this timeline. `walnut take-over`, run on the server that does, " +
        "writes it again.",
    });
  }
}

/**
 * Makes sure that the timeline of `own` is ours: claims it if nobody has, and keeps the claim
 * up to date. Rejects with RefusedError, before anything is written, when it is another
 * server's.
 */
export async function claimTimeline(
  storage: Storage,
  own: WriterClaim,
  { signal }: CallOptions,
): Promise<void> {
  const known = await readWriterClaim(storage, own.timeline, { signal });
  if (known === undefined) {
    try {
      return await putClaim(storage, own, { signal, ifAbsent: true });
    } catch (error) {
      if (!(error instanceof ObjectExistsError)) throw error;
    }
    const winner = await readWriterClaim(storage, own.timeline, { signal });
    return requireSameWriter(storage, own, winner);
  }
  requireSameWriter(storage, own, known);
  // The next change (of host name, after a restart) is told from a copy by what was last known.
  const isChanged = formatWriterClaim(known) !== formatWriterClaim(own);
  if (isChanged) await putClaim(storage, own, { signal });
}

/** Writes the claim, whoever had it. Gives who that was. */
export async function takeTimelineOver(
  storage: Storage,
  own: WriterClaim,
  { signal }: CallOptions,
): Promise<WriterClaim | undefined> {
  const known = await readWriterClaim(storage, own.timeline, { signal });
  await putClaim(storage, own, { signal });
  return known;
}

/** Throws RefusedError when `known` is another server; undefined is nobody. */
export function requireSameWriter(
  storage: Storage,
  own: Omit<WriterClaim, "extension">,
  known: WriterClaim | undefined,
): void {
  if (known === undefined) return;
  const isSame = isSameWriter(known, own) || isMovedFrom(known, own);
  if (known.systemId === own.systemId && isSame) return;
  throw new RefusedError(
    `timeline ${own.timeline} in ${storage.name} is written by ${showWriter(known)}; ` +
      `this server is ${showWriter(own)}`,
    {
      hint:
        "Nothing was written. If this is a copy of that server, give it a repository of its own: the " +
        "lines of `walnut setup --storage-prefix NAME`, then a base backup with the same flag. If " +
        "that server is gone and this one is its successor, run `walnut take-over` here. A server that was promoted or " +
        "has recovered from a backup has a timeline of its own and is never refused.",
    },
  );
}

/** Whether the machine is the same, still runs, and has no such data directory any more. */
function isMovedFrom(known: Writer, own: Writer): boolean {
  if (known.name !== "" && own.name !== "") return false;
  if (own.bootId === "" || known.bootId !== own.bootId || known.host !== own.host) return false;
  try {
    statSync(join(known.dataDirectory, "global", "pg_control"));
    return false;
  } catch (error) {
    // One that we may not look at is no proof.
    return systemErrorCode(error) === "ENOENT";
  }
}

async function putClaim(
  storage: Storage,
  claim: WriterClaim,
  options: CallOptions & { readonly ifAbsent?: boolean },
): Promise<void> {
  const body = bytesSource(Buffer.from(formatWriterClaim(claim)));
  await storage.put(writerKey(claim.timeline), body, options);
}
