import { Bell } from "../io/bell.ts";
import type { CallOptions } from "../storage/storage.ts";

/**
 * Segments are downloaded at the same time, and land (are decoded, checked and written) one at a
 * time, the nearest first: processors are the limit there, and side by side each would only delay
 * the one that recovery waits for.
 */
export class LandingOrder {
  readonly #underWay = new Set<string>();
  #landing: string | undefined;
  readonly #changed = new Bell();

  /** A segment is under way; `end` must be called, whatever comes of it. */
  begin(name: string): void {
    this.#underWay.add(name);
  }

  end(name: string): void {
    this.#underWay.delete(name);
    this.#leave(name);
  }

  /** Waits until nothing lands and nothing before `name` is under way; then `name` lands. */
  async turn(name: string, options: CallOptions): Promise<void> {
    await this.#changed.until(() => this.#isNext(name), options);
    this.#landing = name;
  }

  /** Lets others land while `name`, which lands, waits for something that they may have to do. */
  async aside<T>(name: string, wait: () => Promise<T>, options: CallOptions): Promise<T> {
    this.#leave(name);
    const result = await wait();
    await this.turn(name, options);
    return result;
  }

  #leave(name: string): void {
    if (this.#landing === name) this.#landing = undefined;
    this.#changed.ring();
  }

  #isNext(name: string): boolean {
    if (this.#landing !== undefined) return this.#landing === name;
    return [...this.#underWay].every((other) => other >= name);
  }
}
