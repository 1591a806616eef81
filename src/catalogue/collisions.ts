import { FormatError, ObjectNotFoundError } from "../errors.ts";
import { readAll } from "../io/bytes.ts";
import {
  type CollisionParties,
  parseCollisionParties,
  partiesText,
} from "../layout/collision-note.ts";
import { parseQuarantineNoteKey, QUARANTINE_FOLDER } from "../layout/keys.ts";
import type { CallOptions, ObjectKey, Storage } from "../storage/storage.ts";

/** A WAL file of which two servers brought different contents; the second one is in quarantine. */
export interface StoredCollision {
  /** As PostgreSQL calls it. */
  readonly wal: string;
  /** Of the note. */
  readonly key: ObjectKey;
  /** Undefined where the note can't be read, or was not. */
  readonly parties: CollisionParties | undefined;
}

const NOTE_BYTES_MAX = 64 * 1024;
/** Each costs a request, and the first ones tell which servers they are. */
const NOTES_READ_MAX = 5;

/** Those of the keys that are notes of collisions, in their order; the first ones are read. */
export async function readCollisions(
  storage: Storage,
  ownKeys: readonly ObjectKey[],
  options: CallOptions,
): Promise<readonly StoredCollision[]> {
  const collisions: StoredCollision[] = [];
  for (const key of ownKeys) {
    const wal = parseQuarantineNoteKey(key);
    if (wal === undefined) continue;
    const isRead = collisions.length < NOTES_READ_MAX;
    const parties = isRead ? await readParties(storage, key, options) : undefined;
    collisions.push({ wal, key, parties });
  }
  return collisions;
}

/** What somebody should know of them, with the way out at the end. */
export function describeCollisions(collisions: readonly StoredCollision[]): readonly string[] {
  const told = collisions.filter(({ parties }) => parties !== undefined);
  const more = collisions.length - told.length;
  const others = `${more} ${told.length === 0 ? "" : "more "}files in ${QUARANTINE_FOLDER} collided with archived ones`;
  return [...told.map((one) => describeCollision(one)), ...(more === 0 ? [] : [others])];
}

/** How somebody who has decided which of the two is right ends the warnings. */
export function collisionHint([first]: readonly StoredCollision[]): string {
  const folder = `${QUARANTINE_FOLDER}${first?.wal ?? "<name>"}/`;
  return (
    "Find out which of the two is right (docs/failover.md). Once you have what you need of the " +
    `other one, \`walnut st rm ${folder}\` removes it.`
  );
}

function describeCollision({ wal, key, parties }: StoredCollision): string {
  const whose = parties === undefined ? "" : ` (${partiesText(parties)})`;
  return `two different ${wal} were brought${whose}: the first is archived, the other in quarantine, see ${key}`;
}

async function readParties(
  storage: Storage,
  key: ObjectKey,
  { signal }: CallOptions,
): Promise<CollisionParties | undefined> {
  try {
    const text = await readAll(storage.get(key, { signal }), NOTE_BYTES_MAX);
    return parseCollisionParties(text.toString("utf8"));
  } catch (error) {
    const isUnreadable = error instanceof FormatError || error instanceof RangeError;
    if (isUnreadable || error instanceof ObjectNotFoundError) return undefined;
    throw error;
  }
}
