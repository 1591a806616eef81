import { counted } from "../io/bytes.ts";
import { overlay, wrappedCopies } from "../storage/overlay.ts";
import { SentBytes } from "../storage/sent-bytes.ts";
import type { Storage } from "../storage/storage.ts";
import type { DeadlineScope } from "./deadline.ts";

/** The storage for work under a deadline, which learns of the bytes that pass. */
export function movingStorage(inner: Storage, scope: Pick<DeadlineScope, "moved">): Storage {
  return overlay(inner, {
    ...wrappedCopies(inner, (copy) => movingStorage(copy, scope)),
    get: (key, options) => counted(inner.get(key, options), scope.moved),
    async put(key, body, options) {
      let toldBytes = 0;
      const sent = new SentBytes((sentBytes) => {
        scope.moved(sentBytes - toldBytes);
        toldBytes = sentBytes;
      });
      await inner.put(key, body, { ...options, onSent: sent.ofPart() });
    },
  });
}
