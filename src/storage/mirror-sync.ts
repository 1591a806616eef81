import { ObjectNotFoundError } from "../errors.ts";
import { carry, catchUp, type CatchUpOptions, type MirrorPair } from "./mirror-catch-up.ts";
import { compareStores, type Difference } from "./mirror-compare.ts";
import type { MirrorQueue } from "./mirror-queue.ts";
import { copyObject, digestOf } from "./object-copy.ts";
import type { CallOptions, ObjectKey } from "./storage.ts";

/** What a reader makes of an object: "unknown" where nothing in it could tell. */
export type Soundness = "whole" | "damaged" | "unknown";

export interface SyncOptions extends CatchUpOptions {
  readonly isContentRead: boolean;
  /** See CompareOptions. */
  readonly unsharedKey?: ObjectKey;
  /** Bring back what only a mirror has. */
  readonly isRestoring: boolean;
  /** Reads an object of one side to its end; rejects with ObjectNotFoundError, and as stores do. */
  readonly judge: (side: "primary" | "mirror", key: ObjectKey) => Promise<Soundness>;
}

/** What was done about a difference, or why nothing was. */
export interface Repair {
  readonly difference: Difference;
  readonly isDone: boolean;
  readonly text: string;
}

/** Works off what is due, then repairs what differs nevertheless. Rejects where a store fails. */
export async function* syncMirror(
  pair: MirrorPair,
  queue: MirrorQueue,
  options: SyncOptions,
): AsyncGenerator<Repair, void, undefined> {
  const { failure } = await catchUp(pair, queue, options);
  if (failure !== undefined) throw failure;
  for await (const difference of compareStores(pair, queue, options)) {
    yield { difference, ...(await repair(pair, difference, options)) };
  }
}

async function repair(
  pair: MirrorPair,
  { key, kind }: Difference,
  options: SyncOptions,
): Promise<Omit<Repair, "difference">> {
  const { signal, judge } = options;
  if (kind === "due") return { isDone: false, text: "another process is at it" };
  if (kind === "surplus") return await bringBack(pair, key, options);
  const own = await judge("primary", key);
  if (kind === "missing") {
    if (own === "damaged") return { isDone: false, text: "it is damaged in the primary" };
    await carry(pair, key, new Set(["check"]), { signal });
    return { isDone: true, text: "copied to the mirror" };
  }
  const other = await judge("mirror", key);
  if (own === "whole" && other === "damaged") {
    await carry(pair, key, new Set(["replace"]), { signal });
    return await checked(pair, key, "damaged in the mirror: replaced there", { signal });
  }
  if (own === "damaged" && other === "whole") {
    await copyObject(pair.mirror, pair.primary, key, { existing: "overwrite", signal });
    return await checked(pair, key, "damaged in the primary: replaced there", { signal });
  }
  const both = own === "damaged" ? "damaged in both" : "nothing tells which of the two is right";
  return { isDone: false, text: both };
}

/** Several stores that are one may take a put elsewhere than where they read. */
async function checked(
  { primary, mirror }: MirrorPair,
  key: ObjectKey,
  text: string,
  { signal }: CallOptions,
): Promise<Omit<Repair, "difference">> {
  const [own, other] = await Promise.all([
    digestOf(primary.get(key, { signal })),
    digestOf(mirror.get(key, { signal })),
  ]);
  return own === other
    ? { isDone: true, text }
    : { isDone: false, text: `${text}, but it is read as before` };
}

async function bringBack(
  pair: MirrorPair,
  key: ObjectKey,
  { isRestoring, judge, signal }: SyncOptions,
): Promise<Omit<Repair, "difference">> {
  if (!isRestoring) return { isDone: false, text: "only in the mirror: deleted, or lost" };
  try {
    if ((await judge("mirror", key)) === "damaged") {
      return { isDone: false, text: "only in the mirror, and damaged" };
    }
    await copyObject(pair.mirror, pair.primary, key, { existing: "compare", signal });
    return { isDone: true, text: "brought back to the primary" };
  } catch (error) {
    if (!(error instanceof ObjectNotFoundError)) throw error;
    return { isDone: true, text: "deleted meanwhile" };
  }
}
