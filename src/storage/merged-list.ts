import { compareKeys } from "./key.ts";
import type { ListOptions, ObjectInfo, Storage } from "./storage.ts";

export interface MergeOptions extends ListOptions {
  /**
   * Told of a store that fails, by its place: its list ends here, and the others go on. Without it
   * the failure is thrown.
   */
  readonly onFailed?: (index: number, error: unknown) => void;
}

/** What each of several stores has under one key; undefined where it has no such object. */
export type MergedEntry = readonly (ObjectInfo | undefined)[];

/** The lists of several stores side by side, in ascending byte order of the keys. */
export async function* mergeLists(
  storages: readonly Storage[],
  prefix: string,
  { onFailed, ...options }: MergeOptions,
): AsyncGenerator<MergedEntry, void, undefined> {
  const readers = storages.map(
    (storage, index) =>
      new ListReader(storage.list(prefix, options), (error) => {
        options.signal.throwIfAborted();
        if (onFailed === undefined) throw error;
        onFailed(index, error);
      }),
  );
  try {
    await Promise.all(readers.map((reader) => reader.advance()));
    for (;;) {
      const keys = readers.flatMap(({ head }) => head?.key ?? []);
      const [first] = keys.toSorted(compareKeys);
      if (first === undefined) return;
      const isNext = ({ head }: ListReader): boolean => head?.key === first;
      yield readers.map((reader) => (isNext(reader) ? reader.head : undefined));
      await Promise.all(readers.filter(isNext).map((reader) => reader.advance()));
    }
  } finally {
    await Promise.allSettled(readers.map((reader) => reader.end()));
  }
}

class ListReader {
  /** Undefined before the first `advance` and at the end. */
  head: ObjectInfo | undefined;
  readonly #iterator: AsyncIterator<ObjectInfo>;
  readonly #onFailed: (error: unknown) => void;

  constructor(list: AsyncIterable<ObjectInfo>, onFailed: (error: unknown) => void) {
    this.#iterator = list[Symbol.asyncIterator]();
    this.#onFailed = onFailed;
  }

  async advance(): Promise<void> {
    this.head = undefined;
    try {
      const next = await this.#iterator.next();
      this.head = next.done === true ? undefined : next.value;
    } catch (error) {
      this.#onFailed(error);
    }
  }

  async end(): Promise<void> {
    await this.#iterator.return?.();
  }
}
