import type { Storage } from "./storage.ts";

/** What a wrapper does in its own way. */
type Own = Partial<Omit<Storage, "name">>;

/** `inner` with some of its methods done in another way; all else, what it can besides too, is its. */
export function overlay(inner: Storage, own: Own): Storage {
  return {
    get name() {
      return inner.name;
    },
    get isWriteOnly() {
      return inner.isWriteOnly;
    },
    get encryption() {
      return inner.encryption;
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
    get first() {
      return inner.first;
    },
    get unseen() {
      return inner.unseen;
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

/** For who wraps what may be several stores: each of them alone, wrapped in the same way. */
export function wrappedCopies(
  { copies, primary, first }: Storage,
  wrap: (storage: Storage) => Storage,
): Pick<Storage, "copies" | "primary" | "first"> {
  return {
    copies: copies?.map(wrap),
    primary: primary === undefined ? undefined : wrap(primary),
    first: first === undefined ? undefined : wrap(first),
  };
}
