import type { Codec } from "../codec/codec.ts";
import { codecByExtension } from "../codec/table.ts";
import { RefusedError } from "../errors.ts";
import type { ByteStream } from "../io/bytes.ts";
import { COMPRESSED_EXTENSIONS, walKey } from "../layout/keys.ts";
import type { CallOptions, ListOptions, ObjectKey, Storage } from "../storage/storage.ts";

/** An object that holds, by its key, a certain WAL file. */
export interface StoredWal {
  readonly key: ObjectKey;
  /** Without dot; "" when it is not compressed. */
  readonly extension: string;
}

/**
 * Every object under which the store holds the WAL file `name`, in any compression. Usually none or
 * one; WAL-G leaves the old one when its compression method was changed in between.
 */
export async function listStoredWal(
  storage: Storage,
  name: string,
  options: CallOptions,
): Promise<readonly StoredWal[]> {
  return (await listStoredSegment(storage, name, options)).whole;
}

/** The objects of a segment. */
export interface StoredSegment {
  readonly whole: readonly StoredWal[];
  /** Of what is stored as `X.partial` while the segment is not complete. */
  readonly partial: readonly StoredWal[];
}

/**
 * Like listStoredWal, and with the same one request also what there is of an unfinished segment.
 */
export async function listStoredSegment(
  storage: Storage,
  name: string,
  options: Pick<ListOptions, "signal" | "onUnanswered">,
): Promise<StoredSegment> {
  const bareKey = walKey(name, "");
  const partialKey = walKey(`${name}.partial`, "");
  const whole: StoredWal[] = [];
  const partial: StoredWal[] = [];
  for await (const { key } of storage.list(bareKey, options)) {
    const isPartial = key.startsWith(partialKey);
    const extension = parseExtension(key.slice((isPartial ? partialKey : bareKey).length));
    if (extension !== undefined) (isPartial ? partial : whole).push({ key, extension });
  }
  return { whole, partial };
}

/** "X." is how WAL-G up to 3.0.8 named what it did not compress. */
function parseExtension(rest: string): string | undefined {
  if (rest === "" || rest === ".") return "";
  return COMPRESSED_EXTENSIONS.find((extension) => rest === `.${extension}`);
}

export interface ReadStoredOptions extends CallOptions {
  readonly codecJobs: number;
}

/** The file's content. Rejects with RefusedError when we can't read the object's compression. */
export function readStoredWal(
  storage: Storage,
  stored: StoredWal,
  { codecJobs, signal }: ReadStoredOptions,
): ByteStream {
  const codec = requireCodec(storage, stored);
  return codec.decompress(storage.get(stored.key, { signal }), { jobs: codecJobs, signal });
}

/** Throws RefusedError for an object in a compression that we can't read. */
export function requireCodec(storage: Storage, { key, extension }: StoredWal): Codec {
  const codec = codecByExtension(extension);
  if (codec !== undefined) return codec;
  throw new RefusedError(
    `object ${key} in ${storage.name} is compressed with ${extension}, which walnut cannot read`,
    { hint: "Decompress it with its own tool and store it again without the extension." },
  );
}
