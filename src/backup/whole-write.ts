import { writeSync } from "node:fs";
import { LocalFileError } from "../errors.ts";

/** What is written in one call, for the reason that `writeAll` of src/io/durable.ts gives. */
const WRITE_BYTES = 256 * 1024;

/**
 * Writes all of `bytes` into an open file at `position`, or behind what was written last. Blocks.
 * Throws LocalFileError where the file system takes nothing more, and system errors.
 */
export function writeAllSync(file: number, bytes: Uint8Array, position?: number): void {
  let offset = 0;
  while (offset < bytes.length) {
    const at = position === undefined ? null : position + offset;
    const wantedBytes = Math.min(bytes.length - offset, WRITE_BYTES);
    const writtenBytes = writeSync(file, bytes, offset, wantedBytes, at);
    if (writtenBytes === 0) throw new LocalFileError("the file system takes no more bytes");
    offset += writtenBytes;
  }
}
