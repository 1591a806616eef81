import { createHasher } from "../io/hash.ts";
import { byDatabase, byRating, type Composition, inOrder } from "./composer.ts";
import { withoutOwnFiles } from "./catch-up-push.ts";
import { copyUnchangedParts } from "./copied-parts.ts";
import type { DocumentsSpool } from "./documents-spool.ts";
import type { LoadedBase } from "./increment-origin.ts";
import type { PartUpload } from "./part-upload.ts";
import { findPushBase, type Reading } from "./push-increment.ts";
import type { PushSettings, PushWorld } from "./push-settings.ts";
import { readEarlierCounts, readUpdateCounts } from "./update-counts.ts";
import type { DataDirectoryWalk } from "./walk.ts";

/** Finds the newest full backup of which parts may be copied; undefined unless that was asked for. */
export async function findCopySource(
  server: Parameters<typeof findPushBase>[0],
  settings: PushSettings,
  world: PushWorld,
): Promise<LoadedBase | undefined> {
  if (settings.composer !== "copy" || settings.catchUpFrom !== undefined) return undefined;
  const increments = {
    ...settings.increments,
    maxSteps: Number.POSITIVE_INFINITY,
    origin: "latest-full" as const,
    from: undefined,
    fullReason: undefined,
  };
  return await findPushBase(server, { ...settings, increments }, world);
}

export interface ComposedBackup {
  readonly base: LoadedBase | undefined;
  readonly copySource: LoadedBase | undefined;
  readonly documents: DocumentsSpool;
  readonly reading: Reading;
  readonly upload: PartUpload;
  readonly world: PushWorld;
}

/** Puts the entries of a walk in the order in which they are packed; copies parts where asked. */
export async function composeParts(
  { base, copySource, documents, reading, upload, world }: ComposedBackup,
  walk: DataDirectoryWalk,
  settings: PushSettings,
): Promise<Composition> {
  const { composer, connection, hash } = settings;
  const { storage, log, signal } = world;
  if (settings.catchUpFrom !== undefined) return inOrder(withoutOwnFiles(walk));
  if (composer === "database") return byDatabase(walk);
  if (composer === "rating") {
    const counts = await readUpdateCounts({ connection, log, signal });
    const earlier =
      base === undefined ? new Map() : await readEarlierCounts(storage, base.choice.name, world);
    const walks = (index: number): DataDirectoryWalk => (index === 0 ? walk : walk.again());
    return byRating(walks, { counts, earlier });
  }
  const { copyJudge } = reading;
  if (copySource === undefined || copyJudge === undefined) return inOrder(walk);
  const hasher = await createHasher(hash);
  const from = { backup: copySource.choice.name, judge: copyJudge, hasher };
  const options = { ...world, documents, upload, zstd: settings.zstd };
  const isCopied = await copyUnchangedParts(walk, from, options);
  const rest = walk.again();
  const entries = function* () {
    for (const entry of rest) if (entry.kind !== "file" || !isCopied(entry.name)) yield entry;
  };
  return inOrder(entries());
}
