import { collectGarbage } from "./runtime.ts";

/** Garbage that may lie about. */
const COLLECTED_BYTES = 16 * 1024 * 1024;

/**
 * Passes items of a long document on, each of which leaves about `garbageBytes`, and has that
 * collected now and then: the collector does not see how much a million small things take.
 */
export async function* collected<T>(
  items: AsyncIterable<T> | Iterable<T>,
  garbageBytes: number,
): AsyncGenerator<T, void, undefined> {
  const most = Math.ceil(COLLECTED_BYTES / garbageBytes);
  let count = 0;
  for await (const item of items) {
    yield item;
    count += 1;
    if (count % most === 0) collectGarbage();
  }
  if (count >= most) collectGarbage();
}
