/** A seeded generator, so that a failed run can be repeated with WALNUT_SEED. */
export interface Random {
  readonly seed: number;
  /** In [0, 1). */
  next(): number;
}

/** The seed comes from WALNUT_SEED, else from the clock; print it when the test fails. */
export function seededRandom(): Random {
  const wanted = process.env["WALNUT_SEED"];
  return randomOf(wanted === undefined ? Date.now() % 2 ** 31 : Number(wanted));
}

/** The same for the same seed. */
export function randomOf(seed: number): Random {
  let state = seed >>> 0;
  return {
    seed,
    next() {
      // mulberry32
      state = (state + 0x6d2b79f5) >>> 0;
      let mixed = Math.imul(state ^ (state >>> 15), state | 1);
      mixed ^= mixed + Math.imul(mixed ^ (mixed >>> 7), mixed | 61);
      return ((mixed ^ (mixed >>> 14)) >>> 0) / 2 ** 32;
    },
  };
}

/** One of them, each as likely as the others. */
export function pick<T>(random: Random, items: readonly T[]): T {
  const item = items[Math.floor(random.next() * items.length)];
  if (item === undefined) throw new RangeError("nothing to choose from");
  return item;
}
