import type { Storage } from "./storage.ts";

/** Methods that a wrapper does in its own way. */
type OwnMethods = Partial<
  Pick<Storage, "get" | "put" | "stat" | "list" | "delete" | "copies" | typeof Symbol.asyncDispose>
>;

/** `inner` with some of its methods done in another way; all else, what it can besides too, is its. */
export function overlay(inner: Storage, own: OwnMethods): Storage {
  return {
    get name() {
      return inner.name;
    },
    get isWriteOnly() {
      return inner.isWriteOnly;
    },
    get upkeep() {
      return inner.upkeep;
    },
    get copies() {
      return inner.copies;
    },
    get primary() {
      return inner.primary;
    },
    readableBytes: (key, storedBytes) =>
      inner.readableBytes === undefined ? storedBytes : inner.readableBytes(key, storedBytes),
    get: (key, options) => inner.get(key, options),
    put: async (key, body, options) => await inner.put(key, body, options),
    stat: async (key, options) => await inner.stat(key, options),
    list: (prefix, options) => inner.list(prefix, options),
    delete: async (keys, options) => await inner.delete(keys, options),
    [Symbol.asyncDispose]: async () => await inner[Symbol.asyncDispose](),
    ...own,
  };
}

/** A storage that is somebody else's: who disposes of it closes nothing. */
export function borrowed(inner: Storage): Storage {
  return overlay(inner, { [Symbol.asyncDispose]: async () => {} });
}
