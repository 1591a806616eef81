import { ConflictError, ObjectExistsError } from "../errors.ts";
import { nodeCrypto } from "../io/builtin.ts";
import { type ByteSource, type ByteStream, counted } from "../io/bytes.ts";
import { isSameSum } from "./object-sum.ts";
import { foundOrNothing } from "./presence.ts";
import type { CallOptions, ObjectInfo, ObjectKey, Storage } from "./storage.ts";

const NOT_OVERWRITTEN = "Nothing was overwritten.";

export interface CopyRules extends CallOptions {
  /** What happens to an object that is there with another size, or whose content may differ. */
  readonly existing: "compare" | "skip" | "overwrite";
  /** Sees the bytes on their way; what it throws ends the copy before the object is visible. */
  readonly check?: (stream: ByteStream) => ByteStream;
}

/**
 * Copies one object as it is stored, and looks at the copy. True if it was copied, false if it was
 * there. With "compare" an object that is there has to be the same: by the sums of both stores
 * where they tell equal ones, else byte by byte. Another one rejects with ConflictError, and
 * nothing is overwritten.
 */
export async function copyObject(
  source: Storage,
  target: Storage,
  key: ObjectKey,
  { existing, check = (stream) => stream, signal }: CopyRules,
): Promise<boolean> {
  const { sizeBytes, sum } = await source.stat(key, { signal });
  const there = await statIfThere(target, key, { signal });
  if (there !== undefined && existing === "skip") return false;
  if (there !== undefined && existing === "compare") {
    requireSameSize(target, key, there.sizeBytes, sizeBytes);
    if (!isSameSum(sum, there.sum)) await requireSameBytes(source, target, { key, check, signal });
    return false;
  }
  let isOurs = true;
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
    isOurs = false;
  }
  const stored = await target.stat(key, { signal });
  requireSameSize(target, key, stored.sizeBytes, sizeBytes);
  if (!isOurs && !isSameSum(sum, stored.sum)) {
    await requireSameBytes(source, target, { key, check, signal });
  }
  return true;
}

/** Undefined if there is no such object. */
export async function statIfThere(
  storage: Storage,
  key: ObjectKey,
  options: CallOptions,
): Promise<ObjectInfo | undefined> {
  return await foundOrNothing(() => storage.stat(key, options));
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
    { hint: `${NOT_OVERWRITTEN} Two repositories may share this place.` },
  );
}

/** Reads both. */
async function requireSameBytes(
  source: Storage,
  target: Storage,
  { key, check, signal }: CallOptions & Required<Pick<CopyRules, "check">> & { key: ObjectKey },
): Promise<void> {
  const [own, other] = await Promise.all([
    digestOf(check(source.get(key, { signal }))),
    digestOf(target.get(key, { signal })),
  ]);
  if (own !== other) throw otherContent(target, key);
}

/** SHA-256 in hex. */
export async function digestOf(stream: ByteStream): Promise<string> {
  const hash = nodeCrypto().createHash("sha256");
  for await (const chunk of stream) hash.update(chunk);
  return hash.digest("hex");
}

function otherContent(target: Storage, key: ObjectKey): ConflictError {
  return new ConflictError(
    `object ${key} in ${target.name} has other content than the one to copy, of the same size`,
    { hint: `${NOT_OVERWRITTEN} One of the two may be damaged: verify both.` },
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
