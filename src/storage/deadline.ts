import { DeadlineError } from "../errors.ts";
import { abortable, untilAborted } from "../io/abort.ts";
import type { Clock } from "../io/clock.ts";
import { Watchdog } from "../io/watchdog.ts";
import { overlay, wrappedCopies } from "./overlay.ts";
import type { CallOptions, Storage } from "./storage.ts";

/**
 * Gives every call a limit of time, from its beginning to the last byte or key: then it rejects
 * with DeadlineError, even if the store or the file system below hangs and can't be stopped. After
 * that it is not known whether a `put` or `delete` went through.
 */
export function deadlineStorage(inner: Storage, timeoutMs: number, clock: Clock): Storage {
  const watch = (call: string, { signal }: CallOptions): Watchdog => {
    signal.throwIfAborted();
    const onTimeout = () =>
      new DeadlineError(`${call} ${inner.name} did not end within ${timeoutMs / 1000} s`, {
        hint: "The store is stalled, unreachable or too slow. It is safe to try again.",
      });
    return new Watchdog({ signal, timeoutMs, clock, onTimeout });
  };
  return overlay(inner, {
    ...wrappedCopies(inner, (copy) => deadlineStorage(copy, timeoutMs, clock)),
    async *get(key, options) {
      using watchdog = watch(`get of ${key} from`, options);
      const { signal } = watchdog;
      yield* abortable(inner.get(key, { ...options, signal }), signal);
    },
    async put(key, body, options) {
      using watchdog = watch(`put of ${key} to`, options);
      const { signal } = watchdog;
      await untilAborted(inner.put(key, body, { ...options, signal }), signal);
    },
    async stat(key, options) {
      using watchdog = watch(`stat of ${key} in`, options);
      const { signal } = watchdog;
      return await untilAborted(inner.stat(key, { signal }), signal);
    },
    async *list(prefix, options) {
      using watchdog = watch(`list of ${prefix} in`, options);
      const { signal } = watchdog;
      yield* abortable(inner.list(prefix, { ...options, signal }), signal);
    },
    async delete(keys, options) {
      using watchdog = watch(`delete of ${keys.length} objects in`, options);
      const { signal } = watchdog;
      await untilAborted(inner.delete(keys, { signal }), signal);
    },
  });
}
