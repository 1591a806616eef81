import { writeSync } from "node:fs";
import { setTimeout as delay } from "node:timers/promises";
import { systemErrorCode } from "../errors.ts";

/** How long to wait when a reader that asked for it is not waited for by the system. */
const FULL_PIPE_PAUSE_MS = 5;

/**
 * Writes texts to an open file descriptor, in the order of the calls. As long as the descriptor
 * takes them, they are written before the call returns, so that no line is lost with the process.
 * (The runtime's own streams cost more to open than the rest of a short run.)
 *
 * Rejects with what the system says, such as EPIPE.
 */
export function descriptorWriter(descriptor: number): (text: string | Uint8Array) => Promise<void> {
  const pending: Promise<void>[] = [];
  return (text) => {
    const bytes = Buffer.from(text);
    const write = async () => {
      let position = 0;
      while (position < bytes.length) {
        const count = writeOnce(descriptor, bytes.subarray(position));
        if (count === undefined) await delay(FULL_PIPE_PAUSE_MS);
        else position += count;
      }
    };
    const last = pending.at(-1);
    const done = last === undefined ? write() : last.then(write, write);
    pending.push(done);
    const forget = () => void pending.splice(pending.indexOf(done), 1);
    done.then(forget, forget);
    return done;
  };
}

/** The number of bytes that were taken; undefined while the other side is not ready for any. */
function writeOnce(descriptor: number, bytes: Uint8Array): number | undefined {
  try {
    return writeSync(descriptor, bytes);
  } catch (error) {
    if (systemErrorCode(error) === "EAGAIN") return undefined;
    throw error;
  }
}
