import { type ByteSource, mapSource } from "../io/bytes.ts";
import type { SendOptions } from "./storage.ts";

/** How much of a body is on its way in all, of which several parts are. */
export class SentBytes {
  readonly #onSent: SendOptions["onSent"];
  #sentBytes = 0;

  constructor(onSent: SendOptions["onSent"]) {
    this.#onSent = onSent;
  }

  /** To be told of one part. What is sent again counts once. */
  ofPart(): (sentBytes: number) => void {
    let furthest = 0;
    return (sentBytes) => {
      if (sentBytes <= furthest) return;
      this.#sentBytes += sentBytes - furthest;
      furthest = sentBytes;
      this.#onSent?.(this.#sentBytes);
    };
  }
}

/** A body that tells how much of it was taken, for a store that takes it as it comes. */
export function tellingSource(body: ByteSource, onSent: SendOptions["onSent"]): ByteSource {
  if (onSent === undefined) return body;
  return mapSource(body, async function* (stream) {
    let sentBytes = 0;
    for await (const chunk of stream) {
      yield chunk;
      sentBytes += chunk.length;
      onSent(sentBytes);
    }
  });
}
