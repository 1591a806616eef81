/**
 * `promise`, unless `signal` is aborted first: then rejects with its reason at once. What `promise`
 * stands for goes on in the background; its later failure is ignored.
 */
export async function untilAborted<T>(promise: Promise<T>, signal: AbortSignal): Promise<T> {
  // Promise.race would leave a reaction on a long-lived promise for every call.
  return await new Promise<T>((resolve, reject) => {
    const onAbort = (): void => reject(signal.reason);
    const settle = (): void => signal.removeEventListener("abort", onAbort);
    if (signal.aborted) onAbort();
    else signal.addEventListener("abort", onAbort, { once: true });
    promise.then(resolve, reject).then(settle, settle);
  });
}

/**
 * Passes `stream` on until `signal` is aborted, then rejects with its reason, even while the
 * producer stalls; such a producer is told to end but is not waited for.
 */
export async function* abortable<T>(
  stream: AsyncIterable<T>,
  signal: AbortSignal,
): AsyncGenerator<T, void, undefined> {
  signal.throwIfAborted();
  const iterator = stream[Symbol.asyncIterator]();
  let isEnded = false;
  try {
    for (;;) {
      const next = await untilAborted(iterator.next(), signal);
      if (next.done === true) {
        isEnded = true;
        return;
      }
      yield next.value;
    }
  } finally {
    const ending = isEnded ? undefined : iterator.return?.();
    if (signal.aborted) ending?.catch(() => {});
    else await ending;
  }
}
