import { compareKeys } from "./key.ts";
import type { ObjectInfo } from "./storage.ts";

/** A list of one store. */
export interface ListSource {
  /** The store's: "default". */
  readonly name: string;
  readonly objects: AsyncIterable<ObjectInfo>;
}

export interface MergeRules {
  /** Objects of one group stand together in a list; undefined for those of none. */
  readonly groupOf: (key: string) => string | undefined;
  /** Which store the group is read from; undefined where that is all the same. */
  readonly homeOf: (group: string) => Promise<string | undefined>;
  /** Whether of two objects the one that was written later counts, not that of the first store. */
  readonly isRewritten: (key: string) => boolean;
}

interface Head {
  readonly source: ListSource;
  readonly iterator: AsyncIterator<ObjectInfo>;
  info: ObjectInfo | undefined;
}

/**
 * Several lists as one: each key once, with the names of all stores that have it. Of a group that
 * more than one store has objects of, only what its home has.
 */
export async function* mergeLists(
  sources: readonly ListSource[],
  rules: MergeRules,
): AsyncIterable<ObjectInfo> {
  const heads: Head[] = sources.map((source) => ({
    source,
    iterator: source.objects[Symbol.asyncIterator](),
    info: undefined,
  }));
  const current: { group: string | undefined; home: string | undefined } = {
    group: undefined,
    home: undefined,
  };
  try {
    await advance(heads);
    for (;;) {
      const first = firstHeads(heads);
      const key = first[0]?.info?.key;
      if (key === undefined) return;
      const group = rules.groupOf(key);
      if (group !== current.group) {
        current.group = group;
        current.home = group === undefined ? undefined : await homeAmong(heads, group, rules);
      }
      const chosen = choose(first, current.home, rules.isRewritten(key));
      if (chosen !== undefined) yield { ...chosen, stores: first.map(({ source }) => source.name) };
      await advance(first);
    }
  } finally {
    for (const { iterator } of heads) await iterator.return?.();
  }
}

async function advance(heads: readonly Head[]): Promise<void> {
  await Promise.all(
    heads.map(async (head) => {
      const next = await head.iterator.next();
      head.info = next.done === true ? undefined : next.value;
    }),
  );
}

/** Those that stand at the smallest key, in the order of the stores. */
function firstHeads(heads: readonly Head[]): readonly Head[] {
  let first: Head[] = [];
  for (const head of heads) {
    if (head.info === undefined) continue;
    const smallest = first[0]?.info;
    const order = smallest === undefined ? -1 : compareKeys(head.info.key, smallest.key);
    if (order < 0) first = [head];
    else if (order === 0) first.push(head);
  }
  return first;
}

/** Stores that have objects of a group all stand in it when the first one does. */
async function homeAmong(
  heads: readonly Head[],
  group: string,
  { groupOf, homeOf }: MergeRules,
): Promise<string | undefined> {
  const inside = heads.filter(({ info }) => info !== undefined && groupOf(info.key) === group);
  return inside.length > 1 ? await homeOf(group) : undefined;
}

function choose(
  first: readonly Head[],
  home: string | undefined,
  isRewritten: boolean,
): ObjectInfo | undefined {
  if (home !== undefined) return first.find(({ source }) => source.name === home)?.info;
  const infos = first.flatMap(({ info }) => info ?? []);
  return isRewritten ? newestOf(infos) : infos[0];
}

/** The one that was written last, by the stores' clocks; of equals the first. */
export function newestOf<T extends Pick<ObjectInfo, "modifiedAt">>(
  infos: readonly T[],
): T | undefined {
  let newest: T | undefined;
  for (const info of infos) {
    if (newest === undefined || info.modifiedAt > newest.modifiedAt) newest = info;
  }
  return newest;
}
