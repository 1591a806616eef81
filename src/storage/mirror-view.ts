import { ObjectNotFoundError } from "../errors.ts";
import type { MirrorQueue } from "./mirror-queue.ts";
import { borrowed, overlay } from "./overlay.ts";
import type { ObjectKey, Storage } from "./storage.ts";

/**
 * A mirror without the objects that may be old there, or deleted: those that a note names. The
 * mirror stays its owner's: disposing of this closes nothing.
 */
export function mirrorView(mirror: Storage, queue: MirrorQueue): Storage {
  const requireCurrent = async (key: ObjectKey): Promise<void> => {
    if ((await queue.named())(key)) throw new ObjectNotFoundError(key, mirror.name);
  };
  return overlay(borrowed(mirror), {
    async *get(key, options) {
      await requireCurrent(key);
      yield* mirror.get(key, options);
    },
    async stat(key, options) {
      await requireCurrent(key);
      return await mirror.stat(key, options);
    },
    async *list(prefix, options) {
      const isNamed = await queue.named();
      for await (const info of mirror.list(prefix, options)) {
        if (!isNamed(info.key)) yield info;
      }
    },
  });
}
