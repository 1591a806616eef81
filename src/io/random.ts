/**
 * Random values for names and pauses. By the runtime's own generator: `node:crypto` has the same
 * one, but takes 2 to 3 ms to load.
 */
const STEPS = 2 ** 32;

/** So many random bytes in lower-case hex: two digits each. */
export function randomHex(bytes: number): string {
  return Buffer.from(crypto.getRandomValues(new Uint8Array(bytes))).toString("hex");
}

/** In [0, 1), in steps of 2^-32. */
export function randomFraction(): number {
  const [value = 0] = crypto.getRandomValues(new Uint32Array(1));
  return value / STEPS;
}
