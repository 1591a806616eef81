interface Offer<T> {
  readonly item: T;
  readonly taken: PromiseWithResolvers<void>;
}

/**
 * Gives items from one who works through them to one who asks for them. `give` resolves when the
 * next item is asked for: until then the giver holds what the item is made of.
 */
export class Handoff<T> implements AsyncIterator<T, undefined> {
  #offered: Offer<T> | undefined;
  #current: Offer<T> | undefined;
  #isEnded = false;
  #failure: { readonly error: unknown } | undefined;
  #changed = Promise.withResolvers<void>();

  /** One item at a time. Rejects when the other side has failed. */
  async give(item: T): Promise<void> {
    if (this.#failure !== undefined) throw this.#failure.error;
    const offer = { item, taken: Promise.withResolvers<void>() };
    this.#offered = offer;
    this.#changed.resolve();
    await offer.taken.promise;
  }

  /** There are no more items. */
  end(): void {
    this.#isEnded = true;
    this.#changed.resolve();
  }

  /** Ends both sides with an error; the first one counts. */
  fail(error: unknown): void {
    this.#failure ??= { error };
    for (const offer of [this.#offered, this.#current]) offer?.taken.reject(error);
    this.#changed.resolve();
  }

  async next(): Promise<IteratorResult<T, undefined>> {
    this.#current?.taken.resolve();
    this.#current = undefined;
    for (;;) {
      if (this.#failure !== undefined) throw this.#failure.error;
      if (this.#offered !== undefined) {
        this.#current = this.#offered;
        this.#offered = undefined;
        return { done: false, value: this.#current.item };
      }
      if (this.#isEnded) return { done: true, value: undefined };
      await this.#changed.promise;
      this.#changed = Promise.withResolvers();
    }
  }
}
