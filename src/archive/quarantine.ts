import { dirname } from "node:path";
import { ObjectExistsError, OperationError } from "../errors.ts";
import { type ByteSource, bytesSource } from "../io/bytes.ts";
import type { Log } from "../io/log.ts";
import { formatCollisionNote } from "../layout/collision-note.ts";
import { quarantineKey } from "../layout/keys.ts";
import { parseWalFileName } from "../postgres/wal-file.ts";
import { statIfThere } from "../storage/object-copy.ts";
import type { CallOptions, Storage } from "../storage/storage.ts";
import type { Side } from "./comparison.ts";
import type { LocalWal } from "./local-wal.ts";
import { describeWriter, showWriter } from "./writer.ts";
import { readWriterClaim } from "./writer-claims.ts";

/** The servers behind two contents, for messages; undefined where that can't be found out. */
export interface Parties {
  readonly pushedBy: string | undefined;
  /** Who writes the timeline. */
  readonly archivedBy: string | undefined;
}

/** Two contents of one name. */
export interface Collision {
  readonly local: LocalWal;
  readonly storedKey: string;
  readonly sides: { readonly stored: Side; readonly local: Side };
  readonly parties: Parties;
  /** Of `body`, without dot. */
  readonly extension: string;
  /** The object of the local file. */
  readonly body: () => ByteSource;
}

/** Finds out who pushes `local` and who writes its timeline. Never rejects but when aborted. */
export async function findParties(
  storage: Storage,
  server: {
    readonly local: LocalWal;
    /** WALNUT_SERVER_NAME. */
    readonly serverName: string | undefined;
    /** Two levels above the file unless given. */
    readonly dataDirectory?: string | undefined;
  },
  { signal }: CallOptions,
): Promise<Parties> {
  const { local, serverName, dataDirectory } = server;
  const directory = dataDirectory ?? dirname(dirname(local.path));
  const timeline = parseWalFileName(local.name)?.timeline;
  return {
    pushedBy: await ifKnown(signal, async () =>
      showWriter(await describeWriter(directory, serverName)),
    ),
    archivedBy: await ifKnown(signal, async () => {
      if (timeline === undefined) return undefined;
      const claim = await readWriterClaim(storage, timeline, { signal });
      return claim === undefined ? undefined : showWriter(claim);
    }),
  };
}

async function ifKnown<T>(signal: AbortSignal, look: () => Promise<T>): Promise<T | undefined> {
  try {
    return await look();
  } catch (error) {
    signal.throwIfAborted();
    if (!(error instanceof OperationError)) throw error;
    return undefined;
  }
}

/**
 * Keeps the file that collided beside the archive, once. Gives the key of its description;
 * undefined if it could not be kept: then only the log says so. Never rejects but when aborted.
 */
export async function quarantine(
  storage: Storage,
  collision: Collision,
  { signal, log }: CallOptions & { readonly log: Log },
): Promise<string | undefined> {
  const { local, storedKey, sides, parties, extension, body } = collision;
  const base = quarantineKey(local.name, sides.local.sha256);
  const descriptionKey = `${base}.json`;
  try {
    const known = await statIfThere(storage, descriptionKey, { signal });
    if (known !== undefined) return descriptionKey;
    const contentKey = extension === "" ? base : `${base}.${extension}`;
    await create(storage, contentKey, { body: body(), signal });
    const text = formatCollisionNote({
      wal: local.name,
      objectKey: contentKey,
      pushedBy: parties.pushedBy,
      content: sides.local,
      archivedAs: storedKey,
      archivedBy: parties.archivedBy,
      archivedContent: sides.stored,
    });
    await create(storage, descriptionKey, { body: bytesSource(Buffer.from(text)), signal });
    return descriptionKey;
  } catch (error) {
    signal.throwIfAborted();
    if (!(error instanceof OperationError)) throw error;
    log.warning("the file that collided could not be kept in quarantine", {
      wal: local.name,
      reason: error.message,
    });
    return undefined;
  }
}

async function create(
  storage: Storage,
  key: string,
  { body, signal }: { readonly body: ByteSource; readonly signal: AbortSignal },
): Promise<void> {
  try {
    await storage.put(key, body, { signal, ifAbsent: true });
  } catch (error) {
    if (!(error instanceof ObjectExistsError)) throw error;
  }
}
