import { ConflictError, ObjectExistsError, ObjectNotFoundError } from "../errors.ts";
import { type ByteSource, type ByteStream, counted } from "../io/bytes.ts";
import type { CallOptions, ObjectInfo, ObjectKey, Storage } from "./storage.ts";

export interface CopyRules extends CallOptions {
  /** What happens to an object that is there with another size, or whose content may differ. */
  readonly existing: "compare" | "skip" | "overwrite";
  /** Sees the bytes on their way; what it throws ends the copy before the object is visible. */
  readonly check?: (stream: ByteStream) => ByteStream;
}

/**
 * Copies one object as it is stored, and looks at the copy. True if it was copied, false if it was
 * there. With "compare" an object of the same size is taken for the same (a put is whole or not
 * there), and one of another size rejects with ConflictError, and nothing is overwritten.
 */
export async function copyObject(
  source: Storage,
  target: Storage,
  key: ObjectKey,
  { existing, check = (stream) => stream, signal }: CopyRules,
): Promise<boolean> {
  const { sizeBytes } = await source.stat(key, { signal });
  const there = await statIfThere(target, key, { signal });
  if (there !== undefined && existing === "skip") return false;
  if (there !== undefined && existing === "compare") {
    requireSameSize(target, key, there.sizeBytes, sizeBytes);
    return false;
  }
  const body: ByteSource = {
    sizeBytes,
    isReopenable: true,
    open: () => check(exactly(source.get(key, { signal }), { key, sizeBytes, source })),
  };
  try {
    await target.put(key, body, { signal, ifAbsent: existing !== "overwrite" });
  } catch (error) {
    // Another copier, or an answer that was lost: what counts is what is there.
    if (!(error instanceof ObjectExistsError)) throw error;
  }
  const stored = await target.stat(key, { signal });
  requireSameSize(target, key, stored.sizeBytes, sizeBytes);
  return true;
}

/** Undefined if there is no such object. */
export async function statIfThere(
  storage: Storage,
  key: ObjectKey,
  options: CallOptions,
): Promise<ObjectInfo | undefined> {
  try {
    return await storage.stat(key, options);
  } catch (error) {
    if (error instanceof ObjectNotFoundError) return undefined;
    throw error;
  }
}

function requireSameSize(
  target: Storage,
  key: ObjectKey,
  thereBytes: number,
  wantedBytes: number,
): void {
  if (thereBytes === wantedBytes) return;
  throw new ConflictError(
    `object ${key} is in ${target.name} with ${thereBytes} bytes, the one to copy has ${wantedBytes}`,
    { hint: "Nothing was overwritten. Two repositories may share this place." },
  );
}

async function* exactly(
  stream: ByteStream,
  { key, sizeBytes, source }: { key: ObjectKey; sizeBytes: number; source: Storage },
): ByteStream {
  let gotBytes = 0;
  yield* counted(stream, (count) => (gotBytes += count));
  if (gotBytes === sizeBytes) return;
  throw new ConflictError(
    `object ${key} in ${source.name} gave ${gotBytes} bytes instead of ${sizeBytes}`,
    { hint: "It was changed while it was copied: try again." },
  );
}
