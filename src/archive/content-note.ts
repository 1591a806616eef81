import { nodeCrypto } from "../io/builtin.ts";
import { ConflictError, FormatError } from "../errors.ts";
import { WalWalker } from "../postgres/wal-record.ts";
import type { CallOptions } from "../storage/storage.ts";
import { type LocalWal, readLocalWal } from "./local-wal.ts";
import type { StoredWal } from "./stored-wal.ts";

/**
 * What tells one content from another to who can't read the stored one: a salt and a digest of the
 * file, of a segment only up to the end of its records (see comparison.ts). 16 and 64 hex digits.
 */
export type ContentNote = string;

const SALT_BYTES = 8;

/** A new note, which is put with the object. */
export async function makeContentNote(local: LocalWal, options: CallOptions): Promise<ContentNote> {
  return await noteOf(local, nodeCrypto().randomBytes(SALT_BYTES), options);
}

/** Rejects with ConflictError when an object with this note has other content than the file. */
export async function requireContentOf(
  note: ContentNote,
  { stored, local }: { readonly stored: StoredWal; readonly local: LocalWal },
  options: CallOptions,
): Promise<void> {
  const salt = Buffer.from(note.slice(0, 2 * SALT_BYTES), "hex");
  const own = await noteOf(local, salt, options);
  if (own === note) return;
  throw new ConflictError(
    `WAL file ${local.name} is archived with other content as ${stored.key} (archived digest ` +
      `${note.slice(2 * SALT_BYTES).slice(0, 12)}, local digest ` +
      `${own.slice(2 * SALT_BYTES).slice(0, 12)}, both salted)`,
    {
      hint:
        "Nothing was overwritten; PostgreSQL keeps its file. There is no private key here to look " +
        "into the object: find out where there is one which of the two is right.",
    },
  );
}

async function noteOf(local: LocalWal, salt: Buffer, options: CallOptions): Promise<ContentNote> {
  const end = await endOfContent(local, options);
  const hash = nodeCrypto().createHash("sha256").update(salt);
  let position = 0;
  for await (const chunk of readLocalWal(local, options)) {
    hash.update(chunk.subarray(0, Math.max(0, end - position)));
    position += chunk.length;
  }
  return `${salt.toString("hex")}${hash.digest("hex")}`;
}

async function endOfContent(local: LocalWal, options: CallOptions): Promise<number> {
  if (local.kind !== "segment" && local.kind !== "partial") return local.sizeBytes;
  const walker = new WalWalker(local.name);
  try {
    for await (const chunk of readLocalWal(local, options)) walker.push(chunk);
    return walker.finish().endOfRecords;
  } catch (error) {
    if (!(error instanceof FormatError)) throw error;
    return local.sizeBytes;
  }
}
