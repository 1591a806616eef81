import { mergeLists } from "./merged-list.ts";
import type { MirrorPair } from "./mirror-catch-up.ts";
import type { MirrorQueue } from "./mirror-queue.ts";
import { digestOf, statIfThere } from "./object-copy.ts";
import { isSameSum } from "./object-sum.ts";
import type { CallOptions, ObjectInfo, ObjectKey } from "./storage.ts";

/** What the stores say of one key that is not the same in both. */
export interface Difference {
  readonly key: ObjectKey;
  /** "due": a note names the key, so that the mirror may well be behind. */
  readonly kind: "missing" | "surplus" | "size" | "content" | "due";
  readonly primary: ObjectInfo | undefined;
  readonly mirror: ObjectInfo | undefined;
}

export interface CompareOptions extends CallOptions {
  /** Compare all bytes, not only where checksums raise the question. */
  readonly isContentRead: boolean;
  readonly onEqual?: (object: ObjectInfo) => void;
  /** A key under which each store has its own object, or none: not compared. */
  readonly unsharedKey?: ObjectKey;
}

/** All that differs, in the order of the keys. What changes meanwhile is looked at twice. */
export async function* compareStores(
  pair: MirrorPair,
  queue: MirrorQueue,
  options: CompareOptions,
): AsyncGenerator<Difference, void, undefined> {
  const { signal, onEqual } = options;
  for await (const entry of mergeLists([pair.primary, pair.mirror], "", { signal })) {
    const key = (entry[0] ?? entry[1])?.key ?? "";
    if (key === options.unsharedKey) continue;
    const first = await compareOne(pair, { key, primary: entry[0], mirror: entry[1] }, options);
    const [primary, mirror] =
      first === undefined
        ? entry
        : await Promise.all([
            statIfThere(pair.primary, key, { signal }),
            statIfThere(pair.mirror, key, { signal }),
          ]);
    const kind =
      first === undefined ? undefined : await compareOne(pair, { key, primary, mirror }, options);
    if (kind === undefined) {
      if (primary !== undefined) onEqual?.(primary);
      continue;
    }
    const isDue = (await queue.named())(key);
    yield { key, kind: isDue ? "due" : kind, primary, mirror };
  }
}

/** Undefined for what is the same, or in neither. */
async function compareOne(
  pair: MirrorPair,
  { key, primary, mirror }: Omit<Difference, "kind">,
  { signal, isContentRead }: CompareOptions,
): Promise<Exclude<Difference["kind"], "due"> | undefined> {
  if (primary === undefined) return mirror === undefined ? undefined : "surplus";
  if (mirror === undefined) return "missing";
  if (primary.sizeBytes !== mirror.sizeBytes) return "size";
  if (!isContentRead) {
    if (isSameSum(primary.sum, mirror.sum) || !isQuestion(primary, mirror)) return undefined;
  }
  const [own, other] = await Promise.all([
    digestOf(pair.primary.get(key, { signal })),
    digestOf(pair.mirror.get(key, { signal })),
  ]);
  return own === other ? undefined : "content";
}

/** Unequal sums of one kind prove nothing, but they are worth a look. */
function isQuestion({ sum: one }: ObjectInfo, { sum: other }: ObjectInfo): boolean {
  if (one === undefined || other === undefined || one === other) return false;
  return one.split(":")[0] === other.split(":")[0];
}
