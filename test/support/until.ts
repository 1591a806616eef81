import { systemClock } from "../../src/io/clock.ts";

/** Many times what anything here takes, even where the machine is slow and busy. */
const LIMIT_MS = 120_000;
const PAUSE_MS = 10;

/**
 * Asks until there is an answer other than undefined and false, and gives it; after two minutes
 * rejects with `what` and what `describe` tells. For what gives no event only: what another
 * process does, files, and sockets that are not there yet. `ask` ends it early by throwing.
 */
export async function until<T>(
  what: string,
  ask: () => T | undefined | false | Promise<T | undefined | false>,
  describe: () => string = () => "",
): Promise<T> {
  const deadline = AbortSignal.timeout(LIMIT_MS);
  for (;;) {
    const answer = await ask();
    if (answer !== undefined && answer !== false) return answer;
    if (deadline.aborted) throw new Error(`never: ${what} ${describe()}`);
    await pause(PAUSE_MS);
  }
}

/** For kills at random moments, and peers that are slow on purpose; never to wait for something. */
export async function pause(ms: number): Promise<void> {
  await systemClock.sleep(ms, { signal: new AbortController().signal });
}
