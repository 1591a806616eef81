import { writeSync } from "node:fs";
import { setTimeout as delay } from "node:timers/promises";
import { isatty } from "node:tty";
import { systemErrorCode } from "../errors.ts";

/** Bytes handed to the kernel at once: what a pipe takes without waiting. */
const WRITE_BYTES = 64 * 1024;

/** How long to leave a full, non-blocking pipe to its reader. */
const FULL_PIPE_WAIT_MS = 2;

/**
 * Standard output or error, written by its descriptor: making the runtime's stream object costs a
 * process that lives for 30 ms a quarter of its time.
 */
export class StandardStream {
  readonly isTerminal: boolean;
  readonly #descriptor: 1 | 2;

  constructor(descriptor: 1 | 2) {
    this.#descriptor = descriptor;
    this.isTerminal = isatty(descriptor);
  }

  /**
   * Resolves when the kernel has all of it, in the order of the calls' starts as long as no reader
   * is slow. Rejects with the system's error, EPIPE when the reader has gone.
   */
  async write(text: string): Promise<void> {
    const bytes = Buffer.from(text);
    for (let at = 0; at < bytes.length;) {
      try {
        at += writeSync(this.#descriptor, bytes, at, Math.min(WRITE_BYTES, bytes.length - at));
      } catch (error) {
        if (systemErrorCode(error) !== "EAGAIN") throw error;
        await delay(FULL_PIPE_WAIT_MS);
      }
    }
  }
}
