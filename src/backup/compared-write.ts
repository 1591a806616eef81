import { readSync } from "node:fs";
import { writeAllSync } from "./whole-write.ts";

/** What is compared, and written, at once: a page of PostgreSQL. */
const UNIT_BYTES = 8192;

/** Writes bytes at a position of an open file; gives how many had to be written. */
export type WriteAt = (file: number, bytes: Uint8Array, position: number) => number;

/** Writes everything. */
export const writeAll: WriteAt = (file, bytes, position) => {
  writeAllSync(file, bytes, position);
  return bytes.length;
};

/** Writes what differs from what the file, open for reading too, has there already. */
export function comparedWrite(): WriteAt {
  let scratch = Buffer.alloc(0);
  return (file, bytes, position) => {
    if (scratch.length < bytes.length) scratch = Buffer.allocUnsafeSlow(bytes.length);
    const found = scratch.subarray(0, readFully(file, scratch.subarray(0, bytes.length), position));
    let written = 0;
    for (let at = 0; at < bytes.length; at += UNIT_BYTES) {
      const end = Math.min(at + UNIT_BYTES, bytes.length);
      const unit = bytes.subarray(at, end);
      if (end <= found.length && found.compare(unit, 0, unit.length, at, end) === 0) continue;
      writeAllSync(file, unit, position + at);
      written += unit.length;
    }
    return written;
  };
}

function readFully(file: number, target: Uint8Array, position: number): number {
  let filled = 0;
  while (filled < target.length) {
    const count = readSync(file, target, filled, target.length - filled, position + filled);
    if (count === 0) break;
    filled += count;
  }
  return filled;
}
