import type { DaemonWork } from "../../src/daemon/server.ts";
import { Bell } from "../../src/io/bell.ts";

/** Work that ends when the test says so. */
export class HeldWork implements DaemonWork {
  readonly #signal: AbortSignal;
  readonly calls: string[] = [];
  readonly aborted: string[] = [];
  readonly bell = new Bell();
  isHeld = false;
  failure: Error | undefined;

  /** `signal` ends the waiting of a test that fails. */
  constructor(signal: AbortSignal) {
    this.#signal = signal;
  }

  async push(name: string, options: { readonly signal: AbortSignal }): Promise<void> {
    await this.#work(`push ${name}`, options);
  }

  async fetch(
    name: string,
    destination: string,
    options: { readonly signal: AbortSignal },
  ): Promise<void> {
    await this.#work(`fetch ${name} ${destination}`, options);
  }

  /** Resolves once there were so many calls. */
  async called(count: number): Promise<void> {
    const signal = this.#signal;
    await this.bell.until(() => this.calls.length >= count, { signal });
  }

  async #work(call: string, options: { readonly signal: AbortSignal }): Promise<void> {
    this.calls.push(call);
    this.bell.ring();
    try {
      await this.bell.until(() => !this.isHeld, options);
    } catch (error) {
      this.aborted.push(call);
      this.bell.ring();
      throw error;
    }
    if (this.failure !== undefined) throw this.failure;
  }
}
