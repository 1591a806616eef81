import { mapSource } from "../io/bytes.ts";
import { rateLimited } from "../io/rate-limit.ts";
import type { ByteGate } from "../io/rate-limit.ts";
import { overlay } from "./overlay.ts";
import type { Storage } from "./storage.ts";

/** Bytes put and got, all calls together, keep to a rate. A body read again counts again. */
export function rateLimitedStorage(inner: Storage, limit: ByteGate): Storage {
  return overlay(inner, {
    get: (key, options) => rateLimited(inner.get(key, options), limit, options),
    async put(key, body, options) {
      const slowed = mapSource(body, (stream) => rateLimited(stream, limit, options));
      await inner.put(key, slowed, options);
    },
  });
}
