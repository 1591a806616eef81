import { untilAborted } from "./abort.ts";

interface JobOptions {
  readonly signal: AbortSignal;
}

/** Results that wait for the reader, for each job: enough to keep all jobs busy meanwhile. */
const RESULTS_PER_JOB = 2;

/**
 * Runs `run` on each of `inputs`, at most `jobs` at a time, and gives the results in the order of
 * the inputs. Reads ahead while the consumer is busy: at most one input that has not begun yet,
 * `jobs` that run, and 2 * `jobs` results and running ones together that the consumer has not
 * taken.
 *
 * The first error in that order, of `run` or of `inputs`, comes after all results before it; a
 * consumer that stops early and an error end the inputs and wait for the jobs that run. An abort
 * rejects at once with the signal's reason and waits for nothing.
 */
export async function* orderedJobs<T, U>(
  inputs: Iterable<T> | AsyncIterable<T>,
  jobs: number,
  run: (input: T) => Promise<U>,
  { signal }: JobOptions,
): AsyncGenerator<U, void, undefined> {
  signal.throwIfAborted();
  const iterator =
    Symbol.asyncIterator in inputs ? inputs[Symbol.asyncIterator]() : asyncIterator(inputs);
  const line = new JobLine(iterator, jobs, run);
  const pumping = line.pump();
  try {
    for (;;) {
      const head = await untilAborted(line.head(), signal);
      if (head === undefined) return;
      const result = await untilAborted(head.result, signal);
      line.takeHead();
      yield result;
    }
  } finally {
    const stopping = line.stop(pumping);
    if (signal.aborted) stopping.catch(() => {});
    else await stopping;
  }
}

/**
 * Runs `run` on each of `items`, at most `limit` at a time. The first error aborts the signal that
 * the others were given, waits for them to end, and is thrown; so does an abort of `signal`.
 */
export async function boundedParallel<T>(
  items: Iterable<T> | AsyncIterable<T>,
  limit: number,
  run: (item: T, options: JobOptions) => Promise<void>,
  { signal }: JobOptions,
): Promise<void> {
  signal.throwIfAborted();
  const failure = new AbortController();
  const inner = AbortSignal.any([signal, failure.signal]);
  const iterator = asyncIterator(items);
  const worker = async (): Promise<void> => {
    try {
      while (!inner.aborted) {
        const next = await iterator.next();
        if (next.done === true || inner.aborted) return;
        await run(next.value, { signal: inner });
      }
    } catch (error) {
      // Those that fail because of an abort come later and change nothing.
      if (!signal.aborted) failure.abort(error);
    }
  };
  await Promise.all(Array.from({ length: limit }, worker));
  if (!inner.aborted) return;
  await iterator.return();
  throw failure.signal.aborted ? failure.signal.reason : signal.reason;
}

/** Runs both at the same time and gives what they give; ends as `boundedParallel` does. */
export async function both<A, B>(
  one: (options: JobOptions) => Promise<A>,
  other: (options: JobOptions) => Promise<B>,
  options: JobOptions,
): Promise<readonly [A, B]> {
  let first: { readonly value: A } | undefined;
  let second: { readonly value: B } | undefined;
  const jobs = [
    async (inner: JobOptions) => void (first = { value: await one(inner) }),
    async (inner: JobOptions) => void (second = { value: await other(inner) }),
  ];
  await boundedParallel(jobs, jobs.length, (job, inner) => job(inner), options);
  if (first === undefined || second === undefined) throw new Error("a job gave nothing");
  return [first.value, second.value];
}

/** So many may hold it at the same time; the others wait in the order of their asking. */
export class Semaphore {
  #free: number;
  readonly #waiting = new Set<() => void>();

  constructor(count: number) {
    this.#free = count;
  }

  /** Rejects with the signal's reason, and takes nothing, once that is aborted. */
  async acquire({ signal }: JobOptions): Promise<void> {
    signal.throwIfAborted();
    if (this.#free > 0) {
      this.#free -= 1;
      return;
    }
    const turn = Promise.withResolvers<void>();
    this.#waiting.add(turn.resolve);
    try {
      await untilAborted(turn.promise, signal);
    } catch (error) {
      // Passed on if it was given in the same moment.
      if (!this.#waiting.delete(turn.resolve)) this.release();
      throw error;
    }
  }

  release(): void {
    const [next] = this.#waiting;
    if (next === undefined) {
      this.#free += 1;
      return;
    }
    this.#waiting.delete(next);
    next();
  }
}

class JobLine<T, U> {
  readonly #inputs: AsyncIterator<T>;
  readonly #jobs: number;
  readonly #run: (input: T) => Promise<U>;
  /** In the order of the inputs: running, or ended and not taken yet. */
  readonly #results: Promise<U>[] = [];
  #runningCount = 0;
  #isStopped = false;
  #isAtEnd = false;
  #changed = Promise.withResolvers<void>();

  constructor(inputs: AsyncIterator<T>, jobs: number, run: (input: T) => Promise<U>) {
    this.#inputs = inputs;
    this.#jobs = jobs;
    this.#run = run;
  }

  /** Never rejects: what the inputs throw is the last result. */
  async pump(): Promise<void> {
    try {
      while (!this.#isStopped) {
        const next = await this.#inputs.next();
        if (next.done === true) break;
        while (!this.#isStopped && this.#isFull()) await this.#changed.promise;
        if (!this.#isStopped) this.#start(next.value);
      }
    } catch (error) {
      this.#append(Promise.reject(error));
    } finally {
      this.#isAtEnd = true;
      this.#wake();
    }
  }

  /** The oldest result, or undefined after the last one. */
  async head(): Promise<{ readonly result: Promise<U> } | undefined> {
    while (this.#results.length === 0 && !this.#isAtEnd) await this.#changed.promise;
    const [result] = this.#results;
    return result === undefined ? undefined : { result };
  }

  takeHead(): void {
    void this.#results.shift();
    this.#wake();
  }

  async stop(pumping: Promise<void>): Promise<void> {
    this.#isStopped = true;
    this.#wake();
    await pumping;
    await Promise.allSettled(this.#results);
    await this.#inputs.return?.();
  }

  #isFull(): boolean {
    const isRoomLeft = this.#results.length < this.#jobs * RESULTS_PER_JOB;
    return this.#runningCount >= this.#jobs || !isRoomLeft;
  }

  #start(input: T): void {
    this.#runningCount += 1;
    const ended = (): void => {
      this.#runningCount -= 1;
      this.#wake();
    };
    this.#append(this.#run(input).finally(ended));
  }

  #append(result: Promise<U>): void {
    // It is handled when its turn comes; until then nobody may call it unhandled.
    result.catch(() => {});
    this.#results.push(result);
    this.#wake();
  }

  #wake(): void {
    this.#changed.resolve();
    this.#changed = Promise.withResolvers();
  }
}

async function* asyncIterator<T>(
  items: Iterable<T> | AsyncIterable<T>,
): AsyncGenerator<T, void, undefined> {
  yield* items;
}
