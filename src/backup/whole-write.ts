import { writeSync } from "node:fs";
import { LocalFileError } from "../errors.ts";

/**
 * Writes all of `bytes` into an open file at `position`, or behind what was written last. Blocks.
 * Throws LocalFileError where the file system takes nothing more, and system errors.
 */
export function writeAllSync(file: number, bytes: Uint8Array, position?: number): void {
  let offset = 0;
  while (offset < bytes.length) {
    const at = position === undefined ? null : position + offset;
    const writtenBytes = writeSync(file, bytes, offset, bytes.length - offset, at);
    if (writtenBytes === 0) throw new LocalFileError("the file system takes no more bytes");
    offset += writtenBytes;
  }
}
